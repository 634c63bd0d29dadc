"""Readers and writers of topics for tests: what was sent got a place, what answers it is looked up by that place."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from streams.records import Recommendation
from streams.serialization import decode
from streams.topics import DEAD_LETTERS, PLAYS, RECOMMENDATIONS

Config = dict[str, str]
Place = tuple[str, int, int]  # topic, partition, offset
PREFIX = "__streams.errors."


def header_pairs(message: Message) -> list[tuple[str, bytes]]:
    """Headers in their order; a name may occur more than once."""
    pairs: Any = message.headers() or []
    return [(name, bytes(value or b"")) for name, value in pairs]


def headers_of(message: Message) -> dict[str, bytes]:
    """Headers as a mapping."""
    return dict(header_pairs(message))


def key_of(message: Message) -> bytes | None:
    """The key as bytes."""
    key = message.key()
    return key.encode() if isinstance(key, str) else key


def ends(config: Config, topic: str) -> dict[int, int]:
    """The next offset of every partition."""
    consumer = Consumer({**config, "group.id": "taps"})
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        return {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=30)[1] for p in partitions}
    finally:
        consumer.close()


class Tap:
    """Everything committed to some topics from now on, or from the beginning."""

    def __init__(self, config: Config, *topics: str, beginning: bool = False) -> None:
        self._consumer = Consumer(
            {
                **config,
                "group.id": "taps",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 20,
            }
        )
        places = []
        for topic in topics:
            for partition in self._consumer.list_topics(topic, timeout=30).topics[topic].partitions:
                place = TopicPartition(topic, partition, 0)
                if not beginning:
                    place.offset = self._consumer.get_watermark_offsets(place, timeout=30)[1]
                places.append(place)
        self._consumer.assign(places)
        self.messages: list[Message] = []

    def __enter__(self) -> "Tap":
        return self

    def __exit__(self, *error: object) -> None:
        self._consumer.close()

    def take(self, timeout: float = 0.05) -> list[Message]:
        """What came since the last call."""
        found = []
        for message in self._consumer.consume(1000, timeout=timeout):
            error = message.error()
            assert error is None or error.code() == KafkaError._PARTITION_EOF, error
            if error is None:
                found.append(message)
        self.messages += found
        return found

    def until(self, done: Callable[[], bool], what: Callable[[], str], timeout: float = 60.0) -> None:
        """Read until `done`; fails, saying `what` is missing, after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < deadline, f"after {timeout:g} s: {what()}"
            self.take()


@dataclass(frozen=True)
class Answer:
    """One list or dead letter."""

    message: Message
    record: Recommendation | None  # None: a dead letter

    @property
    def reason(self) -> str:
        """Why it is a dead letter."""
        return headers_of(self.message)[f"{PREFIX}message"].decode()


class Answers(Tap):
    """Lists and dead letters from now on, by the place of what they answer."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, RECOMMENDATIONS, DEAD_LETTERS)
        self.by_place: defaultdict[Place, list[Answer]] = defaultdict(list)

    def __enter__(self) -> "Answers":
        return self

    def take(self, timeout: float = 0.05) -> list[Message]:
        """Read and file."""
        found = super().take(timeout)
        for message in found:
            if message.topic() == DEAD_LETTERS:
                headers = headers_of(message)
                at = [headers[f"{PREFIX}{name}"].decode() for name in ("topic", "partition", "offset")]
                self.by_place[at[0], int(at[1]), int(at[2])].append(Answer(message, None))
            elif message.value() is not None:  # a tombstone answers nothing: a listener was forgotten
                record = decode(Recommendation, message.value() or b"")
                place = (PLAYS, record.source.partition, record.source.offset)
                self.by_place[place].append(Answer(message, record))
        return found

    def count(self, places: Iterable[Place]) -> int:
        """How many of these places are answered."""
        return sum(place in self.by_place for place in places)

    def wait(self, places: Iterable[Place], timeout: float = 60.0) -> list[Answer]:
        """Exactly one answer for each place, in the order of the places."""
        wanted = list(places)
        self.until(
            lambda: all(place in self.by_place for place in wanted),
            lambda: (
                f"no answer for {[p for p in wanted if p not in self.by_place][:5]}, "
                f"{self.count(wanted)} of {len(wanted)} came"
            ),
            timeout,
        )
        doubled = {place: len(self.by_place[place]) for place in wanted if len(self.by_place[place]) != 1}
        assert not doubled, f"answered more than once: {doubled}"
        return [self.by_place[place][0] for place in wanted]


class Sender:
    """Produces and remembers where each record landed, in order of sending."""

    def __init__(self, config: Config) -> None:
        self._producer = Producer(
            {**config, "partitioner": "murmur2_random", "enable.idempotence": True, "linger.ms": 2, "log_level": 0}
        )
        self._places: dict[int, Place] = {}
        self._refused: list[KafkaError] = []
        self._count = 0

    def send(self, topic: str, key: bytes | None, value: bytes | None, **options: Any) -> None:
        """Queue one record; `partition`, `headers` as librdkafka takes them."""
        number, self._count = self._count, self._count + 1

        def landed(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._refused.append(error)
            self._places[number] = (topic, message.partition() or 0, message.offset() or 0)

        self._producer.produce(topic, value, key, on_delivery=landed, **options)
        self._producer.poll(0)

    def flush(self) -> list[Place]:
        """The places of everything sent since the last flush."""
        assert self._producer.flush(30) == 0, "the broker did not answer in 30 s"
        places, refused = [self._places[n] for n in sorted(self._places)], self._refused
        self._places, self._refused = {}, []
        assert not refused, refused
        assert len(set(places)) == len(places), "two records were told the same place: one is not in the log"
        return places
