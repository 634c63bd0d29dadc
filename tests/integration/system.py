"""A whole system for tests: topics, described tracks, real plays, a first model, workers on demand."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient

from msam.datasets.canonical import PlayRow, read_plays, read_tracks
from streams.records import Play, TrackMetadata
from streams.serialization import encode
from streams.topics import PLAYS, TRACK_FEATURES, TRACK_METADATA, create_topics, topic_specs
from tests.integration.registry_server import PLAY_ID
from tests.integration.taps import Answers, Place, Sender, Tap, ends, key_of
from tests.integration.workers import ROOT, Worker, running
from tests.recompute_windows import check

GROUP = "msam"
HISTORY = 1500
DESCRIBED = 300
START = 1_700_000_000.0  # when the plays that tests make up begin


class System:
    """One group on one broker. At most one shared worker runs at a time; tests may start others when it is stopped."""

    def __init__(self, bootstrap: str, home: Path, data: Path, registry_url: str, audio_roots: Sequence[Path]) -> None:
        self.home, self.bootstrap = home, bootstrap
        self.config = {"bootstrap.servers": bootstrap}
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MSAM_")},
            "MSAM_BOOTSTRAP": bootstrap,
            "MSAM_HOME": str(home),
            "MSAM_REGISTRY_URL": registry_url,
            "OMP_NUM_THREADS": "1",
        }
        self.sender = Sender(self.config)
        self.plays: list[PlayRow] = list(read_plays(data / "plays.csv"))[:HISTORY]
        self.tracks = {row.track_id: row for row in read_tracks(data / "tracks.csv")}
        self.described = list(dict.fromkeys(p.track_id for p in self.plays if p.track_id in self.tracks))[:DESCRIBED]
        self.model = ""  # the first version
        self._audio = [word for root in audio_roots for word in ("--audio-root", str(root))]
        self._shared: Worker | None = None

    # -- processes --------------------------------------------------------------------------------------------

    def msam(
        self, *words: str, timeout: float = 120, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The command, run as people run it."""
        command, env = [sys.executable, "-m", "streams.cli", *words], {**self.env, **(env or {})}
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT, env=env)

    def ask(self, *words: str, timeout: float = 120) -> Any:
        """The JSON document that a command prints, and nothing else on stdout."""
        done = self.msam(*words, "--json", timeout=timeout)
        assert done.returncode == 0, f"msam {' '.join(words)}: {done.returncode}\n{done.stderr[-2000:]}"
        return json.loads(done.stdout)

    def worker(
        self, name: str = "worker", roles: str | None = "plays", program: str = "streams.cli"
    ) -> AbstractContextManager[Worker]:
        """A worker with a data directory of this name, for the length of a block; it has these roles, None: all."""
        assert self._shared is None, "the shared worker still runs"
        return running(self._launch(name, roles, program))

    def _launch(self, name: str, roles: str | None = None, program: str = "streams.cli") -> Worker:
        words = [*self._audio, *(["--roles", roles] if roles else [])]
        return Worker(self.home / name, self.home / f"{name}.log", self.env, words, program)

    def shared(self) -> Worker:
        """The running worker that tests share."""
        if self._shared is not None and self._shared.process.poll() is not None:
            gone, self._shared = self._shared, None
            pytest.fail(f"the shared worker ended with {gone.process.returncode} before this test; {gone.tail()}")
        if self._shared is None:
            self._shared = self._launch("worker")
        return self._shared.wait_ready()

    def quiet(self) -> None:
        """Stop the shared worker."""
        if self._shared is not None:
            gone, self._shared = self._shared, None
            gone.stop()

    # -- data in ----------------------------------------------------------------------------------------------

    def play(self, plays: Iterable[tuple[str, str, float]]) -> list[Place]:
        """Publish plays (user, track, time) and wait for the broker; where they landed."""
        for user, track, at in plays:
            self.sender.send(PLAYS, user.encode(), encode(Play(user, track, at)))
        return self.sender.flush()

    def some_plays(self, prefix: str, users: int, count: int) -> list[tuple[str, str, float]]:
        """Plays of users that only this prefix has: real tracks in their real order, dealt out, a minute apart.

        Every seventh comes ten minutes late and some twice at one time, so that time and log order differ.
        """
        tracks = [row.track_id for row in self.plays]
        made = []
        for n in range(count):
            at = START + 60.0 * (n // users) - (600.0 if n % 7 == 3 else 0.0)
            made.append((f"{prefix}-{n % users}", tracks[n % len(tracks)], at))
        return made

    def describe(self, tracks: Iterable[TrackMetadata]) -> list[Place]:
        """Publish metadata."""
        for track in tracks:
            self.sender.send(TRACK_METADATA, track.track_id.encode(), encode(track))
        return self.sender.flush()

    def train(self, *more: str) -> Any:
        """`msam trainer --once`, short; the announced version."""
        done = self.msam("trainer", "--once", "--epochs", "1", "--max-seconds", "10", "--json", *more, timeout=280)
        (self.home / f"trainer-{time.time():.0f}.log").write_text(done.stderr)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    # -- what came of it --------------------------------------------------------------------------------------

    def recompute(self) -> dict[str, Any]:
        """The independent witness's report on everything in this broker."""
        return check(self.config, GROUP, ids=frozenset({PLAY_ID}))

    def committed(self) -> dict[int, int]:
        """The group's offsets of plays."""
        admin = AdminClient({**self.config, "log_level": 4})
        futures = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(GROUP)])
        found = futures[GROUP].result(30).topic_partitions
        return {tp.partition: tp.offset for tp in found if tp.topic == PLAYS}

    def wait_committed(self, timeout: float = 20.0) -> dict[int, int]:
        """The group's offsets once they stand at the end of every partition that holds plays."""
        deadline = time.monotonic() + timeout
        wanted = {p: end for p, end in ends(self.config, PLAYS).items() if end}
        while True:
            found = self.committed()
            if {p: offset for p, offset in found.items() if offset > 0} == wanted:
                return found
            assert time.monotonic() < deadline, f"committed {found}, the log ends at {wanted}"
            time.sleep(0.2)

    # -- the beginning ----------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Describe, play, train, answer. Leaves the shared worker running."""
        create_topics(self.config, topic_specs(4, GROUP))
        self.describe(TrackMetadata(*self.tracks[track]) for track in self.described)
        places = self.play((p.user_id, p.track_id, float(p.timestamp)) for p in self.plays)
        self._shared = worker = self._launch("worker")
        with Tap(self.config, TRACK_FEATURES, beginning=True) as features, Answers(self.config) as answers:
            parts: set[bytes] = set()

            def described() -> bool:
                assert worker.process.poll() is None, worker.tail()
                parts.update(k for m in features.messages if (k := key_of(m)) and k.startswith(b"metadata/"))
                return len(parts) >= len(self.described)

            features.until(described, lambda: f"{len(parts)} of {len(self.described)} tracks; {worker.tail()}", 120)
            self.model = self.train()["version"]
            worker.wait_ready()
            for answer in answers.wait(places):
                assert answer.record is not None, answer.reason
                assert answer.record.model_version == self.model
                assert len(answer.record.items) == 20
