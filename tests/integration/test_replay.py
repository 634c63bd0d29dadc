"""`msam replay` beside a live system: the same bytes again, as recorded or pinned, cut off and gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.records import TrackMetadata
from streams.topics import PLAYS, RECOMMENDATIONS
from tests.integration.system import START, System
from tests.integration.taps import Answers, Tap, ends, key_of
from tests.integration.workers import ROOT, Worker

Value = tuple[int, bytes | None, bytes | None]


def values_of(system: System, topic: str, count: int) -> list[Value]:
    """Partition, key and value of everything in a topic that holds `count` records, by partition and offset."""
    with Tap(system.config, topic, beginning=True) as tap:
        tap.until(lambda: len(tap.messages) >= count, lambda: f"{len(tap.messages)} of {count} in {topic}", 30)
        assert tap.take(0.5) == [], f"more than {count} records in {topic}"
        ordered = sorted(tap.messages, key=lambda m: (m.partition() or 0, m.offset() or 0))
        return [(m.partition() or 0, key_of(m), m.value()) for m in ordered]


@pytest.fixture
def untouched(system: System, worker: Worker) -> Iterator[None]:
    """Nothing of the live group and its topics may change in the test's replays."""
    topics = (RECOMMENDATIONS, PLAYS, "msam-windows-changelog", "msam-profiles-changelog")
    before = system.wait_committed(), {topic: ends(system.config, topic) for topic in topics}
    yield
    assert (system.committed(), {topic: ends(system.config, topic) for topic in topics}) == before


@pytest.fixture
def grown(system: System, worker: Worker) -> list[Value]:
    """Live records made while the catalogue grew, of users of this test's own; by partition and offset."""
    users = [f"grown-{n}-{time.time():.0f}" for n in range(5)]
    tracks = system.described
    with Answers(system.config) as answers:
        for step in range(3):
            plays = [
                (user, tracks[(11 * n + 17 * u + step) % 300], START + 40 * step + n)
                for n in range(8)
                for u, user in enumerate(users)
            ]
            answers.wait(system.play(plays))
            version = worker.get("/health/ready")[1]["catalogue_version"]
            system.describe([TrackMetadata(f"grown-{time.time_ns()}", "A new song", f"artist-{step}", "Somebody")])
            deadline = time.monotonic() + 60
            while worker.metric("msam_catalogue_version") <= version:
                assert time.monotonic() < deadline, worker.tail()
                time.sleep(0.05)
        answers.wait(system.play((user, tracks[0], START + 1000) for user in users))
        found = [a for many in answers.by_place.values() for a in many if a.record and a.record.user_id in users]
    assert len({a.record.catalogue_version for a in found if a.record}) >= 3, "the catalogue grew"
    ordered = sorted(found, key=lambda a: (a.message.partition() or 0, a.message.offset() or 0))
    return [(a.message.partition() or 0, key_of(a.message), a.message.value()) for a in ordered]


@pytest.fixture
def only(grown: list[Value], tmp_path: Path) -> list[str]:
    """The option that keeps a replay to these users."""
    path = tmp_path / "users"
    path.write_bytes(b"\n".join(sorted({key or b"" for _, key, _ in grown})))
    return ["--users", str(path)]


def test_as_recorded_equals_the_live_records(
    system: System, grown: list[Value], only: list[str], untouched: None, unique: str
) -> None:
    words = ["replay", "--from", "0", *only, "--as-recorded", "--to-topic", unique]
    plan = system.ask(*words)
    assert (plan["executed"], plan["as_recorded"], plan["model"], plan["users"]) == (False, True, None, 5)
    done = system.ask(*words, "--execute")
    assert (done["lists"], done["identical"], done["different"], done["unrecorded"]) == (len(grown), len(grown), 0, 0)
    assert values_of(system, unique, len(grown)) == grown


def test_everything_as_recorded(system: System, worker: Worker, untouched: None, unique: str) -> None:
    """Every live record of this broker, whatever models and tracks came and went."""
    plays = system.recompute()
    done = system.ask("replay", "--from", "offset:0", "--as-recorded", "--to-topic", unique, "--execute", timeout=300)
    assert done["different"] == 0 and done["identical"] == done["lists"] == plays["recommendations"]


def test_cut_off_and_gone_on_with(
    system: System, grown: list[Value], only: list[str], untouched: None, unique: str
) -> None:
    words = ["replay", "--from", "0", *only, "--to-topic"]
    whole = system.ask(*words, f"{unique}-whole", "--execute")
    assert whole["lists"] == len(grown) and not whole["resumed"]
    cut = f"{unique}-cut"
    command = [sys.executable, "-m", "streams.cli", *words, cut, "--execute", "--rate", "10"]
    slow = subprocess.Popen(command, env=system.env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_some(system, cut, 25)
    finally:
        os.kill(slow.pid, signal.SIGKILL)
        slow.wait()
    # A new track between the two halves: the plan keeps the catalogue that it began with.
    system.describe([TrackMetadata(f"between-{time.time_ns()}", "Between", "artist-9", "Nobody")])
    rest = system.ask(*words, cut, "--execute")
    assert rest["resumed"] and 0 < rest["lists"] <= len(grown) - 20
    assert rest["catalogue_version"] == whole["catalogue_version"]
    assert values_of(system, cut, len(grown)) == values_of(system, f"{unique}-whole", len(grown))
    again = system.ask(*words, cut, "--execute")
    assert (again["resumed"], again["left"], again["lists"]) == (True, 0, 0)
    other = system.msam("replay", "--from", "1", *only, "--to-topic", cut, "--execute")
    assert other.returncode == 1 and "asked for otherwise" in other.stderr


def wait_for_some(system: System, topic: str, count: int) -> None:
    """Until a topic, which may not be there yet, holds so many records."""
    deadline = time.monotonic() + 90
    while True:
        try:
            if sum(ends(system.config, topic).values()) >= count:
                return
        except Exception as error:  # the topic is not there yet
            assert time.monotonic() < deadline, error
        assert time.monotonic() < deadline, f"fewer than {count} records in {topic}"
        time.sleep(0.1)


def test_versions_and_ranges_can_be_named(
    system: System, grown: list[Value], only: list[str], untouched: None, unique: str
) -> None:
    plan: Any = system.ask("replay", "--from", "offset:3", "--to", "offset:7", "--to-topic", unique)
    assert set(map(tuple, plan["offsets"].values())) == {(3, 7)} and plan["records"] == 16
    older = plan["catalogue_version"] - 1
    done = system.ask("replay", "--from", "0", *only, "--catalogue", str(older), "--to-topic", unique, "--execute")
    assert done["catalogue_version"] == older and done["lists"] == len(grown)
    assert sum(ends(system.config, unique).values()) > 0
    for words, why in (
        (["--to-topic", RECOMMENDATIONS], "never writes to a live topic"),
        (["--to-topic", f"{unique}-x", "--model", "nobody"], "no model version nobody"),
        (["--to-topic", f"{unique}-x", "--catalogue", "99999999"], "there are versions 1 to"),
        (["--to-topic", "track-words", "--from", "offset:0=1"], "for every partition"),
    ):
        refused = system.msam("replay", "--from", "0", *words, "--execute")
        assert refused.returncode in (1, 2) and why in refused.stderr, refused.stderr
    assert json.loads(system.msam("replay", "--from", "0", "--to-topic", f"{unique}-x", "--json").stdout)["left"] > 0
