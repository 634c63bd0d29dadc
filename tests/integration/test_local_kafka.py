"""The local broker: serves, is found again, keeps its data, and leaves no process behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from streams import kafka_distribution, local_kafka
from streams.broker_process import BrokerState, free_port
from streams.kafka_distribution import BrokerError
from streams.local_kafka import LocalKafka, running_bootstrap
from streams.topics import TopicSpec, create_topics

MSAM = Path(sys.executable).with_name("msam")
RESOLVER = """
import sys, time
from pathlib import Path
import jgo
from streams.kafka_distribution import class_path
time.sleep(max(float(sys.argv[2]) - time.time(), 0))
class_path(Path(sys.argv[1]))
"""
OWNER = """
import sys, time
from pathlib import Path
from streams.local_kafka import LocalKafka
with LocalKafka(Path(sys.argv[1]), heap="256m") as broker:
    print(broker.pid, flush=True)
    time.sleep(120)
"""


def command(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"MSAM_HOME": str(home)}
    return subprocess.run([str(MSAM), *arguments], env=environment, capture_output=True, text=True, timeout=120)


def await_end(pid: int, seconds: float = 40) -> None:
    """Fail if the process still runs after `seconds`."""
    deadline = time.monotonic() + seconds
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} still runs"
        time.sleep(0.05)


def create(bootstrap: str, topic: str) -> None:
    assert create_topics({"bootstrap.servers": bootstrap}, [TopicSpec(topic, "none", 1, "delete")]) == [topic]


def write(bootstrap: str, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(topic, value)
    assert producer.flush(20) == 0


def read(bootstrap: str, topic: str, count: int) -> list[bytes]:
    config = {"bootstrap.servers": bootstrap, "group.id": topic, "auto.offset.reset": "earliest"}
    consumer = Consumer(config)
    consumer.subscribe([topic])
    try:
        messages = consumer.consume(count, timeout=20)
    finally:
        consumer.close()
    assert all(message.error() is None for message in messages)
    return [value for message in messages if (value := message.value()) is not None]


def test_serves_without_creating_topics_by_itself(kafka: LocalKafka, unique: str) -> None:
    client = AdminClient({"bootstrap.servers": kafka.bootstrap})
    client.list_topics(unique, timeout=10)  # asking for a topic by name is what would create it
    assert unique not in client.list_topics(timeout=10).topics
    create(kafka.bootstrap, unique)
    write(kafka.bootstrap, unique, b"a play")
    assert read(kafka.bootstrap, unique, 1) == [b"a play"]


def test_listens_on_the_loopback_interface_only(kafka: LocalKafka) -> None:
    pid = kafka.pid
    assert pid is not None
    listening = {c.laddr for c in psutil.Process(pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert len(listening) == 2  # clients and the controller
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


def test_a_second_start_finds_the_running_broker(kafka: LocalKafka) -> None:
    with LocalKafka(kafka.data_dir) as again:
        assert again.pid == kafka.pid
        assert again.bootstrap == kafka.bootstrap
    assert kafka.status().running, "whoever found the broker running must not stop it"
    with pytest.raises(BrokerError, match="already serves"):
        LocalKafka(kafka.data_dir, port=free_port()).start()


def test_data_and_port_survive_a_kill_and_a_second_start_resolves_nothing(
    tmp_path: Path, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalKafka(tmp_path, heap="256m") as broker:
        before = broker.status()
        create(broker.bootstrap, unique)
        write(broker.bootstrap, unique, b"kept")
        assert before.pid is not None
        os.kill(before.pid, signal.SIGKILL)
        await_end(before.pid)
        assert not broker.status().running

        def offline() -> list[Path]:
            raise AssertionError("the class path was resolved again")

        monkeypatch.setattr(kafka_distribution, "_resolve", offline)
        broker.start()
        assert broker.bootstrap == before.bootstrap
        assert broker.pid != before.pid
        assert read(broker.bootstrap, unique, 1) == [b"kept"]
        last = broker.pid
    assert last is not None
    await_end(last, seconds=0)


def test_resolving_in_several_processes_at_once(tmp_path: Path) -> None:
    env = os.environ | {"JGO_CACHE_DIR": str(tmp_path / "jgo")}  # nothing is resolved in it yet
    moment = str(time.time() + 8)
    found = [tmp_path / f"{n}.json" for n in range(6)]
    started = [
        subprocess.Popen([sys.executable, "-c", RESOLVER, str(path), moment], env=env, stderr=subprocess.PIPE)
        for path in found
    ]
    said = [process.communicate(timeout=240)[1].decode() for process in started]
    assert [process.returncode for process in started] == [0] * len(found), said
    assert len({path.read_text() for path in found}) == 1


def test_a_pid_given_to_another_program_is_not_the_broker(tmp_path: Path) -> None:
    state = BrokerState(os.getpid(), 20000, 20001, str(tmp_path / "server.properties"))
    state.save(tmp_path / "broker.json")
    broker = LocalKafka(tmp_path)
    assert not broker.status().running
    assert broker.stop() is False  # and this test goes on
    assert running_bootstrap(tmp_path.parent) is None


def test_a_broker_that_dies_names_its_log(tmp_path: Path) -> None:
    broker = LocalKafka(tmp_path, heap="1m")
    with pytest.raises(BrokerError, match=r"died while starting.*broker\.log|cannot format"):
        broker.start()
    assert not broker.status().running


def test_a_port_that_was_free_a_moment_ago(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Brokers that start at once may choose one port: the later takes another."""
    with socket.create_server(("127.0.0.1", free_port())) as other:
        taken = other.getsockname()[1]
        chosen = iter([free_port(), taken])
        monkeypatch.setattr(local_kafka, "free_port", lambda *near, **more: next(chosen, 0) or free_port(*near, **more))
        with LocalKafka(tmp_path, heap="256m") as broker:
            create(broker.bootstrap, "made")
            assert str(taken) not in (tmp_path / "server.properties").read_text()
            assert "Address already in use" in broker.log_path.read_text()
        with pytest.raises(BrokerError, match="died while starting"):
            LocalKafka(tmp_path, port=taken, heap="256m").start()


def test_a_broker_that_does_not_serve_in_time_is_stopped(tmp_path: Path) -> None:
    broker = LocalKafka(tmp_path, heap="256m")
    with pytest.raises(BrokerError, match=r"does not serve 127\.0\.0\.1:\d+ after 0\.01 s; see .*broker\.log"):
        broker.start(timeout=0.01)
    state = BrokerState.load(tmp_path / "broker.json")
    assert state is not None
    await_end(state.pid, seconds=0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_ends_with_its_owner(tmp_path: Path, number: signal.Signals) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert psutil.pid_exists(pid)
        owner.send_signal(number)
    finally:
        owner.communicate(timeout=60)
    await_end(pid)


def test_commands_start_status_stop(tmp_path: Path) -> None:
    port = free_port()
    try:
        started = command(tmp_path, "kafka", "start", "--port", str(port), "--json")
        assert started.returncode == 0, started.stderr
        shown = json.loads(started.stdout)
        assert (shown["running"], shown["bootstrap"]) == (True, f"127.0.0.1:{port}")
        assert running_bootstrap(tmp_path) == f"127.0.0.1:{port}"
        assert json.loads(command(tmp_path, "kafka", "status", "--json").stdout)["pid"] == shown["pid"]
        assert command(tmp_path, "topics", "create").returncode == 0  # finds the broker by itself
    finally:
        stopped = command(tmp_path, "kafka", "stop", "--json")
    assert json.loads(stopped.stdout)["stopped"] is True
    assert json.loads(command(tmp_path, "kafka", "status", "--json").stdout)["running"] is False
    assert running_bootstrap(tmp_path) is None
    await_end(shown["pid"], seconds=0)
