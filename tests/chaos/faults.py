"""The faults: each harms a running system, sees to it that the harm is done, mends what an operator would, measures.

A fault returns what it found: `verified` (it hit what it was to hit), and `recovery_s`, from the harm to the first list
for a play made after it, in the slowest of the partitions that were hit.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from streams.local_kafka import LocalKafka
from tests.chaos.fleet import Slot
from tests.chaos.observer import Observer

PATIENCE = 300.0  # seconds until a fault counts as not recovered from; how long it took is reported
FEW, CROWD = 60, 600  # plays that wait in a system that is well, and in one that is given time to catch up
Found = dict[str, Any]


class Frozen(NamedTuple):
    """A stopped worker."""

    since: float  # monotonic
    mark: dict[int, int]  # where plays ended, by partition
    partitions: list[int]  # the worker's
    flying: int  # plays of these that were not answered


@dataclass
class Field:
    """What a fault may touch. Slots 0 and 1 hold workers between faults, slot 2 is for those who come and go."""

    slots: list[Slot]
    broker: LocalKafka
    observer: Observer
    random: random.Random
    driver: int  # its process id
    no_small_disk: str | None  # why slot 1 has no small disk of its own
    no_slow_disks: str | None  # why disks cannot be made slow

    def settled(self, timeout: float = PATIENCE) -> float:
        """Wait until slots 0 and 1 have workers that serve and nearly everything is answered; the seconds it took.

        No new plays come meanwhile when many wait: on a machine that is busy with other things they would never end.
        """
        began = time.monotonic()
        try:
            while not self._well():
                if self.observer.waiting() > CROWD:
                    os.kill(self.driver, signal.SIGSTOP)
                if time.monotonic() - began > timeout:
                    tails = "\n".join(s.worker.tail() for s in self.slots[:2] if s.worker is not None)
                    raise AssertionError(f"{self.observer.waiting()} plays wait {timeout:g} s after a fault; {tails}")
                time.sleep(0.2)
        finally:
            os.kill(self.driver, signal.SIGCONT)
        return time.monotonic() - began

    def _well(self) -> bool:
        for slot in self.slots[:2]:
            if slot.worker is None or slot.ended():
                slot.start()
        return all(_ready(slot) for slot in self.slots[:2]) and self.observer.waiting() < FEW

    def victim(self) -> Slot:
        """A worker that serves partitions."""
        return self.random.choice([slot for slot in self.slots[:2] if slot.partitions()])

    def freeze(self, victim: Slot) -> "Frozen":
        """SIGSTOP at a moment at which plays of the victim's partitions are on their way."""
        mine, deadline = victim.partitions(), time.monotonic() + 60
        while True:
            while not self.observer.waiting(mine) and time.monotonic() < deadline:
                time.sleep(0.001)
            since, mark = time.monotonic(), self.observer.mark()
            victim.pause()
            time.sleep(0.3)  # what was committed before is read meanwhile
            flying = sum(max(mark[p] - self.observer.answered[p], 0) for p in mine)
            if flying or since > deadline:
                return Frozen(since, mark, mine, flying)
            victim.resume()

    def recovery(
        self, since: float, mark: dict[int, int], partitions: Iterable[int], timeout: float = PATIENCE
    ) -> float:
        """Seconds from `since` to the first answer for a play beyond `mark`, in the slowest partition."""
        deadline = time.monotonic() + timeout
        left, latest = set(partitions), 0.0
        while left:
            for partition in list(left):
                when = self.observer.answered_at(partition, mark[partition])
                if when is not None:
                    latest = max(latest, when - since)
                    left.discard(partition)
            assert time.monotonic() < deadline, f"partitions {sorted(left)} are not served {timeout:g} s after a fault"
            time.sleep(0.05)
        return round(latest, 2)


def _ready(slot: Slot) -> bool:
    try:
        return slot.running.get("/health/ready")[0] == 200
    except (OSError, AssertionError):
        return False


def kill(field: Field) -> Found:
    """kill -9 of one of two workers; the other takes over, or the same comes back at once."""
    victim = field.victim()
    since, mark, mine, flying = field.freeze(victim)
    victim.kill()
    back = field.random.random() < 0.5
    if back:
        victim.start()
    seconds = field.recovery(since, mark, mine)
    found = {"verified": flying > 0, "in_flight": flying, "restarted": back, "recovery_s": seconds}
    return found


def zombie(field: Field) -> Found:
    """SIGSTOP beyond the session, so that the other takes over; SIGCONT while it takes the partitions for its own."""
    victim = field.victim()
    since, mark, mine, flying = field.freeze(victim)
    try:
        seconds = field.recovery(since, mark, mine)
    finally:
        victim.resume()
    time.sleep(3)
    return {"verified": flying > 0, "in_flight": flying, "recovery_s": seconds}


def broker(field: Field) -> Found:
    """kill -9 of the broker, started again on its data after up to five seconds."""
    since, mark, pid = time.monotonic(), field.observer.mark(), field.broker.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    time.sleep(field.random.uniform(0.5, 5))
    field.broker.start()
    seconds = field.recovery(since, mark, field.observer.partitions)
    return {"verified": field.broker.pid != pid, "recovery_s": seconds}


def rebalance(field: Field) -> Found:
    """A worker joins, another leaves by SIGINT and comes back, the first leaves."""
    guest, leaver = field.slots[2], field.victim()
    guest.start()
    guest.running.wait_ready(PATIENCE)
    since, mark, mine = time.monotonic(), field.observer.mark(), leaver.partitions()
    codes = [leaver.leave()]
    seconds = field.recovery(since, mark, mine)
    leaver.start()
    if field.random.random() < 0.5:
        leaver.running.wait_ready(PATIENCE)
    codes.append(guest.leave())
    assert all(code in (0, 130, -2) for code in codes), f"a worker that was asked to leave ended with {codes}"
    return {"verified": bool(mine), "recovery_s": seconds}


def rocksdb_loss(field: Field) -> Found:
    """kill -9, and the worker's disk is gone: what it held is rebuilt from the changelog."""
    victim = field.victim()
    since, mark, mine, flying = field.freeze(victim)
    victim.kill()
    victim.lose_disk()
    victim.start()
    seconds = field.recovery(since, mark, mine)
    return {"verified": True, "in_flight": flying, "recovery_s": seconds}


def cut(field: Field) -> Found:
    """A worker's connections end and none can be made for some seconds."""
    victim = field.victim()
    since, mark, mine = time.monotonic(), field.observer.mark(), victim.partitions()
    victim.proxy.set("dropped")
    time.sleep(field.random.uniform(1, 8))
    victim.proxy.set("open")
    return {"verified": bool(mine), "recovery_s": field.recovery(since, mark, mine)}


def silence(field: Field) -> Found:
    """Nothing passes on a worker's line for longer than a session; then all that was on its way arrives, late."""
    victim = field.victim()
    since, mark, mine = time.monotonic(), field.observer.mark(), victim.partitions()
    victim.proxy.set("silent")
    try:
        seconds = field.recovery(since, mark, mine)
    finally:
        victim.proxy.set("open")
    time.sleep(3)
    return {"verified": bool(mine), "recovery_s": seconds}


def disk_full(field: Field) -> Found:
    """The disk of a worker's tables has no room left; it stops, and is started again when there is room."""
    if field.no_small_disk is not None:
        return {"skipped": f"no small disk: {field.no_small_disk}"}
    victim = field.slots[1]
    since, mark, mine = time.monotonic(), field.observer.mark(), victim.partitions()
    filler = Path(victim.disk / "filler")
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 65536):
                pass
        except OSError:  # no space left on device: what this is about
            pass
    deadline = time.monotonic() + 60
    while not victim.ended() and time.monotonic() < deadline:
        time.sleep(0.1)
    stopped = victim.worker is None
    filler.unlink()
    if stopped:
        victim.start()
    return {"verified": stopped, "recovery_s": field.recovery(since, mark, mine)}


def disk_slow(field: Field) -> Found:
    """Every write and sync of a worker's tables, or of the broker's log, waits; for some seconds."""
    if field.no_slow_disks is not None:
        return {"skipped": f"no slow disk: {field.no_slow_disks}"}
    victim = field.victim()
    whose, disk, ms = field.random.choice([("worker", victim.disk, 300), ("broker", field.broker.data_dir, 30)])
    slow = disk / "slow"
    since, mark, mine = time.monotonic(), field.observer.mark(), victim.partitions()
    slow.write_text(f"{ms:03}")
    try:
        time.sleep(field.random.uniform(4, 10))
        waited = slow.stat().st_size - 3
        seconds = field.recovery(since, mark, mine)
    finally:
        slow.unlink()
    return {"verified": waited > 0, "disk": whose, "writes_delayed": waited, "recovery_s": seconds}


FAULTS: dict[str, Callable[[Field], Found]] = {
    "kill": kill,
    "zombie": zombie,
    "broker": broker,
    "rebalance": rebalance,
    "rocksdb_loss": rocksdb_loss,
    "cut": cut,
    "silence": silence,
    "disk_full": disk_full,
    "disk_slow": disk_slow,
}
