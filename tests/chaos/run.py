"""Faults in a seeded order while plays go in at a steady rate; then the log is judged. `make chaos` runs it.

    python -m tests.chaos.run --kills 10 --seed 1 --minutes 20

Exits 1 when the judgement finds anything, or when a fault of the plan could not be brought about.
"""

import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from streams.broker_process import free_port
from streams.local_kafka import LocalKafka
from tests.chaos.base import copied, options, prepared
from tests.chaos.faults import FAULTS, PATIENCE, Field
from tests.chaos.fleet import Slot, slow_disks, small_disk
from tests.chaos.observer import Observer
from tests.chaos.proxy import Proxy
from tests.recompute_windows import Logs, judge, read_logs

PARTITIONS = 4
GROUP = "msam"


def plan(kills: int, each: int, seed: int, only: Sequence[str] = ()) -> list[str]:
    """The faults of a run in their order: `kills` kills, and every other kind `each` times."""
    kinds = [kind for kind in FAULTS if kind != "kill" and (not only or kind in only)]
    faults = ["kill"] * kills + kinds * each
    random.Random(seed).shuffle(faults)
    return faults


@contextlib.contextmanager
def driving(bootstrap: str, base: Path, rate: float, seed: int, log: Path) -> Iterator["subprocess.Popen[str]"]:
    """The driver's process, never left behind."""
    script = str(Path(__file__).with_name("driver.py"))
    command = [sys.executable, script, "--bootstrap", bootstrap, "--data", str(base / "data")]
    command += ["--rate", str(rate), "--seed", str(seed)]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def inject(field: Field, faults: Sequence[str], until: float) -> Iterator[dict[str, Any]]:
    """One fault after the other, each from a system that is well again; stops when time is up."""
    for kind in faults:
        if time.monotonic() > until:
            return
        began = time.monotonic()
        found: dict[str, Any] = {}
        try:
            found = FAULTS[kind](field)
            found["settled_s"] = round(field.settled(), 1)
        except AssertionError as error:  # the system did not come back: what the log holds is judged all the same
            found |= {"verified": False, "failed": str(error)}
        yield {"kind": kind, **found, "took_s": round(time.monotonic() - began, 1)}
        if "failed" in found:
            return
        time.sleep(field.random.uniform(0.5, 2.0))


def run(
    base: Path, home: Path, faults: Sequence[str], *, seed: int, minutes: float, rate: float
) -> tuple[dict[str, Any], Logs]:
    """The whole run in a new directory `home`; the report, and the records that it was judged by."""
    prepared(base)
    home.mkdir(parents=True)
    began = time.monotonic()
    port = free_port()
    ports = [(free_port(), free_port()) for _ in range(3)]  # a listener of the broker, and the proxy before it
    proxies = [Proxy(outer, inner).start() for inner, outer in ports]
    slots = [Slot(number, home, base / "models", proxy) for number, proxy in enumerate(proxies)]
    events: list[dict[str, Any]] = []
    with (
        slow_disks([home / "kafka", *(slot.disk for slot in slots)], home / "slow_disk.so") as never_slow,
        LocalKafka(copied(base, home), port=port, heap="384m", behind_proxies=ports) as broker,
        small_disk(slots[1].disk) as never_full,
        Observer({"bootstrap.servers": broker.bootstrap}, PARTITIONS) as observer,
    ):
        before = sum(observer.mark().values())
        try:
            for slot in slots[:2]:
                slot.start()
            for slot in slots[:2]:
                slot.running.wait_ready(PATIENCE)
            with driving(broker.bootstrap, base, rate, seed, home / "driver.log") as driver:
                field = Field(slots, broker, observer, random.Random(seed), driver.pid, never_full, never_slow)
                time.sleep(2)
                for event in inject(field, faults, began + 60 * minutes):
                    events.append(event)
                    say(event, time.monotonic() - began)
                driver.send_signal(signal.SIGTERM)
                sent, _ = driver.communicate(timeout=60)
            drain(observer)
            for slot in slots:
                if slot.worker is not None:
                    slot.leave()
        finally:
            for slot in slots:
                if slot.worker is not None:
                    slot.resume()
                    slot.kill()
            for proxy in proxies:
                proxy.stop()
        logs = read_logs({"bootstrap.servers": broker.bootstrap}, GROUP)
    seconds = time.monotonic() - began
    return report(judge(logs), events, faults, json.loads(sent), before, seed, seconds, slots), logs


def drain(observer: Observer, timeout: float = PATIENCE) -> None:
    """Wait until every play is answered; what is not by then is for the judgement to say."""
    deadline = time.monotonic() + timeout
    while observer.waiting() and time.monotonic() < deadline:
        time.sleep(0.1)


def report(
    log: dict[str, Any],
    events: list[dict[str, Any]],
    faults: Sequence[str],
    sent: dict[str, int],
    before: int,
    seed: int,
    seconds: float,
    slots: Sequence[Slot],
) -> dict[str, Any]:
    """What happened, what the log says, and whether it is as promised."""
    done = Counter(event["kind"] for event in events if event.get("verified"))
    skipped = {event["kind"]: event["skipped"] for event in events if "skipped" in event}
    wanted = Counter(kind for kind in faults if kind not in skipped)
    producer = {"log_holds": log["plays"] - before, "acknowledged": sent.get("acknowledged", 0)}
    kept = producer["log_holds"] == producer["acknowledged"] == sent["sent"]
    counts = {name: log[name] for name in COUNTS}
    return {
        "ok": not log["differences"] and done == wanted and kept,
        **counts,
        "faults": {**dict(sorted(done.items())), **{n: sent.get(n, 0) for n in ("clock_skew", "retried", "garbage")}},
        "not_verified": {kind: wanted[kind] - done[kind] for kind in wanted if wanted[kind] != done[kind]},
        "skipped": skipped,
        "recovery_s": recoveries(events),
        "kinds": log["kinds"],
        "differences": log["differences"][:20],
        "producer": producer,
        "crashes": sum(slot.crashes for slot in slots),
        "seed": seed,
        "seconds": round(seconds),
        "events": events,
    }


def recoveries(events: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Median and longest recovery, by kind; of a kill apart whether the other took over or the same came back."""
    seconds: dict[str, list[float]] = {}
    for event in events:
        if "recovery_s" in event:
            kind = event["kind"] + (" and restart" if event.get("restarted") else "")
            seconds.setdefault(kind, []).append(event["recovery_s"])
    return {kind: {"median": median(found), "longest": max(found)} for kind, found in sorted(seconds.items())}


COUNTS = ("plays", "recommendations", "dead_letters", "lost", "duplicates", "wrong_windows", "stale")


def say(event: dict[str, Any], at: float) -> None:
    """One line a fault on standard error."""
    print(f"{at:6.0f} s  {json.dumps(event)}", file=sys.stderr, flush=True)


def main() -> None:
    """The command line."""
    parser = options(__doc__, "chaos-report.json")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--each", type=int, default=1, help="how often every other fault")
    parser.add_argument("--only", default="", help="other faults, comma-separated; default: all")
    parser.add_argument("--minutes", type=float, default=30.0, help="no new fault after that")
    parser.add_argument("--rate", type=float, default=150.0, help="plays a second")
    given = parser.parse_args()
    home = given.home.resolve() / f"seed-{given.seed}"
    shutil.rmtree(home, ignore_errors=True)
    only = [kind for kind in given.only.split(",") if kind]
    faults = plan(given.kills, given.each, given.seed, only)
    base = given.home.resolve() / "base"
    found, _ = run(base, home, faults, seed=given.seed, minutes=given.minutes, rate=given.rate)
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({name: value for name, value in found.items() if name not in ("events", "differences")}))
    sys.exit(0 if found["ok"] else 1)


if __name__ == "__main__":
    main()
