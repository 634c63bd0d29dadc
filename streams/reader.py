"""Reads a topic from outside any group, committed records only, and commits nothing: what `tail` needs."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.errors import MsamError, NotReady
from streams.log_reader import refuse

_STEP_S = 0.2  # longest wait in one call of librdkafka, so that Ctrl-C and idleness are seen soon
_TIMEOUT_S = 10.0
_PASSING = {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART}


class ReadError(MsamError):
    """The broker ended a read."""


def read(
    config: Mapping[str, str],
    topic: str,
    *,
    start: Literal["earliest", "latest"] | float = "latest",
    partition_of: Callable[[int], int] | None = None,
    wanted: Callable[[Message], bool] = lambda message: True,
    idle_exit: float | None = None,
    limit: int | None = None,
) -> Iterator[Message]:
    """Committed records of a topic that are `wanted`, in order per partition. `start` may be a time in Unix seconds.

    Ends after `limit` records, or after `idle_exit` seconds without a wanted one (counted from when the records that
    were there at the start have been read); otherwise never. `partition_of(number of partitions)` names the only
    partition to read. NotReady where broker or topic are missing.
    """
    consumer = Consumer(
        {
            **config,
            "group.id": f"msam-reader-{uuid.uuid4()}",  # librdkafka wants one; it is never joined
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 100,
            "log_level": 0,
        }
    )
    try:
        ends = _assign(consumer, topic, start, partition_of)
        yield from _poll(consumer, ends, wanted, idle_exit, limit)
    finally:
        consumer.close()


def _assign(
    consumer: Consumer, topic: str, start: str | float, partition_of: Callable[[int], int] | None
) -> dict[int, int]:
    """Assign the partitions; where each ended at this moment."""
    try:
        found = consumer.list_topics(topic, timeout=_TIMEOUT_S).topics[topic]
        refuse(topic, found.error)
        if found.error is not None or not found.partitions:
            raise NotReady(f"no topic {topic!r}: create it with `msam topics create`")
        partitions = sorted(found.partitions)
        if partition_of is not None:
            partitions = [partition_of(len(partitions))]
        ends = {partition: _end(consumer, TopicPartition(topic, partition)) for partition in partitions}
        # The end is asked for here, not left to librdkafka, so that nothing written from now on is missed.
        first = dict.fromkeys(ends, OFFSET_BEGINNING) if start == "earliest" else ends
        if isinstance(start, float):
            asked = [TopicPartition(topic, p, round(start * 1000)) for p in ends]
            found_at = consumer.offsets_for_times(asked, timeout=_TIMEOUT_S)
            first = {place.partition: place.offset for place in found_at if place.offset >= 0}
        consumer.assign([TopicPartition(topic, p, first.get(p, ends[p])) for p in ends])
    except KafkaException as error:
        raise NotReady(
            f"cannot reach Kafka: {error.args[0].str()}; is the broker running, is --bootstrap right?"
        ) from None
    return ends


def _end(consumer: Consumer, place: TopicPartition) -> int:
    """Where a partition ends. Its leader may not know itself yet just after the topic was made: asked again then."""
    until = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            return int(consumer.get_watermark_offsets(place, timeout=_TIMEOUT_S)[1])
        except KafkaException as error:
            if error.args[0].code() not in _PASSING or time.monotonic() > until:
                raise
            time.sleep(_STEP_S)


def _poll(
    consumer: Consumer,
    ends: dict[int, int],
    wanted: Callable[[Message], bool],
    idle_exit: float | None,
    limit: int | None,
) -> Iterator[Message]:
    found, last = 0, time.monotonic()
    while limit is None or found < limit:
        message = consumer.poll(_STEP_S)
        if message is None:
            if idle_exit is not None and time.monotonic() - last >= idle_exit:
                return
            continue
        failure = message.error()
        if failure is not None:
            raise ReadError(f"reading {message.topic()}[{message.partition()}] failed: {failure.str()}")
        take = wanted(message)
        offset, partition = message.offset(), message.partition()
        if take or (offset is not None and partition is not None and offset < ends[partition]):
            last = time.monotonic()
        elif idle_exit is not None and time.monotonic() - last >= idle_exit:
            return
        if take:
            found += 1
            yield message
