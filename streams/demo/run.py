"""Drives the demo: broker, topics, data in, worker, first model, plays, a second model under load, a cold track."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from confluent_kafka import KafkaError, Message, Producer

from msam.datasets.canonical import PlayRow, TrackRow, UserRow, read_plays, read_tracks, read_users
from streams import topics
from streams.demo.observe import Observer
from streams.demo.plan import Plan, make_plan
from streams.demo.summary import Place, Seen, cold_track, counts, latency_ms, prequential
from streams.errors import MsamError
from streams.log_reader import end_offsets, key_of, read_to_end
from streams.records import ModelVersion, Play, Recommendation, TrackFeature, TrackMetadata, UserProfile
from streams.serialization import decode, encode

Say = Callable[[str], None]
PACE = 300.0  # plays a second of the last phase
SWAP_PACE = 100.0  # while the second model is trained


@dataclass(slots=True)
class Sent:
    """When each play was produced, by its place in the log."""

    at: dict[Place, float] = field(default_factory=dict)
    failures: int = 0


class Demo:
    """One run in one directory."""

    def __init__(self, config: Mapping[str, str], out: Path, say: Say, env: Mapping[str, str]) -> None:
        self._config = dict(config)
        self._out = out
        self._say = say
        self._env = {**os.environ, **env}
        self._producer = Producer(
            {
                **config,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 5,  # as producers do by default since Kafka 4
                "compression.type": "lz4",
            }
        )
        self.sent = Sent()

    # -- processes --------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def worker(self, audio_root: Path | None) -> Iterator[str]:
        """A worker for the length of the block; yields its URL."""
        arguments = ["worker", "--data-dir", str(self._out / "worker"), "--web-port", "0"]
        if audio_root is not None:
            arguments += ["--audio-root", str(audio_root)]
        log_path = self._out / "worker.log"
        with log_path.open("wb") as log, self._spawn(arguments, log) as process:
            try:
                yield self._url(process, log_path)
            finally:
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(30)
                if process.poll() is None:
                    process.kill()
        if process.returncode not in (0, -signal.SIGINT, 130):
            raise MsamError(f"the worker ended with {process.returncode}; its log is {log_path}")

    def train(self, beside: Callable[[], bool] = lambda: False) -> dict[str, Any]:
        """Run the trainer once; `beside` is called again and again until the trainer ends or it says no."""
        path = self._out / "trainer.log"
        with path.open("ab") as log, self._spawn(["trainer", "--once", "--json"], log, subprocess.PIPE) as process:
            while process.poll() is None and beside():
                pass
            answer, _ = process.communicate()
        if process.returncode != 0:
            raise MsamError(f"the trainer failed; its log is {path}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def _spawn(self, arguments: Sequence[str], log: IO[bytes], stdout: Any = None) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "streams.cli", *arguments]
        return subprocess.Popen(command, stdout=stdout or log, stderr=log, env=self._env, start_new_session=True)

    def _url(self, process: "subprocess.Popen[bytes]", log_path: Path) -> str:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            for line in log_path.read_text(errors="replace").splitlines():
                if "metrics and lists at " in line:
                    return line.rpartition(" ")[2]
            time.sleep(0.1)
        raise MsamError(f"the worker did not start; its log is {log_path}")

    # -- data in ----------------------------------------------------------------------------------------------

    def describe(self, tracks: Sequence[TrackRow], users: Sequence[UserRow]) -> None:
        """Publish profiles and track metadata."""
        for user in users:
            profile = UserProfile(user.user_id, user.gender, user.age, user.country)
            self._produce(topics.USER_PROFILES, user.user_id, encode(profile))
        for track in tracks:
            self._produce(topics.TRACK_METADATA, track.track_id, encode(TrackMetadata(*track)))
        self._flush()

    def upload(self, audio: Path, tracks: Sequence[TrackRow]) -> int:
        """Publish the clips of these tracks by reference; returns how many there are."""
        from streams.sources import audio as audio_events

        known = {track.track_id for track in tracks}
        events = [event for event in audio_events(audio) if event.record.key in known]
        for event in events:
            self._produce(topics.AUDIO_UPLOADS, event.record.key, encode(event.record))
        self._flush()
        return len(events)

    def wait_for_features(self, described: int, heard: int) -> None:
        """Wait until the workers have derived every feature."""
        done, position, since = 0, {0: 0}, time.monotonic()
        parts = {"metadata": 0, "audio": 0}
        while parts["metadata"] < described or parts["audio"] + self._dead_audio() < heard:
            for message in read_to_end(self._config, topics.TRACK_FEATURES, position):
                position[0] = (message.offset() or 0) + 1
                part = (key_of(message) or b"").decode().partition("/")[0]
                parts[part] = parts.get(part, 0) + 1
            if sum(parts.values()) > done:
                done, since = sum(parts.values()), time.monotonic()
                self._say(f"features: {parts['metadata']}/{described} tracks, {parts['audio']}/{heard} clips")
            elif time.monotonic() - since > 90:
                raise MsamError(f"features stopped at {parts}; see {self._out / 'worker.log'}")
            time.sleep(0.5)

    def _dead_audio(self) -> int:
        letters = read_to_end(self._config, topics.DEAD_LETTERS)
        return sum(dict(m.headers() or []).get("__streams.errors.topic") == b"audio-uploads" for m in letters)

    def play(self, plays: Sequence[PlayRow], rate: float | None = None) -> None:
        """Publish plays, evenly paced where a rate is given, and note when each was produced."""
        started = time.perf_counter()
        for count, play in enumerate(plays):
            if rate is not None:
                due = started + count / rate
                while (wait := due - time.perf_counter()) > 0:
                    self._producer.poll(min(wait, 0.01))
            self._play(play)
        self._flush()

    def _play(self, play: PlayRow) -> None:
        value = encode(Play(play.user_id, play.track_id, float(play.timestamp)))
        at = time.time()

        def report(error: KafkaError | None, message: Message) -> None:
            partition, offset = message.partition(), message.offset()
            if error is not None or partition is None or offset is None:
                self.sent.failures += 1
            else:
                self.sent.at[partition, offset] = at

        self._produce(topics.PLAYS, play.user_id, value, report)

    def _produce(self, topic: str, key: str, value: bytes, report: Any = None) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key.encode(), on_delivery=report)
                break
            except BufferError:
                self._producer.poll(0.1)
        self._producer.poll(0)

    def _flush(self) -> None:
        if self._producer.flush(60) or self.sent.failures:
            raise MsamError("the broker did not take every record")

    def wait_live(self, url: str, version: str) -> None:
        """Wait until the worker serves a version."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health/ready", timeout=2) as answer:
                if json.load(answer)["model"] == version:
                    return
            time.sleep(0.1)
        raise MsamError(f"the worker does not serve model {version}; see {self._out / 'worker.log'}")


def run(
    config: Mapping[str, str], data: Path, out: Path, count: int | None, env: Mapping[str, str], say: Say
) -> dict[str, Any]:
    """The whole demo against a broker whose topics are fresh; returns the summary of cli.md."""
    tracks = read_tracks(data / "tracks.csv") if (data / "tracks.csv").exists() else []
    users = read_users(data / "users.csv") if (data / "users.csv").exists() else []
    plan = make_plan(read_plays(data / "plays.csv"), tracks, count)
    people = {play.user_id for play in plan.plays}
    users = [user for user in users if user.user_id in people]
    audio = data / "audio" if (data / "audio").is_dir() else None
    demo = Demo(config, out, say, env)
    with demo.worker(audio) as url, contextlib.closing(_Stopping(Observer(config))) as held:
        observer = held.observer
        say(f"describing {len(plan.tracks)} tracks and {len(users)} listeners")
        demo.describe(plan.tracks, users)
        clips = demo.upload(audio, plan.tracks) if audio else 0
        demo.wait_for_features(len(plan.tracks), clips)
        say(f"history: {len(plan.history)} plays, then the first model")
        demo.play(plan.history)
        first = end_offsets(config, topics.PLAYS)
        versions = [demo.train()]
        demo.wait_live(url, versions[0]["version"])
        say(f"model {versions[0]['version']} is live")
        _expect(observer, len(plan.history), out)
        rate = _saturate(demo, observer, plan, out, say)
        versions.append(_train_under_load(demo, url, plan, say))
        _expect(observer, len(plan.plays) - len(plan.paced), out)
        paced, cold = _paced(demo, plan, say)
        _expect(observer, len(plan.plays), out)
    seen = [Seen(at, decode(Recommendation, value)) for at, value in observer.values]
    return {
        **counts(_places(config), seen, _dead_plays(config)),
        "plays_per_second": round(rate, 1),
        "latency_ms": latency_ms({place: at for place, at in demo.sent.at.items() if at >= paced}, seen),
        "prequential": prequential(seen, first),
        "model_versions": _versions(config, seen),
        "cold_track": None
        if cold is None or plan.cold is None
        else cold_track(plan.cold.track_id, _feature_version(config, plan.cold.track_id), cold, seen, plan.listeners),
        "tracks": len({play.track_id for play in plan.plays} | {track.track_id for track in plan.tracks}),
        "users": len(people),
    }


@dataclass(slots=True)
class _Stopping:
    observer: Observer

    def close(self) -> None:
        self.observer.stop()


def _expect(observer: Observer, count: int, out: Path) -> None:
    if not observer.wait_for(count, 60):
        raise MsamError(f"{len(observer.values)} lists for {count} plays, and no more came; see {out / 'worker.log'}")


def _saturate(demo: Demo, observer: Observer, plan: Plan, out: Path, say: Say) -> float:
    """Publish a block at once and see how fast its lists come."""
    say(f"saturation: {len(plan.burst)} plays at once")
    before, started = len(observer.values), time.time()
    demo.play(plan.burst)
    _expect(observer, before + len(plan.burst), out)
    last = observer.values[before + len(plan.burst) - 1][0]
    rate = len(plan.burst) / (last - started)
    say(f"{rate:,.0f} plays a second")
    return rate


def _train_under_load(demo: Demo, url: str, plan: Plan, say: Say) -> dict[str, Any]:
    """Train the second model while plays go on; it is swapped in between two micro-batches."""
    say(f"second model while plays go on at {SWAP_PACE:.0f} a second")
    cut = len(plan.swap) - len(plan.swap) // 3
    left, last = list(plan.swap[:cut]), plan.swap[cut:]  # the last while the worker loads what was trained

    def more() -> bool:
        part, left[:] = left[:20], left[20:]
        demo.play(part, SWAP_PACE)
        return bool(left)

    version = demo.train(more)
    say(f"model {version['version']}: {version['state']}" + (f" ({version['reason']})" if version["reason"] else ""))
    demo.play(left)
    demo.play(last, SWAP_PACE)
    if version["state"] == "accepted":
        demo.wait_live(url, version["version"])
    return version


def _paced(demo: Demo, plan: Plan, say: Say) -> tuple[float, float | None]:
    """The last phase at a steady rate, with the cold track described on the way; when it and the track began."""
    say(f"{len(plan.paced)} plays at {PACE:.0f} a second; a new track appears on the way")
    cut = len(plan.paced) // 6
    started = time.time()
    demo.play(plan.paced[:cut], PACE)
    described = None
    if plan.cold is not None:
        described = time.time()
        demo.describe([plan.cold], [])
    demo.play(plan.paced[cut:], PACE)
    return started, described


def _places(config: Mapping[str, str]) -> list[Place]:
    return [(m.partition() or 0, m.offset() or 0) for m in read_to_end(config, topics.PLAYS)]


def _dead_plays(config: Mapping[str, str]) -> list[Place]:
    found = []
    for message in read_to_end(config, topics.DEAD_LETTERS):
        headers = dict(message.headers() or [])
        if headers.get("__streams.errors.topic") == b"plays":
            partition, offset = headers["__streams.errors.partition"], headers["__streams.errors.offset"]
            found.append((int(partition or 0), int(offset or 0)))
    return found


def _versions(config: Mapping[str, str], seen: Sequence[Seen]) -> list[dict[str, Any]]:
    """Every announced version, and how many lists it made."""
    out = []
    for message in read_to_end(config, topics.MODEL_VERSIONS):
        record = decode(ModelVersion, message.value() or b"")
        if record.channel is None:
            made = sum(s.record.model_version == record.version for s in seen)
            out.append({"version": record.version, "state": record.state, "reason": record.reason, "lists": made})
    return out


def _feature_version(config: Mapping[str, str], track_id: str) -> int:
    """The catalogue version that first holds the track's metadata."""
    for message in read_to_end(config, topics.TRACK_FEATURES):
        value = message.value()
        if value is not None and key_of(message) == f"metadata/{track_id}".encode():
            assert decode(TrackFeature, value).track_id == track_id
            return (message.offset() or 0) + 1
    return 2**62
