"""A record to be published, and how it is handed to librdkafka."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, Message, Producer

#: Codes of librdkafka that say: a newer producer has this one's transactional id.
FENCED = {
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
}
#: What every producer of the worker and of the jobs has in common.
PRODUCER = {
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    "message.max.bytes": 16 * 2**20,  # a dead letter is as large as the largest source record, and more
}

Report = Callable[[KafkaError | None, Message], None]


@dataclass(frozen=True, slots=True)
class Out:
    """A record to be published; `partition` None lets murmur2 of the key decide, `timestamp` is in milliseconds."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()
    timestamp: int | None = None


def hand_over(producer: Producer, out: Out, report: Report) -> None:
    """Queue a record in the producer; waits while its queue is full. KafkaException where it is refused at once."""
    extra: dict[str, int] = {}
    if out.partition is not None:
        extra["partition"] = out.partition
    if out.timestamp is not None:
        extra["timestamp"] = out.timestamp
    while True:
        try:
            producer.produce(
                out.topic,
                value=out.value,
                key=out.key,
                headers=list(out.headers),
                on_delivery=report,
                **extra,  # type: ignore[arg-type]  # absent and None differ to librdkafka
            )
            return
        except BufferError:
            producer.poll(0.1)
