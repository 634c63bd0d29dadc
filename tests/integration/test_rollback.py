"""A model that is bad on purpose, yet sound, is promoted by hand while plays go on: it is rolled back by itself."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
import safetensors.torch
import torch

from msam import checkpoint
from msam.counts import FEATURES
from msam.golden import Golden
from streams.records import ModelVersion
from streams.serialization import encode
from streams.topics import MODEL_VERSIONS
from tests.integration.system import START, System
from tests.integration.taps import Answers, Place
from tests.integration.workers import ROOT

pytestmark = pytest.mark.xdist_group("models")  # see test_models.py

USERS, PLAYS = 40, 400


def version_of(known: Path, weight: float) -> ModelVersion:
    """A new version whose lists go by `weight` times the log of the listener's own plays, and by little else.

    It is sound in every check, as its golden answers are its own.
    """
    loaded = checkpoint.load(known)
    head, tensors = loaded.model.wide_head, safetensors.torch.load((known / checkpoint.WEIGHTS).read_bytes())
    assert head is not None
    with torch.no_grad():
        for layer, value in ((head.net[0], 1.0), (head.net[2], 1.0), (head.net[4], weight)):
            layer.weight.zero_()
            layer.bias.zero_()
            layer.weight[0, FEATURES.index("log own plays") if layer is head.net[0] else 0] = value
        head.others.zero_()
    stored = {name.removeprefix(checkpoint.GOLDEN): t for name, t in tensors.items() if name.startswith("golden/")}
    golden = Golden.from_arrays(loaded.manifest["golden"]["track_ids"], stored)
    folder = checkpoint.save(
        known.parent, loaded.model, loaded.track_ids, golden, arrays=loaded.arrays, extra=loaded.extra
    )
    manifest = checkpoint.read_manifest(folder)
    sha = str(manifest["weights"]["sha256"])
    return ModelVersion(str(manifest["version"]), parent=loaded.version, uri=folder.as_uri(), sha256=sha)


def listening(system: System) -> Iterator[tuple[str, str, float]]:
    """Listeners who hear the same five tracks again and again, each five of their own."""
    tracks, n = system.described, 0
    while True:
        user = n % USERS
        yield f"again-{user}", tracks[(5 * user + n // USERS % 5) % len(tracks)], START + 60.0 * (n // USERS)
        n += 1


def test_a_worse_model_is_rolled_back_by_itself(operated: System, tmp_path: Path) -> None:
    system, worker, plays = operated, operated.shared(), listening(operated)
    rows = {row["version"]: row for row in system.ask("models", "list")}
    first = next(name for name, row in rows.items() if "live" in row["channels"])
    folder = Path(unquote(urlparse(rows[first]["uri"]).path))
    versions = [version_of(folder, weight) for weight in (1000.0, -1000.0)]
    for version in versions:
        system.sender.send(MODEL_VERSIONS, version.key.encode(), encode(version), partition=0)
    system.sender.flush()
    good, bad = (version.version for version in versions)

    def serves(version: str) -> bool:
        return bool(worker.get("/health/ready")[1]["model"] == version)

    log, places = tmp_path / "watch.log", list[Place]()

    def play(count: int) -> None:
        places.extend(system.play([next(plays) for _ in range(count)]))

    env = {**system.env, "MSAM_ROLLBACK_PLAYS": str(PLAYS), "MSAM_ROLLBACK_MARGIN": "0.05"}
    command = [sys.executable, "-m", "streams.cli", "models", "watch", "--json"]
    with log.open("wb") as out, Answers(system.config) as answers:
        watch = subprocess.Popen(command, stdout=out, stderr=out, env=env, cwd=ROOT)
        try:
            play(10 * USERS)  # so that the good one has something to go by from its first list on
            answers.wait(places, 120)
            places.clear()
            assert system.ask("models", "promote", good)["version"] == good
            answers.until(lambda: serves(good), lambda: worker.tail(), 60)
            play(3 * PLAYS)
            answers.wait(places, 120)
            assert system.ask("models", "promote", bad)["version"] == bad
            deadline = time.monotonic() + 120
            while "is live again" not in log.read_text():
                told = f"{len(places)} plays; {log.read_text()}; {worker.tail()}"
                assert watch.poll() is None and time.monotonic() < deadline, told
                play(20)
                answers.take(0.1)
            answers.until(lambda: serves(good), lambda: worker.tail(), 60)
            play(20)
            found = answers.wait(places, 120)
        finally:
            watch.kill()
            watch.wait()
    assert all(answer.record is not None for answer in found), "no play dropped, none a dead letter"
    made = [answer.record.model_version for answer in found if answer.record is not None]
    assert set(made) == {good, bad} and made[-1] == good and made.count(bad) >= PLAYS
    row = next(row for row in system.ask("models", "list") if row["version"] == bad)
    assert row["state"] == "refused" and row["channels"] == [] and row["reason"].startswith("rolled back: hr@20 0.0")
    assert row["metrics"]["live_plays"] == PLAYS and row["metrics"]["live_hr@20"] < 0.05
    assert worker.metric("msam_models_rolled_back") == 1
    again = system.msam("models", "promote", bad)
    assert again.returncode == 1 and "rolled back" in again.stderr and "--even-refused" in again.stderr
    assert system.ask("models", "promote", first)["version"] == first  # for the tests after this
