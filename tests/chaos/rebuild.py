"""How long a worker takes to rebuild its windows from the changelog after its disk was lost.

    python -m tests.chaos.rebuild --windows 1000000

Fills the windows changelog of a copy of the chaos base with that many windows of 20 plays, starts one worker with an
empty disk, and prints one JSON document: seconds until it had taken over every partition, and until it was ready.
"""

import argparse
import json
import re
import shutil
import time
from pathlib import Path

from confluent_kafka import Producer

from streams.local_kafka import LocalKafka
from streams.windows import Entry, Window, encode_window
from tests.chaos.base import copied, environment, prepared
from tests.integration.workers import ROOT, Worker, running

PLAYS = 20


def fill(bootstrap: str, windows: int) -> int:
    """Write windows of made-up users to the changelog; the bytes of the values."""
    entries = tuple(Entry(1.7e9 + n, n, f"t{n:05d}", 0) for n in range(PLAYS))
    value = encode_window(Window(entries, ((0, PLAYS - 1),)))
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 50,
            "batch.size": 2**20,
        }
    )
    for n in range(windows):
        while True:
            try:
                producer.produce("msam-windows-changelog", value, f"made-up-{n:07d}".encode())
                break
            except BufferError:
                producer.poll(0.1)
        if n % 1000 == 0:
            producer.poll(0)
    assert producer.flush(300) == 0, "the broker did not take the windows"
    return len(value) * windows


def measure(base: Path, home: Path, windows: int) -> dict[str, float]:
    """One rebuild."""
    prepared(base)
    home.mkdir(parents=True)
    with LocalKafka(copied(base, home), heap="512m") as broker:
        size = fill(broker.bootstrap, windows)
        env = environment(broker.bootstrap, home / "home", base / "models")
        began = time.monotonic()
        with running(Worker(home / "disk", home / "worker.log", env, ["--roles", "plays"])) as worker:
            worker.wait_ready(900)
            ready = time.monotonic() - began
            taken = re.findall(r"partitions \[[\d, ]+\]: taken over in ([\d.]+) s", worker.log)
            disk = sum(path.stat().st_size for path in worker.data_dir.rglob("*") if path.is_file())
    return {
        "windows": windows,
        "bytes": size,
        "taken_over_s": float(taken[-1]),
        "assignments": len(taken),  # more than one: the group had given up on the worker meanwhile
        "ready_s": round(ready, 1),
        "disk_bytes": disk,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--windows", type=int, default=1_000_000)
    parser.add_argument("--home", type=Path, default=ROOT / "build" / "chaos")
    given = parser.parse_args()
    home = given.home.resolve() / "rebuild"
    shutil.rmtree(home, ignore_errors=True)
    print(json.dumps(measure(given.home.resolve() / "base", home, given.windows)))
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
