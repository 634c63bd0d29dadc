"""The broker's process: launched so that it never outlives its owner by accident, found again, stopped."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import psutil

from streams.kafka_distribution import BrokerError

# Below Linux's ephemeral range (32768-60999): a port remembered for the next start must not be taken meanwhile by an
# outgoing connection of somebody else.
PORTS = range(20000, 32000)

# Runs in the child between fork and Java: SIGTERM reaches the broker when its owner dies, kill -9 included.
TIED = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)  # PR_SET_PDEATHSIG, SIGTERM
if os.getppid() != int(sys.argv[1]):  # the owner died before the line above
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, slots=True)
class BrokerState:
    """`broker.json`: the last broker of a data directory, running or not."""

    pid: int
    port: int
    controller_port: int
    properties: str

    @property
    def bootstrap(self) -> str:
        """`host:port` of the listener for clients."""
        return f"127.0.0.1:{self.port}"

    def process(self) -> psutil.Process | None:
        """The running broker, or None; a process id that was given to another program meanwhile is no broker."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.pid)
            for _ in range(100):
                arguments = process.cmdline()
                if arguments or process.status() == psutil.STATUS_ZOMBIE:
                    return process if self.properties in arguments else None  # the launcher carries it too
                time.sleep(0.01)  # between two programs (exec) a live process has no arguments for a moment
        return None

    def save(self, path: Path) -> None:
        """Write whole or not at all, so that a reader never sees half a state."""
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self)))
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> "BrokerState | None":
        """The state in `path`, or None where there is none that can be read."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None


def free_port(preferred: int | None = None, other_than: int | None = None) -> int:
    """`preferred` if it is free on the loopback interface, else a free port outside the ephemeral range."""
    candidates = random.sample(PORTS, 100)
    for port in candidates if preferred is None else [preferred, *candidates]:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: TIME_WAIT is not in use
            if port != other_than:
                probe.bind(("127.0.0.1", port))
                return port
    raise BrokerError(f"no free port among 100 tried in {PORTS.start}-{PORTS.stop - 1}")


def launch(command: list[str], log_path: Path, *, detached: bool) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, so that Ctrl-C in the terminal reaches its owner only."""
    # The signal is sent when the launching *thread* ends, so only the main thread may tie a child to itself.
    tied = not detached and sys.platform == "linux" and threading.current_thread() is threading.main_thread()
    if tied:
        command = [sys.executable, "-S", "-E", "-c", TIED, str(os.getpid()), *command]
    with log_path.open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def stop_process(process: psutil.Process, child: "subprocess.Popen[bytes] | None", timeout: float) -> None:
    """SIGTERM, then SIGKILL after `timeout` seconds; returns when the process is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
        for patience in (timeout, 10.0):
            try:
                if child is not None and child.pid == process.pid:
                    child.wait(patience)  # our own child: psutil would take the exit status away from Popen
                else:
                    process.wait(patience)
                return
            except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
                process.kill()
        raise BrokerError(f"process {process.pid} did not end after SIGKILL")


@contextlib.contextmanager
def exit_on_terminate() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that exit handlers run; a handler set by others is left alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    mine = [s for s in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) is signal.SIG_DFL]
    for number in mine:
        signal.signal(number, _exit)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number in mine:
                if signal.getsignal(number) is _exit:
                    signal.signal(number, signal.SIG_DFL)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def log_tail(path: Path) -> str:
    """The last line of the broker's log that tells of a failure, or its last line."""
    lines = path.read_text(errors="replace").splitlines()[-200:] if path.exists() else []
    telling = [line for line in lines if "Exception" in line or "Error" in line or " ERROR " in line or "FATAL" in line]
    return (telling or lines or ["its log is empty"])[-1].strip()
