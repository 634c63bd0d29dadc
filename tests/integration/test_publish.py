"""`msam publish` and `msam tail` against a real broker, through the command line where that is what people touch."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from streams import sources
from streams.dead_letters import dead_letter
from streams.errors import NotReady
from streams.local_kafka import LocalKafka
from streams.partitioner import partition_for
from streams.publisher import PublishError, publish
from streams.reader import read
from streams.records import AudioUpload, Item, Play, Reasons, Recommendation, Source, TrackMetadata, UserProfile
from streams.serialization import DecodeError, decode, encode
from streams.topics import DEAD_LETTERS, PLAYS, RECOMMENDATIONS, create_topics, topic_specs

Config = dict[str, str]
# Now: the compacted topic thins what is older than a day, and these tests count records.
STAMP_MS = int(time.time() * 1000)
STAMP = datetime.fromtimestamp(STAMP_MS / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """A broker of this module's own: the commands write to topics whose names are fixed."""
    with LocalKafka(tmp_path_factory.mktemp("kafka"), heap="384m") as broker:
        made = {"bootstrap.servers": broker.bootstrap}
        create_topics(made, topic_specs(4, "msam"))
        yield made


def msam(config: Config, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, run as people run it."""
    command = [sys.executable, "-m", "streams.cli", *words, "--bootstrap", config["bootstrap.servers"]]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def all_of(config: Config, topic: str) -> list[Message]:
    """Every record now in a topic, by a consumer that shares no code with the reader."""
    consumer = Consumer(
        {**config, "group.id": "check", "enable.auto.commit": False, "isolation.level": "read_committed"}
    )
    try:
        found = []
        for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
            place = TopicPartition(topic, partition, 0)
            end = consumer.get_watermark_offsets(place, timeout=10)[1]
            consumer.assign([place])
            while consumer.position([place])[0].offset < end and end:
                message = consumer.poll(5)
                assert message is not None and message.error() is None
                found.append(message)
        return found
    finally:
        consumer.close()


def write(path: Path, rows: list[tuple[str, str, int]]) -> Path:
    """A plays file."""
    path.write_text("user_id,track_id,timestamp\n" + "".join(f"{u},{t},{s}\n" for u, t, s in rows))
    return path


def test_real_plays_arrive_whole_in_order_and_where_java_would_put_them(config: Config, data_dir: Path) -> None:
    path = data_dir / "classic_rock" / "plays.csv"
    done = msam(config, "publish", "plays", str(path), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    summary = json.loads(done.stdout)
    assert summary["topic"] == PLAYS and summary["published"] == 26_920 and not summary["interrupted"]
    messages = all_of(config, PLAYS)
    sent = [event.record for event in sources.plays(path)]
    got: dict[str, list[Play]] = {}
    for message in messages:
        play = decode(Play, message.value() or b"")
        assert message.key() == play.user_id.encode()
        assert message.partition() == partition_for(play.user_id.encode(), 4)
        got.setdefault(play.user_id, []).append(play)
    for user, plays in got.items():
        assert plays == [play for play in sent if isinstance(play, Play) and play.user_id == user]
    assert sum(map(len, got.values())) == len(sent)


def test_tracks_profiles_and_audio(config: Config, tmp_path: Path) -> None:
    table = tmp_path / "tracks.csv"
    table.write_text("track_id,title,artist_id,artist,album_id,album\nt1,Söng,,,,\n")
    users = tmp_path / "users.jsonl"
    users.write_text('{"user_id": "u1", "age": 24}\n')
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "t1.wav").write_bytes(b"RIFF")
    for words in (["tracks", table], ["profiles", users], ["audio", clips], ["audio", clips, "--inline"]):
        done = msam(config, "publish", *map(str, words))
        assert (done.returncode, done.stderr) == (0, ""), words
        assert done.stdout.startswith("1 records published to ")
    (track,) = all_of(config, "track-metadata")
    assert (track.key(), decode(TrackMetadata, track.value() or b"")) == (b"t1", TrackMetadata("t1", "Söng"))
    (user,) = all_of(config, "user-profiles")
    assert decode(UserProfile, user.value() or b"") == UserProfile("u1", age=24)
    first, second = (decode(AudioUpload, message.value() or b"") for message in all_of(config, "audio-uploads"))
    assert first.uri == (clips / "t1.wav").as_uri() and second.content == b"RIFF"


def test_a_bad_row_stops_before_it_and_says_how_many_got_through(config: Config, tmp_path: Path) -> None:
    path = write(tmp_path / "plays.csv", [("bad-row", f"t{i}", i) for i in range(5)])
    path.write_text(path.read_text() + "bad-row,t5,soon\nbad-row,t6,6\n")
    done = msam(config, "publish", "plays", str(path))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        f"error: {path}:7: timestamp 'soon' is not a number (5 records before it are published to plays)\n"
    )
    assert sum(message.key() == b"bad-row" for message in all_of(config, PLAYS)) == 5


def test_rate_is_even(config: Config, tmp_path: Path) -> None:
    path = write(tmp_path / "plays.csv", [("rate", f"t{i}", i) for i in range(21)])
    done = publish(config, PLAYS, sources.plays(path), rate=20.0)
    assert done.records == 21 and 1.0 <= done.seconds < 2.0
    stamps = sorted(message.timestamp()[1] for message in all_of(config, PLAYS) if message.key() == b"rate")
    # The first half may wait for the producer's identity and arrive together; the second half is due over 0.5 s.
    assert stamps[-1] - stamps[10] > 350, "append times are spread"


def test_ctrl_c_flushes_and_counts(config: Config, tmp_path: Path) -> None:
    path = write(tmp_path / "plays.csv", [("ctrl-c", f"t{i}", i) for i in range(1000)])
    words = ["publish", "plays", str(path), "--rate", "20", "--json", "--bootstrap", config["bootstrap.servers"]]
    with subprocess.Popen(
        [sys.executable, "-m", "streams.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            arrived = read(
                config, PLAYS, start="earliest", wanted=lambda m: m.key() == b"ctrl-c", idle_exit=30, limit=3
            )
            assert len(list(arrived)) == 3
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, err) == (130, "")
    summary = json.loads(out)
    assert summary["interrupted"] and 3 <= summary["published"] < 1000
    assert sum(m.key() == b"ctrl-c" for m in all_of(config, PLAYS)) == summary["published"]


def test_no_topic_and_no_broker(config: Config, unique: str) -> None:
    with pytest.raises(NotReady, match=f"no topic '{unique}': create it"):
        publish(config, unique, [])
    with pytest.raises(NotReady, match="no topic"):
        next(read(config, unique))


def test_a_record_that_is_too_large_is_a_clear_error(config: Config, unique: str) -> None:
    spec = topic_specs(1, "g")[0]
    create_topics(config, [type(spec)(unique, "track_id", 1, "delete", {"max.message.bytes": "1000"})])
    upload = AudioUpload("t1", content=Random(0).randbytes(25_600))
    with pytest.raises(PublishError, match=r"refused a record: .*0 records"):
        publish(config, unique, [sources.Event("here", upload)])


@pytest.fixture(scope="module")
def lists(config: Config) -> list[Recommendation]:
    """Six lists of two users, committed, and one in a transaction that was aborted."""
    reasons = Reasons("similar", "t0", 0.2, 0.3, 0.5, "rhythm", "love")
    made = [
        Recommendation(
            f"u{i % 2}", (Item("t1", 0.5, 1, reasons), Item("t2", 0.25, 2, Reasons("discovery"))), "v1", 7, 0, 3,
            Source("plays", 1, i, 1187708111.0, "t0"),
        )
        for i in range(6)
    ]  # fmt: skip
    producer = Producer({**config, "transactional.id": "lists", "partitioner": "murmur2_random"})
    producer.init_transactions(30)
    for batch, keep in ((made, True), (made[:1], False)):
        producer.begin_transaction()
        for record in batch:
            producer.produce(RECOMMENDATIONS, encode(record), record.key.encode(), timestamp=STAMP_MS)
        producer.flush(30)
        if keep:
            producer.produce(RECOMMENDATIONS, None, b"u1")  # a tombstone: forgotten
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)
    return made


def test_tail_json_has_the_documented_shape(config: Config, lists: list[Recommendation]) -> None:
    done = msam(config, "tail", "recommendations", "--from", "earliest", "--idle-exit", "2", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 6, "neither the aborted list nor the tombstone"
    first = next(line for line in lines if line["source"]["offset"] == 0)
    reasons = {"kind": "similar", "because": "t0", "audio": 0.2, "text": 0.3, "sequence": 0.5}
    nothing = {"kind": "discovery", "because": None, "audio": 0.0, "text": 0.0, "sequence": 0.0}
    assert first == {
        "user_id": "u0",
        "items": [
            {
                "track_id": "t1",
                "score": 0.5,
                "rank": 1,
                "reasons": {**reasons, "audio_group": "rhythm", "word": "love"},
            },
            {"track_id": "t2", "score": 0.25, "rank": 2, "reasons": {**nothing, "audio_group": None, "word": None}},
        ],
        "model_version": "v1",
        "catalogue_version": 7,
        "counts_version": 0,
        "profile_version": 3,
        "source": {"topic": "plays", "partition": 1, "offset": 0, "played_at": 1187708111.0, "track_id": "t0"},
        "produced_at": STAMP_MS / 1000,
    }


def test_tail_of_one_user_ends_at_max(config: Config, lists: list[Recommendation]) -> None:
    words = ("tail", "recommendations", "--user", "u1", "--from", "earliest", "--max", "3")
    done = msam(config, *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout.splitlines() == [f"{STAMP}  u1  after t0:  1. t1 (similar t0)  2. t2 (discovery)  (model v1)"] * 3
    )


def test_tail_from_latest_sees_only_what_comes(config: Config, lists: list[Recommendation]) -> None:
    assert list(read(config, RECOMMENDATIONS, idle_exit=1.0)) == []


def test_tail_of_dead_letters(config: Config) -> None:
    letter = dead_letter(
        topic="plays", partition=2, offset=9, key=b"u1", value=b"\xff", headers=None, timestamp_ms=1000,
        error=DecodeError("bad bytes"),
    )  # fmt: skip
    producer = Producer(config)
    producer.produce(letter.topic, letter.value, letter.key, headers=list(letter.headers), timestamp=STAMP_MS)
    assert producer.flush(30) == 0
    words = ("tail", "dead-letters", "--from", "earliest", "--max", "1")
    (line,) = msam(config, *words, "--json").stdout.splitlines()
    shown = json.loads(line)
    assert shown.pop("dead_letter")["offset"] == 0
    assert shown == {
        "topic": "plays",
        "partition": 2,
        "offset": 9,
        "exception": "streams.serialization.DecodeError",
        "message": "bad bytes",
        "key": "u1",
        "value": "/w==",
        "produced_at": STAMP_MS / 1000,
    }
    assert msam(config, *words).stdout == f"{STAMP}  plays[2]@9  bad bytes\n"
    assert letter.topic == DEAD_LETTERS
