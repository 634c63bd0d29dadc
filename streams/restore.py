"""Brings a worker's RocksDB up to its changelog before the first event of a partition is handled.

Faust's own recovery waits for the record at the high watermark. Behind a transactional producer that place holds a
commit marker, which no consumer ever returns, so recovery would wait for ever. Here the end of a partition is the
broker's end-of-partition signal under read_committed, and Faust then finds nothing left to recover.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streams.log_reader import watermarks

Put = Callable[[int, list[tuple[bytes, bytes | None]], int], None]
Progress = Callable[[int], None]


class Target(Protocol):
    """What a restore writes to: one store for every partition of a table."""

    def position(self, partition: int) -> int:
        """The changelog offset that the store holds, -1 for none."""

    def write(self, partition: int, records: list[tuple[bytes, bytes | None]], position: int) -> None:
        """Put (or, for None, delete) the records and remember the position, in one atomic write."""


def restore(
    config: Mapping[str, str],
    topic: str,
    partitions: list[int],
    target: Target,
    *,
    batch: int = 2000,
    stop: Callable[[], bool] = lambda: False,
    progress: Progress = lambda n: None,
) -> int:
    """Apply `topic` to `target` from its position to the end of the log; returns the number of records applied.

    The store's position ends one below the log's end offset, commit markers counted.
    """
    consumer = Consumer(
        {
            **config,
            "group.id": "msam-restore",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 20,
        }
    )
    # The end to reach is that of the whole log: a reader of committed records is told where an open transaction begins.
    edges = Consumer({**config, "group.id": "msam-restore", "isolation.level": "read_uncommitted"})
    try:
        starts = {}
        for partition in partitions:
            low, high = watermarks(edges, topic, partition)
            at = target.position(partition) + 1
            starts[partition] = at if low <= at <= high else low
        consumer.assign([TopicPartition(topic, p, at) for p, at in starts.items()])
        return _drain(consumer, edges, topic, set(partitions), target, batch, stop, progress)
    finally:
        consumer.close()
        edges.close()


def _drain(
    consumer: Consumer,
    edges: Consumer,
    topic: str,
    open_partitions: set[int],
    target: Target,
    batch: int,
    stop: Callable[[], bool],
    progress: Progress,
) -> int:
    applied = 0
    while open_partitions and not stop():
        found: dict[int, list[tuple[bytes, bytes | None]]] = {}
        ends: dict[int, int] = {}
        halted: set[int] = set()  # read up to where committed records end now
        for message in consumer.consume(batch, timeout=0.1):
            partition, error = message.partition(), message.error()
            assert partition is not None
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                offset = message.offset()
                assert offset is not None
                ends[partition] = offset - 1
                halted.add(partition)
                continue
            key = message.key()
            if key is not None:
                found.setdefault(partition, []).append((_bytes(key), message.value()))
            offset = message.offset()
            assert offset is not None
            ends[partition] = max(ends.get(partition, -1), offset)
        for partition, position in ends.items():
            records = found.get(partition, [])
            target.write(partition, records, position)
            applied += len(records)
        progress(applied)
        open_partitions -= _finished(edges, topic, ends, halted)
    return applied


def _finished(edges: Consumer, topic: str, ends: Mapping[int, int], partitions: set[int]) -> set[int]:
    """The partitions whose store stands at the end of the log."""
    done = set()
    for partition in partitions:
        _, high = watermarks(edges, topic, partition)
        if ends[partition] >= high - 1:
            done.add(partition)
    return done


def _bytes(key: bytes | str) -> bytes:
    return key.encode() if isinstance(key, str) else key
