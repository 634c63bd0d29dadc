"""The workers of a run: each in a slot with its own disk, its own line to the broker and its own log."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

from tests.chaos.base import environment
from tests.chaos.proxy import Proxy
from tests.integration.workers import Worker


class Slot:
    """A place for one worker; what it owns outlives the processes that use it."""

    def __init__(self, number: int, home: Path, models: Path, proxy: Proxy) -> None:
        self.number, self.proxy = number, proxy
        self.disk = home / f"disk-{number}"
        self.disk.mkdir()
        self._log = home / f"worker-{number}.log"
        self._home, self._models = home / "home", models
        self.worker: Worker | None = None
        self.crashes = 0  # processes that ended by themselves

    @property
    def running(self) -> Worker:
        """The worker, which must be there."""
        assert self.worker is not None, f"no worker in slot {self.number}"
        return self.worker

    def start(self) -> Worker:
        """Start a worker; does not wait for it."""
        assert self.worker is None, f"a worker runs in slot {self.number}"
        env = environment(f"127.0.0.1:{self.proxy.port}", self._home, self._models)
        self.worker = Worker(self.disk / "state", self._log, env, ["--roles", "plays"])
        return self.worker

    def kill(self) -> None:
        """SIGKILL."""
        gone, self.worker = self.running, None
        gone.kill()

    def leave(self) -> int:
        """SIGINT; the exit status."""
        gone, self.worker = self.running, None
        gone.interrupt()
        return gone.wait()

    def pause(self) -> None:
        """SIGSTOP."""
        os.kill(self.running.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.running.process.pid, signal.SIGCONT)

    def ended(self) -> bool:
        """Whether the process ended by itself; its slot is free then."""
        if self.worker is None or self.worker.process.poll() is None:
            return False
        gone, self.worker = self.worker, None
        gone.wait()
        self.crashes += 1
        return True

    def partitions(self) -> list[int]:
        """The partitions that this worker said last that it took over."""
        found = re.findall(r"partitions \[([^\]]*)\]: taken over", self.running.log)
        return [int(p) for p in found[-1].split(",") if p.strip()] if found else []

    def lose_disk(self) -> None:
        """Remove what the worker had stored."""
        shutil.rmtree(self.disk / "state")


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int = 96) -> Iterator[str | None]:
    """A file system of that size over a slot's folder; yields why not where this machine does not permit it."""
    refused = _refusal(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)])
    try:
        yield refused
    finally:
        if refused is None:
            subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def slow_disks(folders: Sequence[Path], library: Path) -> Iterator[str | None]:
    """Processes started in this block can be made to wait for their disks; yields why not where nothing compiles C.

    `library` is made from slow_disk.c, which says how.
    """
    source = str(Path(__file__).with_name("slow_disk.c"))
    refused = _refusal(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), source])
    slow = {"LD_PRELOAD": str(library), "SLOW_DISKS": ":".join(map(str, folders))}
    with patch.dict(os.environ, {} if refused else slow):
        yield refused


def _refusal(command: Sequence[str]) -> str | None:
    """Run a command; why it failed, None where it did not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return (done.stderr.strip() or f"{command[0]} ended with {done.returncode}") if done.returncode else None
