"""A worker under steady load for as long as asked: do its memory and its descriptors stay level? `make soak` runs it.

    python -m tests.chaos.soak --minutes 60 --rate 500

Exits 1 when resident memory rises by 5 MB an hour or more after the warm-up, when descriptors rise, or when the worker
did not keep up with the plays. An interval that is wider than the limit says that the run was too short to tell.
"""

import json
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from streams.local_kafka import LocalKafka
from tests.chaos.base import copied, environment, options, prepared
from tests.chaos.run import driving
from tests.integration.workers import Worker, running

LIMIT = 5.0  # MB an hour
WARM_UP = 1 / 6  # of the run
BLOCKS = 20
EVERY = 5.0  # seconds from sample to sample
KEPT_UP = 0.95  # of the plays that were sent


class Sample(NamedTuple):
    """A process at one moment: seconds since the start, resident memory in MB (10^6 bytes), open descriptors."""

    at: float
    rss: float
    descriptors: int


class Slope(NamedTuple):
    """A rise an hour, with the ends of its 95 % confidence interval."""

    per_hour: float
    low: float
    high: float


def sample(pid: int, at: float) -> Sample:
    """What the kernel says of a process now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return Sample(at, kib * 1024 / 1e6, sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()))


def slope(times: Sequence[float], values: Sequence[float]) -> Slope:
    """Least squares through the means of BLOCKS spans of time [s]: neighbouring samples are alike, and would pretend to
    know more than they do.
    """
    x, y = (np.array([fmean(part) for part in np.array_split(np.array(v), BLOCKS)]) for v in (times, values))
    line = stats.linregress(x / 3600, y)
    half = float(stats.t.ppf(0.975, BLOCKS - 2) * line.stderr)
    return Slope(float(line.slope), float(line.slope) - half, float(line.slope) + half)


def judge(samples: Sequence[Sample], seconds: float) -> dict[str, Any]:
    """Slopes after the warm-up of a run of so many seconds, and whether both are level."""
    kept = [one for one in samples if one.at >= seconds * WARM_UP]
    if len(kept) < 2 * BLOCKS:
        return {"ok": False, "reason": f"{len(kept)} samples after the warm-up, {2 * BLOCKS} are needed"}
    times = [one.at for one in kept]
    memory, open_ = slope(times, [one.rss for one in kept]), slope(times, [float(one.descriptors) for one in kept])
    risen = open_.per_hour * (times[-1] - times[0]) / 3600
    grows = open_.low > 0 and risen >= 1
    return {
        "ok": memory.per_hour < LIMIT and not grows,
        "rss_mb_per_hour": memory._asdict(),
        "rss_mb": {"first": kept[0].rss, "last": kept[-1].rss, "most": max(one.rss for one in kept)},
        "descriptors": {"first": kept[0].descriptors, "last": kept[-1].descriptors, "grow": grows},
        "descriptors_per_hour": open_._asdict(),
        "samples": len(kept),
    }


def soak(base: Path, home: Path, minutes: float, rate: float, seed: int) -> dict[str, Any]:
    """The run, in a new directory `home`; the report."""
    prepared(base)
    home.mkdir(parents=True)
    samples: list[Sample] = []
    with LocalKafka(copied(base, home), heap="512m") as broker:
        env = environment(broker.bootstrap, home / "home", base / "models")
        with running(Worker(home / "disk", home / "worker.log", env, ["--roles", "plays"])) as worker:
            worker.wait_ready(300)
            with driving(broker.bootstrap, base, rate, seed, home / "driver.log") as driver:
                answered, began = _answered(worker), time.monotonic()
                while (at := time.monotonic() - began) < 60 * minutes:
                    samples.append(sample(worker.process.pid, at))
                    time.sleep(min(EVERY, 60 * minutes / 200))
                seconds, done = time.monotonic() - began, _answered(worker) - answered
                driver.send_signal(signal.SIGTERM)
                sent = json.loads(driver.communicate(timeout=120)[0])["acknowledged"]
    found = judge(samples, seconds)
    kept_up = done >= KEPT_UP * sent and sent >= KEPT_UP * rate * seconds
    return {
        **found,
        "ok": found["ok"] and kept_up,
        "kept_up": kept_up,
        "rate": rate,
        "sent_per_second": round(sent / seconds, 1),
        "answered_per_second": round(done / seconds, 1),
        "minutes": round(seconds / 60, 2),
        "all": [list(one) for one in samples],
    }


def _answered(worker: Worker) -> float:
    return worker.metric("msam_plays_total") + worker.metric("msam_dead_letters_total")


def main() -> None:
    """The command line."""
    parser = options(__doc__, "soak-report.json")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=500.0, help="plays a second")
    given = parser.parse_args()
    home = given.home.resolve() / "soak"
    shutil.rmtree(home, ignore_errors=True)
    found = soak(given.home.resolve() / "base", home, given.minutes, given.rate, given.seed)
    shutil.rmtree(home)
    given.out.write_text(json.dumps(found) + "\n")
    print(json.dumps({name: value for name, value in found.items() if name != "all"}))
    sys.exit(0 if found["ok"] else 1)


if __name__ == "__main__":
    main()
