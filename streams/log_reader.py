"""Reads a topic from given offsets to where it ends now, under read_committed, outside of any group."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.errors import MsamError, NotReady

Answer = TypeVar("Answer")

_PASSING = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
}


class NotAllowed(MsamError):
    """An ACL keeps this user from a topic."""


def refuse(topic: str, error: KafkaError | None) -> None:
    """NotAllowed where the broker says that this user may not see the topic."""
    if error is not None and error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        raise NotAllowed(f"this Kafka user may not read {topic!r}: it needs an ACL for READ (see docs/operations.md)")


def partitions_of(consumer: Consumer, topic: str) -> list[int]:
    """The partitions of a topic; NotReady when it does not exist."""
    found = consumer.list_topics(topic, timeout=30).topics[topic]
    refuse(topic, found.error)
    if found.error is not None or not found.partitions:
        raise NotReady(f"there is no topic {topic!r}; `msam topics create` makes it")
    return sorted(found.partitions)


def partitions_of_topic(config: Mapping[str, str], topic: str) -> list[int]:
    """As `partitions_of`, with a client of its own."""
    consumer = Consumer({**config, "group.id": "msam-reader", "enable.auto.commit": False})
    try:
        return partitions_of(consumer, topic)
    finally:
        consumer.close()


def patiently(ask: Callable[[], Answer], patience: float = 30.0) -> Answer:
    """What the broker answers; asks again for `patience` seconds while it has just started or a topic was just made.

    Raises what the last try raised (KafkaException).
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return ask()
        except KafkaException as error:
            if not error.args[0].retriable() and error.args[0].code() not in _PASSING:
                raise
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def watermarks(consumer: Consumer, topic: str, partition: int, patience: float = 30.0) -> tuple[int, int]:
    """First and next offset of a partition."""
    place = TopicPartition(topic, partition)
    return patiently(lambda: consumer.get_watermark_offsets(place, timeout=10), patience)


def read_to_end(
    config: Mapping[str, str],
    topic: str,
    start: Mapping[int, int] | None = None,
    stop: Mapping[int, int] | None = None,
    only: Collection[int] | None = None,
) -> Iterator[Message]:
    """Records from the offsets `start` (default: the beginning) up to, not including, `stop` (default: the end now).

    Offsets of partitions that `start` or `stop` do not name take the default. Order is kept within a partition.
    `only` names the partitions to read; default: all.
    """
    consumer = Consumer(
        {
            **config,
            "group.id": "msam-reader",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 20,
        }
    )
    try:
        ends: dict[int, int] = {}
        places = []
        for partition in partitions_of(consumer, topic) if only is None else only:
            low, high = watermarks(consumer, topic, partition)
            first = max((start or {}).get(partition, low), low)
            last = min((stop or {}).get(partition, high), high)
            if first < last:
                ends[partition] = last
                places.append(TopicPartition(topic, partition, first))
        consumer.assign(places)
        while ends:
            for message in consumer.consume(1000, timeout=0.1):
                at, offset, error = message.partition(), message.offset(), message.error()
                assert at is not None
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    ends.pop(at, None)
                    continue
                assert offset is not None
                if at in ends and offset < ends[at]:
                    yield message
                if offset + 1 >= ends.get(at, offset + 2):
                    ends.pop(at, None)
    finally:
        consumer.close()


def settled(config: Mapping[str, str], topic: str, timeout: float = 90.0) -> None:
    """Wait until every transaction that is open on a topic now has ended; the broker ends those that hang (60 s)."""
    ends = end_offsets({**config, "isolation.level": "read_uncommitted"}, topic)
    deadline = time.monotonic() + timeout
    while any(end_offsets(config, topic)[partition] < end for partition, end in ends.items()):
        if time.monotonic() > deadline:
            raise NotReady(f"{topic}: a transaction has been open for {timeout:.0f} s; is the broker well?")
        time.sleep(0.2)


def bounds(config: Mapping[str, str], topic: str) -> dict[int, tuple[int, int]]:
    """The first and the next offset of every partition, commit markers counted."""
    consumer = Consumer({**config, "group.id": "msam-reader", "enable.auto.commit": False})
    try:
        return {p: watermarks(consumer, topic, p) for p in partitions_of(consumer, topic)}
    finally:
        consumer.close()


def end_offsets(config: Mapping[str, str], topic: str) -> dict[int, int]:
    """The next offset of every partition, commit markers counted."""
    return {partition: high for partition, (_, high) in bounds(config, topic).items()}


def record_at(config: Mapping[str, str], topic: str, partition: int, offset: int) -> Message | None:
    """The committed record at one place; None where there is none (any more)."""
    others = dict.fromkeys(partitions_of_topic(config, topic), 0)
    if partition not in others:
        return None
    span = read_to_end(config, topic, {partition: offset}, {**others, partition: offset + 1})
    return next((message for message in span if message.offset() == offset), None)


def key_of(message: Message) -> bytes | None:
    """A record's key as bytes."""
    key = message.key()
    return key.encode() if isinstance(key, str) else key
