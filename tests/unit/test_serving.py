"""From plays to outputs, with a real model and everything that a play can have wrong."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from msam.counts import keys_of
from msam.features.audio import AUDIO_GROUPS
from streams import served, topics
from streams.catalogue import Catalogue
from streams.counted import Plays
from streams.lanes import Lane
from streams.metrics import Metrics
from streams.operations import Forgotten, forgotten
from streams.outgoing import Out
from streams.partitioner import partition_for
from streams.pipeline import Result, SourceEvent
from streams.profiles import NOBODY, Profile
from streams.recommender import Query
from streams.records import ModelVersion, Play, Recommendation, Source, TrackFeature
from streams.sealing import Keyring, seal
from streams.serialization import decode, encode, encode_json
from streams.served import ModelRefused, ModelWatch, Rests, artifact_path, load_model
from streams.serving import PlayStep
from streams.stores import TableStore
from streams.windows import Window, decode_window, encode_window
from tests.unit.serving_data import CONFIG, TRACKS, catalogue, made, metadata

PARTITIONS, K, SLACK, N = 4, 5, 3, 7


@dataclass
class Message:
    """A consumed record."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: float = 1.7e9
    headers: Any = None


@dataclass
class Event:
    """A consumed record and its acknowledgement."""

    message: Message
    acked: int = 0

    def ack(self) -> bool:
        self.acked += 1
        return True


@dataclass
class At:
    """How far a partition has been handled."""

    partition: int
    mark: int = -1


@dataclass
class Made:
    """A result whose bytes are made."""

    outs: list[Out]
    state: dict[bytes, bytes]

    @classmethod
    def of(cls, result: Result) -> Made:
        return cls([out() for out in result.outs], {key: value() for key, value in result.state.items()})


@dataclass
class Rows:
    """A table in memory."""

    rows: dict[tuple[int, bytes], bytes] = field(default_factory=dict)

    def get(self, partition: int, key: bytes) -> bytes | None:
        return self.rows.get((partition, key))

    def commit(self, results: dict[int, Made]) -> None:
        for partition, result in results.items():
            self.rows.update({(partition, key): value for key, value in result.state.items()})


class Service:
    """A step over a real model, with its log of plays."""

    def __init__(self, known: Catalogue) -> None:
        self.known = known
        self.rows = Rows()
        self.metrics = Metrics()
        self.profiles: dict[str, Profile] = {}
        self.forgotten = Forgotten()
        self.keys = Keyring(bytes(32))
        self.watch = ModelWatch(known)
        self.step = self.new_step()
        self.ends = dict.fromkeys(range(PARTITIONS), 0)

    def new_step(self) -> PlayStep:
        return PlayStep(
            cast(TableStore, self.rows),
            lambda partition, user: self.profiles.get(user, NOBODY),
            self.watch,
            self.metrics,
            partitions=PARTITIONS,
            k=K,
            slack=SLACK,
            n=N,
            history=100,
            keys=self.keys,
            forgotten=self.forgotten,
        )

    def go_live(self, version: ModelVersion) -> None:
        """Announce a model and wait until it is loaded."""
        self.watch.on_record(version.key.encode(), version)
        channel = ModelVersion(version.version, channel="live", state="channel")
        self.watch.on_record(channel.key.encode(), channel)
        deadline = time.monotonic() + 60
        while not self.watch.available:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def event(self, user: str, track: str, at: float = 0.0, **changes: Any) -> Event:
        """The next play of a user, in the user's partition."""
        partition = partition_for(user.encode(), PARTITIONS)
        played = Play(user, track, at or 1000.0 + sum(self.ends.values()))
        return self.raw(partition, user.encode(), encode(played), **changes)

    def raw(self, partition: int, key: bytes | None, value: bytes | None, **changes: Any) -> Event:
        offset = self.ends[partition]
        self.ends[partition] += 1
        return Event(Message(partition, offset, key, value, **changes))

    def answer(self, batch: Sequence[Event], marks: dict[int, int] | None = None) -> dict[int, Made]:
        partitions = sorted({event.message.partition for event in batch})
        lanes = {p: cast(Lane, At(p, (marks or {}).get(p, -1))) for p in partitions}
        if self.step.news():
            self.step.idle()
        results = self.step.ask(lanes, cast(Sequence[SourceEvent], batch))()
        return {partition: Made.of(result) for partition, result in results.items()}


@pytest.fixture
def service() -> Iterable[Service]:
    found = Service(catalogue())
    found.go_live(made().version)
    yield found
    found.watch.stop()


def lists(outs: Iterable[Out]) -> list[Recommendation]:
    return [decode(Recommendation, out.value or b"") for out in outs if out.topic == topics.RECOMMENDATIONS]


def only(results: dict[int, Made]) -> Made:
    (result,) = results.values()
    return result


def test_a_play_becomes_one_list_with_every_version(service: Service) -> None:
    event = service.event("alice", "t3", 1234.5)
    result = only(service.answer([event]))
    (out,) = result.outs
    (made_list,) = lists([out])
    recommender = service.step.recommender
    assert recommender is not None
    partition = event.message.partition
    assert (out.topic, out.key, out.partition) == (topics.RECOMMENDATIONS, b"alice", partition)
    assert made_list.user_id == "alice" and made_list.model_version == made().version.version
    assert made_list.catalogue_version == service.known.version and made_list.profile_version == 0
    assert made_list.source == Source(topics.PLAYS, partition, 0, 1234.5, "t3")
    asked = Query(("t3",), plays=Plays(keys_of(["t3"]), np.array([1234.5])))
    assert made_list.items == recommender.recommend([asked], N)[0] and len(made_list.items) == N
    assert made_list.counts_version == recommender.counts_version > 0
    assert event.acked == 0, "acknowledging is the pipeline's"


def test_the_window_grows_in_a_batch_and_each_play_sees_its_own(service: Service) -> None:
    """Every play of a user is answered from the window right after it, though the whole batch is one model call."""
    tracks = ["t1", "t2", "t1", "t5", "t6", "t7", "t8", "t9"]
    batch = [service.event("alice", track, 100.0 + at) for at, track in enumerate(tracks)]
    result = only(service.answer(batch))
    recommender = service.step.recommender
    assert recommender is not None
    for place, got in enumerate(lists(result.outs)):
        newest = tuple(tracks[max(place + 1 - K, 0) : place + 1])
        own = Plays(keys_of(tracks[: place + 1]), 100.0 + np.arange(place + 1))
        assert got.source.offset == place and got.items == recommender.recommend([Query(newest, plays=own)], N)[0]
        assert got.items != recommender.recommend([Query(newest)], N)[0], "the user's own counts matter"
    assert len(lists(result.outs)) == len(tracks)
    window = decode_window(result.state[b"alice"])
    assert [e.track_id for e in window.entries] == tracks[-K - SLACK :]
    assert window.last_offset(batch[0].message.partition) == len(tracks) - 1


def test_late_plays_are_ordered_by_their_time(service: Service) -> None:
    batch = [service.event("alice", track, at) for track, at in (("t1", 30.0), ("t2", 10.0), ("t3", 20.0))]
    got = lists(only(service.answer(batch)).outs)
    recommender = service.step.recommender
    assert recommender is not None
    windows = [("t1",), ("t2", "t1"), ("t2", "t3", "t1")]
    for count, (answer, window) in enumerate(zip(got, windows, strict=True), 1):
        arrived = Plays(keys_of(["t1", "t2", "t3"][:count]), np.array([30.0, 10.0, 20.0])[:count])
        assert answer.items == recommender.recommend([Query(window, plays=arrived)], N)[0]


def test_outputs_keep_the_order_of_each_partition(service: Service) -> None:
    users = [f"user{number}" for number in range(12)]
    good = [service.event(user, f"t{number}") for number, user in enumerate(users * 2)]
    bad = [service.raw(partition, b"x", b"garbage") for partition in range(PARTITIONS)]
    batch = [event for pair in zip(good[:4], bad, strict=True) for event in pair] + good[4:]
    batch.sort(key=lambda event: event.message.offset)
    results = service.answer(batch)
    assert set(results) == {event.message.partition for event in batch} and len(results) > 1
    for partition, result in results.items():
        mine = [event.message for event in batch if event.message.partition == partition]
        places = []
        for out in result.outs:
            if out.topic == topics.DEAD_LETTERS:
                assert out.partition is None
                places.append(int(dict(out.headers)["__streams.errors.offset"] or b"-1"))
            else:
                assert out.partition == partition
                places.append(decode(Recommendation, out.value or b"").source.offset)
        assert places == [message.offset for message in mine], "every play has its one answer, in order"


def wrong_plays(service: Service) -> list[tuple[str, Event]]:
    right = partition_for(b"alice", PARTITIONS)
    value = encode(Play("alice", "t1", 1.0))
    far = (right + 1) % PARTITIONS
    text = json.loads(encode_json(Play("alice", "t1", 1.0)))
    return [
        ("without a value", service.raw(right, b"alice", None)),
        ("without a value", service.raw(right, b"alice", b"")),
        ("play: ", service.raw(right, b"alice", value[:-3])),
        ("play: ", service.raw(right, b"alice", value + b"x")),
        ("play: ", service.raw(right, b"alice", b"\xc3\x01" + b"\x07" * 8)),
        ("", service.raw(right, b"alice", b"garbage")),
        ("registry", service.raw(right, b"alice", b"\x00\x00\x00\x00\x07abc")),
        ("track_id", service.raw(right, b"alice", json.dumps(text | {"track_id": ""}).encode())),
        ("played_at", service.raw(right, b"alice", json.dumps(text | {"played_at": -5}).encode())),
        ("key must be", service.raw(right, b"bob", value)),
        ("key must be", service.raw(right, None, value)),
        ("murmur2_random", service.raw(far, b"alice", value)),
    ]


def test_every_kind_of_wrong_play_is_a_dead_letter_and_touches_nothing(service: Service) -> None:
    for number, (reason, event) in enumerate(wrong_plays(service)):
        event.message.headers = [("trace", b"1")]
        result = only(service.answer([event]))
        (out,) = result.outs
        headers = dict(out.headers)
        assert out.topic == topics.DEAD_LETTERS and result.state == {}
        assert (out.key, out.value, out.timestamp) == (event.message.key, event.message.value, 1_700_000_000_000)
        assert headers["trace"] == b"1" and headers["__streams.errors.topic"] == b"plays"
        assert headers["__streams.errors.partition"] == b"%d" % event.message.partition
        assert headers["__streams.errors.offset"] == b"%d" % event.message.offset
        message = headers["__streams.errors.message"] or b""
        assert reason in message.decode() and len(message) > 15, message
        assert (headers["__streams.errors.exception"] or b"").startswith(b"streams.")
        assert service.metrics.dead.labels(topics.PLAYS)._value.get() == number + 1
    for partition in range(PARTITIONS):
        assert service.step.window(partition, "alice") == Window()


def test_plays_of_a_forgotten_listener_leave_nothing(service: Service) -> None:
    assert service.forgotten.fold(forgotten("alice").key or b"")
    batch = [service.event(user, track) for user, track in (("alice", "t1"), ("bob", "t1"), ("alice", "odd"))]
    broken = service.raw(batch[0].message.partition, b"alice", b"alice's, but garbage")
    results = service.answer([*batch, broken])
    outs = [out for result in results.values() for out in result.outs]
    assert [got.user_id for got in lists(outs)] == ["bob"] and len(outs) == 1, "no letter and no sighting either"
    assert {key.lstrip(b"\x00\x01") for result in results.values() for key in result.state} == {b"bob"}
    assert "msam_plays_forgotten_total 3.0" in service.metrics.text().decode()


def sealed(service: Service, user: str, track: str, at: float) -> Event:
    """A sealed play in the user's partition; the user has a key by then."""
    found = service.keys.newest(user)
    if found is None:
        service.keys.give(user)
        found = service.keys.newest(user)
        assert found is not None
    value = encode(seal(Play(user, track, at), *found))
    return service.raw(partition_for(user.encode(), PARTITIONS), user.encode(), value)


def test_sealed_plays_are_answered_like_clear_ones(service: Service) -> None:
    tracks = ["t1", "t2", "t3"]
    kinds = [sealed(service, "alice", t, 100.0 + n) if n != 1 else service.event("alice", t, 100.0 + n)
             for n, t in enumerate(tracks)]  # fmt: skip
    got = lists(only(service.answer(kinds)).outs)
    service.step.forget([kinds[0].message.partition])
    clear = [service.event("alice", t, 100.0 + n) for n, t in enumerate(tracks)]
    assert [one.items for one in got] == [one.items for one in lists(only(service.answer(clear)).outs)]
    assert [one.source.track_id for one in got] == tracks


def test_a_sealed_play_that_cannot_be_read_is_one_dead_letter_that_says_why(service: Service) -> None:
    events = [sealed(service, "alice", "hidden-track", 100.0) for _ in range(3)]
    good = events[0].message.value or b""
    events[1].message.value = good[:-1] + bytes([good[-1] ^ 1])
    events[2].message.value = encode(seal(Play("alice", "hidden-track", 1.0), "unknown", bytes(32)))
    far = sealed(service, "bob", "hidden-track", 100.0)
    far.message.key = b"alice"
    for event, said in ((events[1], "changed since"), (events[2], "unknown of its listener"), (far, "key must be")):
        (out,) = only(service.answer([event])).outs
        headers = dict(out.headers)
        assert out.topic == topics.DEAD_LETTERS and out.value == event.message.value
        assert said in (headers["__streams.errors.message"] or b"").decode()
        assert b"hidden-track" not in b"".join(content or b"" for content in headers.values())
    service.step._keys = None  # a worker without a master key
    (out,) = only(service.answer([events[0]])).outs
    assert b"MSAM_MASTER_KEY_FILE" in (dict(out.headers)["__streams.errors.message"] or b"")


def test_a_model_that_fails_tells_nothing_of_a_sealed_play(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [sealed(service, "alice", "t3", 100.0), service.event("bob", "t3", 100.0)]
    service.step.idle()
    assert service.step.recommender is not None

    def fail(queries: Any, n: int = 0) -> Any:
        raise KeyError("t3 is not known")

    monkeypatch.setattr(service.step.recommender, "ask", fail)
    monkeypatch.setattr(service.step.recommender, "prepare", fail)
    told = {}
    for result in service.answer(events).values():
        for out in result.outs:
            told[out.key] = b" ".join(content or b"" for _, content in out.headers)
    assert b"KeyError" in told[b"alice"] and b"t3" not in told[b"alice"] and b"t3 is not known" in told[b"bob"]


def test_json_plays_are_plays(service: Service) -> None:
    partition = partition_for(b"alice", PARTITIONS)
    got = lists(only(service.answer([service.raw(partition, b"alice", encode_json(Play("alice", "t4", 5.0)))])).outs)
    assert [made_list.source.track_id for made_list in got] == ["t4"]


def test_redelivered_plays_are_skipped(service: Service) -> None:
    batch = [service.event("alice", f"t{number}") for number in range(5)]
    partition = batch[0].message.partition
    result = only(service.answer(batch, {partition: 2}))
    assert [got.source.offset for got in lists(result.outs)] == [3, 4]
    assert service.metrics.redelivered._value.get() == 3
    result = only(service.answer(batch, {partition: 4}))
    assert result.outs == [] and result.state == {}


def test_a_play_that_comes_again_before_its_mark_gives_the_same_list(service: Service) -> None:
    """Its transaction failed after the window was stored further on: the list is cut out as of the play."""
    first = [service.event("alice", f"t{number}") for number in range(4)]
    once = service.answer(first)
    service.rows.commit(once)
    service.step.forget([first[0].message.partition])
    again = service.answer(first)
    before, after = lists(only(once).outs), lists(only(again).outs)
    assert [one.items for one in before] == [one.items for one in after] and before == after
    assert only(again).state[b"alice"] == only(once).state[b"alice"]


def test_windows_are_read_from_the_store_and_forgotten(service: Service) -> None:
    partition = partition_for(b"alice", PARTITIONS)
    earlier = service.answer([service.event("alice", f"t{number}") for number in range(3)])
    service.rows.commit(earlier)
    stored = decode_window(service.rows.rows[partition, b"alice"])
    assert service.step.window(partition, "alice") == stored
    other = Window(stored.entries[:1], stored.last_offsets)
    service.rows.rows[partition, b"alice"] = encode_window(other)
    assert service.step.window(partition, "alice") == stored, "the cached one"
    service.step.forget([(partition + 1) % PARTITIONS])
    assert service.step.window(partition, "alice") == stored
    service.step.forget([partition])
    assert service.step.window(partition, "alice") == other


def test_a_failing_model_makes_a_dead_letter_of_just_that_play(service: Service) -> None:
    """A profile whose vectors have the wrong width makes the real model raise for its user's plays."""
    wrong = np.zeros((2, CONFIG.text_dim + 1), dtype=np.float16)
    service.profiles["mallory"] = Profile(3, ("x", "y"), wrong)
    users = ["alice", "mallory", "bob", "carol"]
    batch = [service.event(user, "t2") for user in users]
    results = service.answer(batch)
    outs = [out for result in results.values() for out in result.outs]
    assert sorted(got.user_id for got in lists(outs)) == ["alice", "bob", "carol"]
    (letter,) = [out for out in outs if out.topic == topics.DEAD_LETTERS]
    headers = dict(letter.headers)
    assert letter.key == b"mallory" and headers["__streams.errors.exception"] == b"streams.serving.ModelFailed"
    assert b"InputError" in (headers["__streams.errors.message"] or b"")
    alone = Service(catalogue())
    alone.go_live(made().version)
    event = alone.event("alice", "t2", decode(Play, batch[0].message.value or b"").played_at)
    assert (
        lists(only(alone.answer([event])).outs)[0].items == next(g for g in lists(outs) if g.user_id == "alice").items
    )
    alone.watch.stop()


def test_a_profile_and_its_version_go_into_the_list(service: Service) -> None:
    vectors = np.random.default_rng(5).standard_normal((2, CONFIG.text_dim)).astype(np.float16)
    service.profiles["alice"] = Profile(42, ("female", "24"), vectors)
    (got,) = lists(only(service.answer([service.event("alice", "t2", 7.0)])).outs)
    recommender = service.step.recommender
    assert recommender is not None and got.profile_version == 42
    own = Plays(keys_of(["t2"]), np.array([7.0]))
    assert got.items == recommender.recommend([Query(("t2",), ("female", "24"), vectors, own)], N)[0]


def test_an_undescribed_track_is_sighted_once_and_then_listed(service: Service) -> None:
    partition = partition_for(b"alice", PARTITIONS)
    result = only(service.answer([service.event("alice", "t1"), service.event("alice", "odd")]))
    seen = [out for out in result.outs if out.topic == topics.TRACK_FEATURES]
    assert [(out.key, out.partition) for out in seen] == [(b"sighting/odd", 0)]
    feature = decode(TrackFeature, seen[0].value or b"")
    assert (feature.part, feature.track_id, feature.users) == ("sighting", "odd", ("alice",))
    again = only(service.answer([service.event("alice", "odd")], {partition: 1}))
    assert [out.topic for out in again.outs] == [topics.RECOMMENDATIONS]
    service.known.fold(feature.key, feature, service.known.version)
    (got,) = lists(only(service.answer([service.event("alice", "odd")], {partition: 2})).outs)
    assert got.catalogue_version == service.known.version
    recommender = service.step.recommender
    assert recommender is not None and "odd" in recommender.index
    assert any(item.track_id == "odd" for item in recommender.recommend([Query(("odd",))], TRACKS + 1)[0])


def test_a_sighting_whose_batch_failed_is_sent_again(service: Service) -> None:
    batch = [service.event("alice", "odd")]
    first = only(service.answer(batch))
    service.step.forget([batch[0].message.partition])
    second = only(service.answer(batch))
    keys = [[out.key for out in result.outs if out.topic == topics.TRACK_FEATURES] for result in (first, second)]
    assert keys == [[b"sighting/odd"], [b"sighting/odd"]]


def test_a_new_model_is_taken_over_between_batches(service: Service) -> None:
    service.answer([service.event("alice", "t1")])
    newer = made(2, 1).version
    service.watch.on_record(newer.key.encode(), newer)
    assert service.watch.take() is None and service.watch.serving == made().version.version
    service.watch.on_record(b"channel/live", ModelVersion(newer.version, channel="live", state="channel"))
    deadline = time.monotonic() + 60
    while service.step.recommender is None or service.step.recommender.version != newer.version:
        assert time.monotonic() < deadline
        service.step.idle()
        time.sleep(0.01)
    (got,) = lists(only(service.answer([service.event("alice", "t2")], {partition_for(b"alice", 4): 0})).outs)
    assert got.model_version == newer.version
    text = service.metrics.text().decode()
    assert f'msam_model_info{{version="{newer.version}"}} 1.0' in text
    assert f'msam_model_info{{version="{made().version.version}"}} 0.0' in text


def test_loading_rests_while_another_model_serves(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[Rests] = []

    class Counted(Rests):
        def __init__(self) -> None:
            super().__init__()
            rests.append(self)

    monkeypatch.setattr(served, "Rests", Counted)
    first = Service(catalogue())
    first.go_live(made().version)
    first.watch.stop()
    assert not rests, "nothing is served yet that could be held up"
    service.go_live(made(2, 1).version)
    deadline = time.monotonic() + 60
    while not rests:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_rests_are_three_times_the_work_and_change_no_list(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    spent: list[float] = [0.0]
    rested: list[float] = []
    clock = SimpleNamespace(thread_time=lambda: spent[0], sleep=rested.append, monotonic=time.monotonic)
    monkeypatch.setattr(served, "time", clock)
    rests = Rests()

    def pause() -> None:
        spent[0] += 0.1
        rests()

    asked = [Query(("t1", "t2")), Query(())]
    lists = load_model(made().version, service.known, 0, pause=pause).recommend(asked, N)
    assert len(rested) > 5 and rested == pytest.approx([0.3] * len(rested))
    assert load_model(made().version, service.known, 0).recommend(asked, N) == lists


def test_without_a_model_nothing_is_ready() -> None:
    service = Service(catalogue())
    assert not service.step.ready()
    service.step.idle()
    assert service.step.recommender is None
    service.watch.stop()


def test_bad_models_are_refused_with_a_reason(service: Service) -> None:
    refused: queue.Queue[ModelRefused] = queue.Queue()
    watch = ModelWatch(service.known, refused=refused.put)
    good = made().version
    broken = ModelVersion("v2", uri=good.uri, sha256="0" * 64, state="refused")
    lost = ModelVersion("v3", uri="file:///nowhere/v3", sha256="0" * 64, state="refused")
    cloud = ModelVersion("v4", uri="s3://models/v4", sha256="0" * 64, state="refused")
    wrong = {"v2": "announced was", "v3": "cannot read", "v4": "file://", "v5": "never announced"}
    for version in (broken, lost, cloud):
        watch.on_record(version.key.encode(), version)
    for name, words in wrong.items():
        watch.on_record(b"channel/live", ModelVersion(name, channel="live", state="channel"))
        assert words in str(refused.get(timeout=30))
    watch.on_record(good.key.encode(), good)
    watch.on_record(b"channel/canary", ModelVersion(good.version, channel="canary", state="channel"))
    watch.on_record(b"version/v2", None)
    watch.stop()
    assert set(watch.versions) == {"v3", "v4", good.version} and watch.wanted == "v5"
    assert watch.take() is None and not watch.available and watch.simf is None and refused.empty()


def test_a_worker_without_a_model_falls_back_to_one_before(service: Service) -> None:
    """After a restart there is no old model in memory: the version before the refused one is loaded."""
    refused: queue.Queue[ModelRefused] = queue.Queue()
    watch = ModelWatch(service.known, refused=refused.put)
    good, older = made().version, made(2, 1).version
    bad = ModelVersion("bad", uri=good.uri, sha256="0" * 64)
    for version in (good, older, bad):
        watch.on_record(version.key.encode(), version)
    channel = ModelVersion("bad", channel="live", parent=good.version, state="channel")
    watch.on_record(channel.key.encode(), channel)
    assert "bad" in str(refused.get(timeout=30))
    deadline = time.monotonic() + 60
    while not watch.available:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    found = watch.take()
    assert found is not None and found.version == good.version, "the channel's, not the newest"
    assert watch.wanted == "bad" and watch.problem is not None and "announced was" in watch.problem
    watch.stop()
    assert refused.empty()


def test_a_model_of_another_system_is_refused() -> None:
    other = Catalogue()
    for offset in range(catalogue().version):
        other.fold(f"sighting/x{offset}", TrackFeature(f"x{offset}", "sighting", users=("u",)), offset)
    with pytest.raises(ModelRefused, match="none of its tracks"):
        load_model(made().version, other, wait=0)


def test_a_model_waits_for_its_catalogue() -> None:
    version = made().version
    with pytest.raises(ModelRefused, match="needs catalogue"):
        load_model(version, Catalogue(), wait=0.1)
    with pytest.raises(ModelRefused, match="names no artifact"):
        load_model(ModelVersion("v9"), catalogue())
    known = catalogue()
    known.fold("metadata/extra", metadata("extra", None), known.version)
    loaded = load_model(version, known, wait=0)
    assert loaded.catalogue_version == known.version and "extra" in loaded.index
    assert loaded.simf.version == made().simf.version


@pytest.mark.parametrize("uri", ["file:///models/a%20b", "/models/a b"])
def test_artifacts_are_directories(uri: str) -> None:
    assert str(artifact_path(uri)) == "/models/a b"


def test_groups_of_the_small_model_are_the_real_ones() -> None:
    assert len(AUDIO_GROUPS) == CONFIG.audio_groups
