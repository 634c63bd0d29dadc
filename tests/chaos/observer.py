"""Follows plays and their answers while a run goes on: what is in flight, and how long recovery takes.

It reads what is committed, on a thread of its own, with the schemas as JSON files and no code of the product. What it
says steers a run and measures it; the verdict comes from the log, afterwards.
"""

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping

from confluent_kafka import OFFSET_END, Consumer, KafkaException, Message, TopicPartition

from tests.recompute_windows import Schemas

ANSWERS = ("recommendations", "dead-letters")


class Observer:
    """`ends` and `answered`: the next offset of plays, and one beyond the last play answered, by partition."""

    wait = 0.02  # seconds for records to come together: costs less, and makes what comes look later

    def __init__(self, config: Mapping[str, str], partitions: int) -> None:
        self._schemas = Schemas("recommendation")
        self._consumer = Consumer(
            {
                **config,
                "group.id": "chaos-observer",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 20,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )
        self.partitions = range(partitions)
        self.ends: dict[int, int] = {}
        places = []
        for topic in ("plays", *ANSWERS):
            for partition in self.partitions:
                place = TopicPartition(topic, partition, OFFSET_END)
                place.offset = self._end(place)
                places.append(place)
                if topic == "plays":
                    self.ends[partition] = place.offset
        self.answered = dict(self.ends)
        self._heard: defaultdict[int, list[tuple[float, int]]] = defaultdict(list)  # when, up to which offset
        self._consumer.assign(places)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)

    def __enter__(self) -> "Observer":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(10)
        self._consumer.close()

    def _end(self, place: TopicPartition) -> int:
        """The next offset; a broker that has just started may not lead its partitions yet."""
        deadline = time.monotonic() + 30
        while True:
            try:
                return int(self._consumer.get_watermark_offsets(place, timeout=10)[1])
            except KafkaException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def waiting(self, partitions: Iterable[int] | None = None) -> int:
        """Plays in the log without a committed answer."""
        with self._lock:
            chosen = self.partitions if partitions is None else partitions
            return sum(max(self.ends[p] - self.answered[p], 0) for p in chosen)

    def mark(self) -> dict[int, int]:
        """Where plays end now."""
        with self._lock:
            return dict(self.ends)

    def answered_at(self, partition: int, offset: int) -> float | None:
        """When (monotonic) a play at or beyond `offset` was first seen answered."""
        with self._lock:
            return next((when for when, to in self._heard[partition] if to > offset), None)

    def _run(self) -> None:
        while not self._stop.is_set():
            for message in self._consumer.consume(500, timeout=self.wait):
                if message.error() is None:
                    with self._lock:
                        self._take(message)

    def _take(self, message: Message) -> None:
        partition, offset = message.partition() or 0, message.offset() or 0
        if message.topic() == "plays":
            self.ends[partition] = max(self.ends[partition], offset + 1)
            return
        place = self._source(message)
        if place is not None and place[1] >= self.answered[place[0]]:
            self.answered[place[0]] = place[1] + 1
            self._heard[place[0]].append((time.monotonic(), place[1] + 1))

    def _source(self, message: Message) -> tuple[int, int] | None:
        if message.topic() == "dead-letters":
            headers = dict(message.headers() or [])
            names = ("partition", "offset")
            partition, offset = (int(headers[f"__streams.errors.{name}"] or b"0") for name in names)
            self._answered((partition, offset), None)
            return partition, offset
        with contextlib.suppress(ValueError):
            record = self._schemas.read(message.value() or b"")
            source = record["source"]
            self._answered((source["partition"], source["offset"]), record["model_version"])
            return source["partition"], source["offset"]
        return None

    def _answered(self, place: tuple[int, int], version: str | None) -> None:
        """One answer to a play: a list by a version, or (None) a dead letter."""
