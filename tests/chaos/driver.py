"""Writes plays at a steady rate until SIGTERM, then says what it sent: a process of its own, no code of the product.

    python tests/chaos/driver.py --bootstrap 127.0.0.1:9092 --data DIR --rate 150 --seed 1

Among them are what producers do on their bad days: clocks that are years off, late and equal times, the same play sent
twice as a retry without idempotence would, tracks that nobody described, and bytes that are no play.
"""

import argparse
import csv
import json
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

TICK = 0.02


class Driver:
    """One producer and its tally."""

    def __init__(self, bootstrap: str, data: Path, seed: int) -> None:
        self._random = random.Random(seed)
        self._users = [row["user_id"] for row in csv.DictReader((data / "users.csv").open())]
        self._tracks = [row["track_id"] for row in csv.DictReader((data / "tracks.csv").open())]
        self.tally: Counter[str] = Counter()
        self.stopped = False
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "message.timeout.ms": 0,  # a broker that is away is waited for
                "linger.ms": 5,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )

    def run(self, rate: float) -> None:
        """Send until stopped, then wait for every acknowledgement."""
        began, sent = time.monotonic(), 0
        while not self.stopped:
            due = int((time.monotonic() - began) * rate)
            for _ in range(due - sent):
                self._send()
            sent = max(sent, due)
            self._producer.poll(TICK)
        while self._producer.flush(10):
            pass

    def _send(self) -> None:
        pick, user = self._random.random(), self._random.choice(self._users)
        track = self._tracks[min(int(self._random.expovariate(6.0) * len(self._tracks)), len(self._tracks) - 1)]
        at = float(int(time.time() * 4)) / 4  # quarter seconds: equal times happen
        if pick < 0.03:
            self.tally["clock_skew"] += 1
            at = self._random.choice([0.0, 86400.0 * self._random.randrange(15000), at + 3.15e7, 4.0e9])
        elif pick < 0.10:
            self.tally["late"] += 1
            at -= self._random.uniform(1, 3600)
        elif pick < 0.11:
            self.tally["undescribed"] += 1
            track = f"undescribed-{self._random.randrange(40)}"
        elif pick < 0.115:
            self.tally["garbage"] += 1
            self._produce(user, self._random.choice([b"", b"\xc3\x01 no play", b'{"user_id": 7}', b"{", b"\x00\xff"]))
            return
        play: dict[str, Any] = {"user_id": user, "track_id": track, "played_at": at}
        value = json.dumps(play).encode()
        self._produce(user, value)
        if 0.115 <= pick < 0.135:
            self.tally["retried"] += 1
            self._produce(user, value)

    def _produce(self, user: str, value: bytes) -> None:
        self.tally["sent"] += 1
        while True:
            try:
                return self._producer.produce("plays", value, user.encode(), on_delivery=self._landed)
            except BufferError:
                self._producer.poll(0.1)

    def _landed(self, error: KafkaError | None, message: Message) -> None:
        self.tally["refused" if error is not None else "acknowledged"] += 1


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=150.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    driver = Driver(given.bootstrap, given.data, given.seed)

    def stop(number: int, frame: object) -> None:
        driver.stopped = True

    signal.signal(signal.SIGTERM, stop)
    driver.run(given.rate)
    print(json.dumps(driver.tally))


if __name__ == "__main__":
    main()
