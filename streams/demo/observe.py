"""The independent consumer: reads recommendations as any downstream app would, and notes when each record came."""

import threading
import time
from collections.abc import Mapping

from confluent_kafka import Consumer, TopicPartition

from streams import topics
from streams.log_reader import partitions_of


class Observer:
    """Follows `recommendations` from the beginning on a thread; keeps raw values and arrival times."""

    def __init__(self, config: Mapping[str, str]) -> None:
        self._consumer = Consumer(
            {
                **config,
                "group.id": "msam-demo-observer",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
            }
        )
        names = partitions_of(self._consumer, topics.RECOMMENDATIONS)
        self._consumer.assign([TopicPartition(topics.RECOMMENDATIONS, p, 0) for p in names])
        self._stop = threading.Event()
        self.values: list[tuple[float, bytes]] = []  # arrival (Unix seconds), value
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            messages = self._consumer.consume(500, timeout=0.002)
            now = time.time()
            for message in messages:
                value = message.value()
                if message.error() is None and value is not None:
                    self.values.append((now, value))

    def wait_for(self, count: int, patience: float) -> bool:
        """Whether `count` records came before nothing new came for `patience` seconds."""
        seen, since = len(self.values), time.monotonic()
        while len(self.values) < count:
            time.sleep(0.02)
            if len(self.values) != seen:
                seen, since = len(self.values), time.monotonic()
            elif time.monotonic() - since > patience:
                return False
        return True

    def stop(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join(10)
        self._consumer.close()
