"""A real Apache Kafka broker on this machine, without Docker or a system Java, for demos, tests and development.

Everything lives in one data directory: `broker.json` (who runs, where), `broker.log`, `server.properties`,
`classpath.json` and Kafka's own `log/`.
"""

import atexit
import contextlib
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from streams import kafka_distribution as distribution
from streams.broker_process import BrokerState, exit_on_terminate, free_port, launch, log_tail, stop_process
from streams.errors import MsamError
from streams.kafka_distribution import BrokerError

LOG_KEPT_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class KafkaStatus:
    """What is known of the broker of one data directory; the process figures are None while none runs."""

    running: bool
    bootstrap: str | None
    pid: int | None
    data_dir: str
    log_path: str
    version: str
    uptime_seconds: float | None = None
    memory_bytes: int | None = None


class LocalKafka:
    """One KRaft node in `data_dir`; as a context manager it serves inside the block and is gone after it.

    Args:
        data_dir: the broker's own directory; what it holds survives from one start to the next.
        port: of the loopback listener; None keeps the one chosen before, or picks a free one.
        heap: Java's -Xmx.
        detached: the broker outlives this process (`msam kafka start`).
        behind_proxies: (port, advertised port) of further loopback listeners, for clients that reach the broker through
            something that listens on the advertised port.
        properties: of the broker, beside or instead of ours; `listeners` (on loopback, for TLS or SASL) are added.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int | None = None,
        heap: str = "512m",
        detached: bool = False,
        behind_proxies: Sequence[tuple[int, int]] = (),
        properties: Mapping[str, str] | None = None,
    ) -> None:
        self._properties = dict(properties or {})
        self.data_dir = data_dir.resolve()
        self.log_path = self.data_dir / "broker.log"
        self._port = port
        self._heap = heap
        self._detached = detached
        self._behind_proxies = behind_proxies
        self._state_path = self.data_dir / "broker.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._undo = contextlib.ExitStack()

    @property
    def bootstrap(self) -> str:
        """`host:port` of the running broker; BrokerError when none runs."""
        state = BrokerState.load(self._state_path)
        if state is None or self._running(state) is None:
            raise BrokerError(f"no broker runs in {self.data_dir}: start it with `msam kafka start`")
        return state.bootstrap

    @property
    def pid(self) -> int | None:
        """Process id of the running broker."""
        return self.status().pid

    def start(self, timeout: float = 60.0) -> Self:
        """Return once the broker answers a metadata request; one that runs already is taken as it is."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        # A second starter of this directory waits, and then finds the broker running.
        with distribution.alone(self.data_dir / "start.lock"):
            state = BrokerState.load(self._state_path)
            if state is not None and self._running(state) is not None:
                if self._port not in (None, state.port):
                    raise BrokerError(f"a broker of {self.data_dir} already serves {state.bootstrap}: stop it first")
            else:
                state = self._launch(state)
            try:
                self._serve(state, timeout)
            except BaseException:  # also Ctrl-C: a broker that nobody waits for must not stay
                self._stop_if_ours()
                raise
        return self

    def stop(self, timeout: float = 30.0) -> bool:
        """Stop the broker, whoever started it: SIGTERM, then SIGKILL after `timeout` s. False when none ran."""
        process = self._running(BrokerState.load(self._state_path))
        if process is not None:
            stop_process(process, self._process, timeout)
        self._process = None
        self._undo.close()
        return process is not None

    def status(self) -> KafkaStatus:
        """What runs now."""
        state = BrokerState.load(self._state_path)
        process = self._running(state)
        idle = KafkaStatus(False, None, None, str(self.data_dir), str(self.log_path), distribution.KAFKA_VERSION)
        if state is None or process is None:
            return idle
        with contextlib.suppress(psutil.Error):
            uptime, memory = time.time() - process.create_time(), process.memory_info().rss
            figures = {"uptime_seconds": uptime, "memory_bytes": memory}
            return replace(idle, running=True, bootstrap=state.bootstrap, pid=process.pid, **figures)
        return idle

    def _running(self, state: BrokerState | None) -> psutil.Process | None:
        """The broker's process: our own child, which needs no look at its arguments, or the one that `state` names."""
        if self._process is not None and self._process.poll() is None:  # poll also reaps it when it has died
            with contextlib.suppress(psutil.Error, subprocess.TimeoutExpired):
                process = psutil.Process(self._process.pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    return process
                self._process.wait(10)  # its first thread has ended and the others are about to
        return state.process() if state is not None else None

    def _launch(self, before: BrokerState | None) -> BrokerState:
        """Configure, format where needed, and start the Java process; `before` is the last run's state."""
        jars = distribution.class_path(self.data_dir / "classpath.json")
        port = self._port or free_port(before.port if before else None)
        controller = free_port(before.controller_port if before else None, other_than=port)
        properties, log_dir = self.data_dir / "server.properties", self.data_dir / "log"
        wanted = distribution.server_properties(port, controller, log_dir, self._behind_proxies, self._properties)
        distribution.write_properties(properties, wanted)
        distribution.format_storage(jars, properties, log_dir)
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_KEPT_BYTES:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        command = distribution.java_command(jars, "kafka.Kafka", str(properties), heap=self._heap)
        self._process = launch(command, self.log_path, detached=self._detached)
        if not self._detached:
            atexit.register(self._stop_if_ours)
            self._undo.callback(atexit.unregister, self._stop_if_ours)
            self._undo.enter_context(exit_on_terminate())
        state = BrokerState(self._process.pid, port, controller, str(properties))
        state.save(self._state_path)
        return state

    def _await_service(self, state: BrokerState, timeout: float) -> None:
        """Wait for a metadata answer; BrokerError names the log when the process dies or time runs out."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._running(state) is None:
                raise BrokerError(f"the broker died while starting: {log_tail(self.log_path)}; see {self.log_path}")
            if _answers(state.port):
                return
            time.sleep(0.05)
        raise BrokerError(f"the broker does not serve {state.bootstrap} after {timeout:g} s; see {self.log_path}")

    def _serve(self, state: BrokerState, timeout: float) -> None:
        """Wait for the broker; start it once more where its ports were taken between their choice and its bind."""
        try:
            self._await_service(state, timeout)
        except BrokerError:
            if not self._outrun(state):
                raise
            self._stop_if_ours()
            self._await_service(self._launch(state), timeout)

    def _outrun(self, state: BrokerState) -> bool:
        """Whether the broker died and another program has a port of its that was free when it was chosen."""
        ports = (state.port, state.controller_port)
        return self._port is None and self._running(state) is None and any(free_port(port) != port for port in ports)

    def _stop_if_ours(self) -> None:
        if self._process is not None:
            self.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._detached:
            self._stop_if_ours()


def _answers(port: int) -> bool:
    """True once the broker answers a metadata request that lists itself."""
    try:  # a plain connect first: librdkafka would back off, and log, after each refusal
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        client = AdminClient({"bootstrap.servers": f"127.0.0.1:{port}", "log_level": 0})
        return bool(client.list_topics(timeout=2).brokers)
    except KafkaException:
        return False


def running_bootstrap(home: Path) -> str | None:
    """`host:port` of the broker that `msam kafka start` runs under `home`, or None."""
    try:
        return LocalKafka(home / "kafka").bootstrap
    except MsamError:
        return None
