"""Worker processes for tests: started as people start them, stopped by SIGINT, never left behind."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]


def members(group: int) -> list[psutil.Process]:
    """The living processes of a process group."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


class Worker:
    """One `msam worker` in a process group of its own."""

    def __init__(
        self,
        data_dir: Path,
        log_path: Path,
        env: Mapping[str, str],
        arguments: list[str],
        program: str = "streams.cli",
    ) -> None:
        self.data_dir, self.log_path = data_dir, log_path
        with log_path.open("ab") as log:
            self._start = log.tell()
            command = [sys.executable, "-m", program, "worker", "--data-dir", str(data_dir), "--web-port", "0"]
            self.process = subprocess.Popen(
                [*command, *arguments], stdout=log, stderr=log, env=dict(env), cwd=ROOT, start_new_session=True
            )
        self._url: str | None = None

    @property
    def log(self) -> str:
        """What this process has logged."""
        with self.log_path.open("rb") as file:
            file.seek(self._start)
            return file.read().decode(errors="replace")

    def tail(self, lines: int = 15) -> str:
        """The end of the log, for messages."""
        return f"{self.log_path}:\n" + "\n".join(self.log.splitlines()[-lines:])

    @property
    def url(self) -> str:
        """Where it serves health, metrics and lists; waits for it."""
        deadline = time.monotonic() + 90
        while self._url is None:
            assert self.process.poll() is None, f"the worker ended with {self.process.returncode}; {self.tail()}"
            assert time.monotonic() < deadline, f"the worker did not start to serve; {self.tail()}"
            found = re.search(r"metrics and lists at (\S+)\n", self.log)
            if found is None:
                time.sleep(0.05)
            else:
                self._url = found[1]
        return self._url

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON body."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=40) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def list_of(self, user: str, n: int = 20) -> tuple[int, Any]:
        """GET /recommendations/{user}."""
        return self.get(f"/recommendations/{urllib.parse.quote(user, safe='')}?n={n}")

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return sum(float(v) for v in re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE))

    def wait_ready(self, timeout: float = 150.0) -> "Worker":
        """Until /health/ready is 200."""
        deadline = time.monotonic() + timeout
        seen: Any = None
        while True:
            assert self.process.poll() is None, f"the worker ended with {self.process.returncode}; {self.tail()}"
            assert time.monotonic() < deadline, f"not ready after {timeout:g} s: {seen}; {self.tail()}"
            with contextlib.suppress(OSError):
                status, seen = self.get("/health/ready")
                if status == 200:
                    return self
            time.sleep(0.05)

    def interrupt(self) -> None:
        """SIGINT, without waiting."""
        self.process.send_signal(signal.SIGINT)

    def wait(self, timeout: float = 40.0) -> int:
        """The exit status, once the process and all that it started are gone; kills what stays, and fails then."""
        late = False
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            late = True
            self.process.kill()
            self.process.wait(10)
        deadline = time.monotonic() + 10
        while (left := members(self.process.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        names = []
        for process in left:
            with contextlib.suppress(psutil.Error):
                names.append(" ".join(process.cmdline())[:200])
                process.kill()
        assert not late, f"SIGINT did not end the worker in {timeout:g} s; {self.tail()}"
        assert not left, f"the worker left processes behind: {names}"
        return self.process.returncode

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self.process.kill()
        assert self.wait() == -signal.SIGKILL

    def stop(self) -> None:
        """SIGINT and a clean end."""
        if self.process.poll() is None:
            self.interrupt()
        code = self.wait()
        assert code in (0, 130, -signal.SIGINT, -signal.SIGKILL), f"the worker ended with {code}; {self.tail()}"


@contextlib.contextmanager
def running(worker: Worker) -> Iterator[Worker]:
    """The worker, gone after the block whatever happens in it; its end must be clean where the block passed."""
    try:
        yield worker
    except BaseException as error:
        error.add_note(f"the worker's status was {worker.process.poll()}; {worker.tail(40)}")
        with contextlib.suppress(AssertionError):
            worker.stop()
        raise
    worker.stop()
