"""Records that cannot be handled: one dead letter each, as they came and with the reason; the stream goes on."""

import io
import json
import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import soundfile
from confluent_kafka import KafkaError, Producer

from streams.partitioner import partition_for
from streams.records import AudioUpload, Play, TrackMetadata, UserProfile
from streams.serialization import SINGLE_OBJECT, encode, encode_confluent
from streams.topics import AUDIO_UPLOADS, DEAD_LETTERS, PLAYS, TRACK_METADATA, USER_PROFILES
from tests.integration.system import START, System
from tests.integration.taps import PREFIX, Answers, header_pairs, headers_of, key_of
from tests.integration.workers import Worker

USER = "poison-1"
KEY = USER.encode()
GOOD = encode(Play(USER, "t1", START))
HOME = partition_for(KEY, 4)
NAMES = ["exception", "message", "stacktrace", "topic", "partition", "offset"]
Case = tuple[str, bytes | None, bytes | None, dict[str, Any], str]  # name, key, value, options, words of the reason


# A null key is a case for plays only: Kafka itself refuses it on a compacted topic, see the last test.


def json_of(**fields: Any) -> bytes:
    return json.dumps({"user_id": USER, "track_id": "t1", "played_at": START, **fields}).encode()


PLAY_CASES: list[Case] = [
    ("garbage", KEY, bytes(range(97, 130)) * 3, {}, "starts with 0x"),
    ("binary", KEY, b"\xff\x00\xfe" * 50, {}, "starts with 0x"),
    ("no value", KEY, None, {}, "without a value"),
    ("empty value", KEY, b"", {}, "without a value"),
    ("null key", None, GOOD, {"partition": HOME}, "key must be the play's user_id"),
    ("another's key", b"poison-2", GOOD, {}, "key must be the play's user_id"),
    ("empty key", b"", GOOD, {"partition": HOME}, "key must be the play's user_id"),
    ("wrong partition", KEY, GOOD, {"partition": (HOME + 1) % 4}, "murmur2"),
    ("NaN in JSON", KEY, json_of(played_at=float("nan")), {}, "NaN"),
    ("infinity in JSON", KEY, json_of(played_at=float("inf")), {}, "Infinity"),
    ("milliseconds", KEY, json_of(played_at=START * 1000), {}, "milliseconds"),
    ("text for a time", KEY, json_of(played_at="yesterday"), {}, "played_at"),
    ("number for a track", KEY, json_of(track_id=7), {}, "track_id"),
    ("missing field", KEY, b'{"user_id": "poison-1", "played_at": 1}', {}, "track_id is missing"),
    ("control character", KEY, json_of(track_id="a\u0000b"), {}, "control character"),
    ("long id", KEY, json_of(track_id="x" * 1025), {}, "1025 bytes"),
    ("half a JSON", KEY, json_of()[:-9], {}, "not valid JSON"),
    ("JSON in Latin-1", KEY, '{"user_id": "poison-1é"}'.encode("latin-1"), {}, "UTF-8"),
    ("deep JSON", KEY, b'{"a":' * 5000 + b"1" + b"}" * 5000, {}, "nested too deeply"),
    ("text in Avro", KEY, GOOD[:10] + b"just some text", {}, ""),
    ("truncated Avro", KEY, GOOD[:-3], {}, "truncated"),
    ("trailing bytes", KEY, GOOD + b"\x00", {}, "left over"),
    ("NaN in Avro", KEY, GOOD.replace(struct.pack("<d", START), struct.pack("<d", float("nan"))), {}, "finite"),
    ("unknown schema", KEY, SINGLE_OBJECT + b"\x01" * 8 + GOOD[10:], {}, "unknown schema fingerprint"),
    ("a profile", KEY, encode(UserProfile(USER)), {}, "wrong topic"),
    ("unknown registry id", KEY, encode_confluent(Play(USER, "t1", START), 99), {}, "has nothing at /schemas/ids/99"),
    ("10 kB id", KEY, json_of(user_id="u" * 10240), {}, "10240 bytes"),
    ("10 kB id and key", b"u" * 10240, json_of(user_id="u" * 10240), {}, "10240 bytes"),
    ("escape sequence", b"\x1b[2J", json_of(user_id="\x1b[2J"), {}, "control character"),
    ("line break", KEY, json_of(track_id="a\r\nb"), {}, "control character"),
    ("lone surrogate", KEY, json_of(track_id="\ud800"), {}, "surrogate"),
    ("invalid UTF-8 in Avro", KEY, GOOD.replace(b"t1", b"\xff\xfe"), {}, "not UTF-8"),
    ("invalid UTF-8 for a key", b"\xff\xfe", GOOD, {}, "key must be the play's user_id"),
    ("before 1970", KEY, json_of(played_at=-1), {}, "1970"),
    ("after 2200", KEY, json_of(played_at=7258118400), {}, "2200"),
    ("the end of time", KEY, json_of(played_at=1e300), {}, "2200"),
    ("minus infinity in Avro", KEY, GOOD.replace(struct.pack("<d", START), struct.pack("<d", -math.inf)), {}, "finite"),
    ("huge length in Avro", KEY, GOOD[:10] + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" + GOOD[11:], {}, ""),
]
META = b"poison-track"
METADATA_CASES: list[Case] = [
    ("garbage", META, b"no metadata", {}, "starts with 0x"),
    ("empty value", META, b"", {}, "empty message"),
    ("another's key", b"poison-other", encode(TrackMetadata("poison-track", "Title")), {}, "key must be its track_id"),
    ("empty key", b"", encode(TrackMetadata("poison-track")), {"partition": 0}, "key must be its track_id"),
    ("tombstone of nothing", b"", None, {"partition": 1}, "tombstone needs the track_id"),
    ("NaN duration", META, b'{"track_id": "poison-track", "duration": NaN}', {}, "NaN"),
    ("year", META, b'{"track_id": "poison-track", "release_year": 20000}', {}, "release_year"),
    ("a play", META, GOOD, {}, "wrong topic"),
    ("truncated", META, encode(TrackMetadata("poison-track", "A long title"))[:-4], {}, "truncated"),
]
PROFILE_CASES: list[Case] = [
    ("garbage", KEY, b"\x07profile", {}, "starts with 0x"),
    ("empty value", KEY, b"", {}, "empty message"),
    ("another's key", b"poison-2", encode(UserProfile(USER, age=24)), {}, "key must be the profile's user_id"),
    ("empty key", b"", encode(UserProfile(USER)), {"partition": 2}, "key must be the profile's user_id"),
    ("age", KEY, b'{"user_id": "poison-1", "age": 999}', {}, "age"),
    ("a play", KEY, GOOD, {}, "wrong topic"),
]


def flac(seconds: int) -> bytes:
    """Silence, which FLAC packs to next to nothing: a decompression bomb."""
    packed = io.BytesIO()
    soundfile.write(packed, np.zeros(seconds * 1000, np.int16), 1000, format="FLAC")
    return packed.getvalue()


SOUND = b"poison-sound"
BOMB = flac(6 * 3600)


def upload(content: bytes, track: str = "poison-sound") -> bytes:
    return encode(AudioUpload(track, content=content))


AUDIO_CASES: list[Case] = [
    ("garbage", SOUND, b"no upload", {}, "starts with 0x"),
    ("empty value", SOUND, b"", {}, "empty message"),
    ("another's key", b"poison-other", upload(BOMB), {}, "key must be its track_id"),
    ("tombstone of nothing", b"", None, {"partition": 1}, "tombstone needs the track_id"),
    ("no sound", SOUND, upload(b"This is text. " * 100), {}, "not audio"),
    ("cut FLAC", SOUND, upload(flac(60)[:200]), {}, ""),
    ("damaged FLAC", SOUND, upload(BOMB[:60] + bytes(range(256)) * 8 + BOMB[60:]), {}, ""),
    ("six hours in a few kB", SOUND, upload(BOMB), {}, "too long"),
    ("truncated", SOUND, upload(BOMB)[:-4], {}, "truncated"),
]


def check_letters(system: System, worker: Worker, topic: str, cases: Sequence[Case]) -> None:
    """Send all, then a good play in every partition: each case has one letter, each play its list."""
    own = [("trace", b"\x00\xff"), ("trace", b"again")]
    with Answers(system.config) as answers:
        for name, key, value, options, _ in cases:
            marked = [("case", name.encode()), *own, (f"{PREFIX}message", b"of an earlier failure")]
            system.sender.send(topic, key, value, headers=marked, **options)
        places = system.sender.flush()
        letters = answers.wait(places, 90)
        after = [(f"after-{topic}-{n}", system.described[n], START + n) for n in range(24)]
        good = system.play(after)
        assert {partition for _, partition, _ in good} == {0, 1, 2, 3}
        for answer, (user, track, _) in zip(answers.wait(good, 30), after, strict=True):
            assert answer.record is not None, answer.reason
            assert (answer.record.user_id, answer.record.source.track_id) == (user, track)
            assert len(answer.record.items) == 20
        assert all(len(answers.by_place[place]) == 1 for place in (*places, *good))
    for (name, key, value, _, words), place, letter in zip(cases, places, letters, strict=True):
        message = letter.message
        assert letter.record is None and message.topic() == DEAD_LETTERS, f"{topic}, {name}: answered"
        assert (key_of(message), message.value()) == (key, value), f"{topic}, {name}: not as it came"
        headers, pairs = headers_of(message), header_pairs(message)
        assert pairs[:3] == [("case", name.encode()), *own], f"{topic}, {name}: headers are not kept"
        assert [n.removeprefix(PREFIX) for n, _ in pairs[3:]] == NAMES, f"{topic}, {name}"
        at = (headers[f"{PREFIX}topic"].decode(), int(headers[f"{PREFIX}partition"]), int(headers[f"{PREFIX}offset"]))
        assert at == place
        assert words in letter.reason, f"{topic}, {name}: {letter.reason}"
        assert len(letter.reason) > 20
        assert headers[f"{PREFIX}exception"].startswith((b"streams.", b"msam.")), headers[f"{PREFIX}exception"]
        assert b"Traceback" in headers[f"{PREFIX}stacktrace"]
    assert worker.get("/health/live")[0] == 200


@pytest.mark.parametrize(
    ("topic", "cases"),
    [
        (PLAYS, PLAY_CASES),
        (TRACK_METADATA, METADATA_CASES),
        (USER_PROFILES, PROFILE_CASES),
        (AUDIO_UPLOADS, AUDIO_CASES),
    ],
    ids=[PLAYS, TRACK_METADATA, USER_PROFILES, AUDIO_UPLOADS],
)
def test_poison(system: System, worker: Worker, topic: str, cases: Sequence[Case]) -> None:
    assert len({name for name, *_ in cases}) == len(cases)
    dead = worker.metric("msam_dead_letters_total")
    check_letters(system, worker, topic, cases)
    assert worker.metric("msam_dead_letters_total") == dead + len(cases), "dead letters are counted"
    assert worker.list_of(USER)[0] == 404, "nothing of it came into a window"
    system.wait_committed()


@pytest.mark.parametrize("topic", [TRACK_METADATA, USER_PROFILES])
def test_compacted_topics_refuse_a_null_key(system: System, topic: str) -> None:
    producer = Producer({**system.config, "log_level": 0})
    refusals: list[KafkaError | None] = []
    producer.produce(topic, GOOD, None, on_delivery=lambda error, message: refusals.append(error))
    assert producer.flush(30) == 0
    assert [error and error.code() for error in refusals] == [KafkaError.INVALID_RECORD]
