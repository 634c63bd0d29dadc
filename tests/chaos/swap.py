"""What a swap of the model costs: plays at a steady rate while `live` is rolled back and promoted again and again.

    python -m tests.chaos.swap --swaps 20 --rate 1000

The delay of a play is the time from its append to its list's arrival at a consumer that is neither the worker nor the
producer. The plays of a swap are those that were appended from its announcement until a second after the first list of
the other version; they are held against all others. What is announced is what `msam models rollback` and `promote` do,
without their own look at the artifact: the worker's is the one that could cost plays. Exits 1 when a play got no
answer or two, when a version was not served after its announcement, when the 99th percentile is above LIMIT times
that of the other plays, or when the worker did not keep up with the plays, so that the delays say nothing.
"""

import json
import shutil
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Message

from streams import channels
from streams.local_kafka import LocalKafka
from streams.model_log import read_models
from tests.chaos.base import copied, environment, msam, options, prepared
from tests.chaos.observer import Observer
from tests.chaos.run import PARTITIONS, drain, driving
from tests.integration.workers import Worker, running

LIMIT = 1.5
LATE = 1000.0  # ms of median delay beyond which plays queue up, and delays tell of the queue and not of the swap
TAIL = 1.0  # seconds
Place = tuple[int, int]  # partition and offset of a play
Span = tuple[float, float]  # Unix seconds


class Timed(Observer):
    """Also when each play was appended, when its answers arrived, and which versions made the lists, in order."""

    wait = 0.002

    def __init__(self, config: Mapping[str, str]) -> None:
        super().__init__(config, PARTITIONS)
        self.appended: dict[Place, float] = {}
        self.arrived: dict[Place, float] = {}
        self.answers: Counter[Place] = Counter()
        self.turns: defaultdict[int, list[str]] = defaultdict(list)

    def _take(self, message: Message) -> None:
        if message.topic() == "plays":
            self.appended[message.partition() or 0, message.offset() or 0] = message.timestamp()[1] / 1000
        super()._take(message)

    def _answered(self, place: Place, version: str | None) -> None:
        self.answers[place] += 1
        if version is not None:
            self.arrived.setdefault(place, time.time())
            if self.turns[place[0]][-1:] != [version]:
                self.turns[place[0]].append(version)

    def serves(self, version: str) -> bool:
        """Whether the newest lists are this version's, in every partition that had lists."""
        return bool(self.turns) and all(turns[-1] == version for turns in list(self.turns.values()))


def judge(
    appended: Mapping[Place, float],
    arrived: Mapping[Place, float],
    answers: Mapping[Place, int],
    swaps: Sequence[Span],
) -> dict[str, Any]:
    """Delays in ms of the plays of swaps and of all others, and how many plays have no answer or several."""
    places = sorted(appended.keys() & arrived.keys())
    when = np.array([appended[place] for place in places])
    delays = np.array([(arrived[place] - appended[place]) * 1000 for place in places])
    during = np.zeros(len(places), bool)
    for start, end in swaps:
        during |= (when >= start) & (when < end)
    figures = {"during": _percentiles(delays[during]), "without": _percentiles(delays[~during])}
    ratio = figures["during"]["p99"] / figures["without"]["p99"] if min(during.sum(), (~during).sum()) else None
    kept_up = figures["without"]["p50"] <= LATE
    lost = sum(place not in answers for place in appended)
    doubled = sum(answers.get(place, 0) > 1 for place in appended)
    return {
        "ok": kept_up and ratio is not None and ratio <= LIMIT and not lost and not doubled,
        "plays": len(appended),
        "dropped": lost,
        "duplicates": doubled,
        "delay_ms": figures,
        "kept_up": kept_up,
        "p99_ratio": None if ratio is None else round(ratio, 3),
    }


def _percentiles(delays: "np.ndarray[Any, np.dtype[np.float64]]") -> dict[str, float]:
    if not len(delays):
        return {"plays": 0, "p50": 0.0, "p99": 0.0}
    p50, p99 = np.percentile(delays, [50, 99]).tolist()
    return {"plays": len(delays), "p50": round(p50, 1), "p99": round(p99, 1)}


def swap_once(config: Mapping[str, str], seen: Timed, second: str) -> tuple[Span, float]:
    """Roll back from the second version, or promote it again; the span of it, and the seconds until lists came."""

    def decide(versions: channels.Versions, at: channels.Versions) -> list[Any]:
        if at[channels.LIVE].version == second:
            return [channels.rollback(versions, at, channels.LIVE)]
        return [channels.promotion(second, versions, at, channels.LIVE, False)]

    start = time.time()
    (record,) = channels.announce(config, decide)
    deadline = start + 60
    while not seen.serves(record.version):
        if time.time() > deadline:
            raise SystemExit(f"{record.version} is not served a minute after it was announced")
        time.sleep(0.01)
    served = time.time()
    time.sleep(TAIL)
    return (start, time.time()), served - start


def measure(base: Path, home: Path, swaps: int, rate: float, pause: float, seed: int) -> dict[str, Any]:
    """The run, in a new directory `home`; the report."""
    prepared(base)
    home.mkdir(parents=True)
    with LocalKafka(copied(base, home), heap="512m") as broker:
        config = {"bootstrap.servers": broker.bootstrap}
        env = environment(broker.bootstrap, home / "home", home / "models")
        with running(Worker(home / "disk", home / "worker.log", env, ["--roles", "plays"])) as worker:
            worker.wait_ready(300)
            with driving(broker.bootstrap, base, 50, seed, home / "warm.log"):
                time.sleep(5)  # plays that the first version has not seen
            msam(env, "trainer", "--once", "--epochs", "1", "--max-seconds", "10", "--margin", "1")
            second = read_models(config)[1][channels.LIVE].version
            with Timed(config) as seen, driving(broker.bootstrap, base, rate, seed, home / "driver.log") as driver:
                time.sleep(3 * pause)
                spans, seconds = [], []
                for _ in range(swaps):
                    span, until = swap_once(config, seen, second)
                    spans.append(span)
                    seconds.append(until)
                    time.sleep(pause)
                driver.send_signal(signal.SIGTERM)
                sent = json.loads(driver.communicate(timeout=120)[0])
                drain(seen)
    found = judge(seen.appended, seen.arrived, seen.answers, spans)
    took = max(seen.appended.values()) - min(seen.appended.values())
    kept = len(seen.appended) == sent["acknowledged"]
    turns = {len(turns) - 1 for turns in seen.turns.values()}
    return {
        **found,
        "ok": found["ok"] and kept and turns == {swaps},
        "swaps": swaps,
        "turns": sorted(turns),  # by partition, how often the version changed: as often as it was told to
        "served_after_s": _spread(seconds),
        "rate": rate,
        "plays_per_second": round(len(seen.appended) / took, 1),
        "acknowledged": sent["acknowledged"],
    }


def _spread(values: Iterable[float]) -> dict[str, float]:
    found = sorted(values)
    return {"median": round(found[len(found) // 2], 2), "most": round(found[-1], 2)} if found else {}


def main() -> None:
    """The command line."""
    parser = options(__doc__, "swap-report.json")
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--rate", type=float, default=1000.0, help="plays a second")
    parser.add_argument("--pause", type=float, default=5.0, help="seconds between two swaps")
    given = parser.parse_args()
    home = given.home.resolve() / "swap"
    shutil.rmtree(home, ignore_errors=True)
    found = measure(given.home.resolve() / "base", home, given.swaps, given.rate, given.pause, given.seed)
    shutil.rmtree(home)
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))
    sys.exit(0 if found["ok"] else 1)


if __name__ == "__main__":
    main()
