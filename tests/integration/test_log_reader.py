"""Readers of whole topics and followers of small ones, on a real broker."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest
from confluent_kafka import Producer

from streams.errors import NotReady
from streams.feeds import TopicFeed
from streams.local_kafka import LocalKafka
from streams.log_reader import end_offsets, read_to_end
from streams.model_log import read_versions
from streams.outgoing import Out
from streams.publishing import NotTaken, Publisher
from streams.records import ModelVersion
from streams.serialization import encode
from streams.topics import TopicSpec, create_topics

Config = dict[str, str]


@pytest.fixture
def config(kafka: LocalKafka) -> Config:
    return {"bootstrap.servers": kafka.bootstrap, "log_level": "0"}


@pytest.fixture
def topic(config: Config, unique: str) -> str:
    create_topics(config, [TopicSpec(unique, "k", 2, "delete")])
    return unique


def fill(config: Config, topic: str, counts: tuple[int, ...]) -> None:
    outs = [Out(topic, b"k", b"%d" % n, partition) for partition, count in enumerate(counts) for n in range(count)]
    Publisher(config).send(outs)


def values(config: Config, topic: str, **more: dict[int, int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for message in read_to_end(config, topic, **more):
        found.setdefault(message.partition() or 0, []).append(int(message.value() or b""))
    return found


def test_everything_in_order_from_start_to_stop(config: Config, topic: str) -> None:
    assert values(config, topic) == {} and end_offsets(config, topic) == {0: 0, 1: 0}
    fill(config, topic, (30, 5))
    assert end_offsets(config, topic) == {0: 30, 1: 5}
    assert values(config, topic) == {0: list(range(30)), 1: list(range(5))}
    assert values(config, topic, start={0: 28}) == {0: [28, 29], 1: list(range(5))}
    assert values(config, topic, stop={0: 3, 1: 0}) == {0: [0, 1, 2]}
    assert values(config, topic, start={0: 2, 1: 5}, stop={0: 4, 1: 900}) == {0: [2, 3]}
    assert values(config, topic, start={0: 900, 1: 900}) == {}


def test_markers_and_aborted_records_are_passed_over(config: Config, topic: str) -> None:
    producer = Producer({**config, "transactional.id": topic})
    producer.init_transactions(20)
    for number, commit in enumerate((True, False, True, False)):
        producer.begin_transaction()
        producer.produce(topic, b"%d" % number, b"k", partition=0)
        producer.flush(20)
        if commit:
            producer.commit_transaction(20)
        else:
            producer.abort_transaction(20)
    deadline = time.monotonic() + 10
    while end_offsets(config, topic)[0] < 8 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert end_offsets(config, topic) == {0: 8, 1: 0}
    assert values(config, topic) == {0: [0, 2]}
    assert values(config, topic, stop={0: 4}) == {0: [0]}, "an end inside an aborted transaction"
    assert values(config, topic, start={0: 1}, stop={0: 2}) == {}, "nothing but a marker"


def test_a_reader_may_leave_early(config: Config, topic: str) -> None:
    fill(config, topic, (20, 0))
    reader = read_to_end(config, topic)
    assert next(reader).value() == b"0"
    reader.close()  # type: ignore[attr-defined]


def test_a_missing_topic_is_named(config: Config, unique: str) -> None:
    with pytest.raises(NotReady, match=unique):
        list(read_to_end(config, unique))
    with pytest.raises(NotReady, match="msam topics create"):
        end_offsets(config, unique)


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def test_a_feed_reads_all_and_follows(config: Config, topic: str) -> None:
    seen: list[tuple[bytes, bytes | None, int]] = []

    def take(key: bytes, value: bytes | None, offset: int) -> None:
        if value == b"bad":
            raise ValueError("cannot be read")
        seen.append((key, value, offset))

    send = Publisher(config).send
    send([Out(topic, b"a", b"1", 0), Out(topic, b"a", b"bad", 0), Out(topic, None, b"no key", 0)])
    send([Out(topic, b"a", None, 0), Out(topic, b"b", b"elsewhere", 1)])
    feed = TopicFeed(config, topic, take)
    assert not feed.caught_up.is_set()
    feed.start()
    try:
        wait(feed.caught_up.is_set)
        assert seen == [(b"a", b"1", 0), (b"a", None, 3)], "one bad record does not end it"
        send([Out(topic, b"c", b"2", 0)])
        wait(lambda: len(seen) == 3)
        assert seen[-1] == (b"c", b"2", 4) and feed.failure is None
    finally:
        feed.stop()
    send([Out(topic, b"d", b"3", 0)])
    assert len(seen) == 3


def test_a_feed_that_never_started_can_be_stopped(config: Config, topic: str) -> None:
    TopicFeed(config, topic, lambda key, value, offset: None).stop()


def test_the_publisher_names_what_was_refused(config: Config, topic: str, unique: str) -> None:
    small = f"{unique}-small"
    create_topics(config, [TopicSpec(small, "k", 1, "delete", {"max.message.bytes": "1000"})])
    with pytest.raises(NotTaken, match="refused"):
        Publisher(config).send([Out(small, b"k", os.urandom(5000), 0)])
    with pytest.raises(NotTaken, match=topic):
        Publisher(config).send([Out(topic, b"k", bytes(17 * 2**20), 0)])
    Publisher(config).send([Out(small, b"k", b"fits", 0)])
    assert [m.value() for m in read_to_end(config, small)] == [b"fits"]


def test_model_versions_in_the_order_of_their_announcement(
    config: Config, monkeypatch: pytest.MonkeyPatch, topic: str
) -> None:
    monkeypatch.setattr("streams.topics.MODEL_VERSIONS", topic)
    log = [ModelVersion("v1"), ModelVersion("v1", channel="live", state="channel"), ModelVersion("v2", parent="v1")]
    log += [ModelVersion("v3", state="refused", reason="worse"), ModelVersion("v2", channel="live", state="channel")]
    outs = [Out(topic, record.key.encode(), encode(record), 0) for record in log]
    Publisher(config).send([*outs, Out(topic, b"version/v0", None, 0)])
    versions, channels = read_versions(config)
    assert [version.version for version in versions] == ["v1", "v2", "v3"] and channels == {"live": "v2"}
    assert (versions[2].state, versions[2].reason) == ("refused", "worse")
