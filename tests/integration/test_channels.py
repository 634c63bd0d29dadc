"""Who moves a channel, on a real broker: who is overtaken decides anew; commands verify before they move."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.channels import Versions, announce, pointing
from streams.local_kafka import LocalKafka
from streams.model_log import read_models
from streams.outgoing import Out
from streams.publishing import Publisher
from streams.records import ModelVersion
from streams.serialization import encode
from streams.topics import TRACK_FEATURES, create_topics, topic_specs
from streams.trainer import announcement
from tests.integration.workers import ROOT
from tests.unit.serving_data import features, made


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with LocalKafka(tmp_path_factory.mktemp("channels"), heap="256m") as broker:
        found = {"bootstrap.servers": broker.bootstrap}
        create_topics(found, topic_specs(1, "msam"))
        Publisher(found).send([Out(TRACK_FEATURES, f.key.encode(), encode(f), 0) for f in features()])
        yield found


def live(config: dict[str, str]) -> str | None:
    record = read_models(config)[1].get("live")
    return None if record is None else record.version


def test_an_announcer_that_is_overtaken_decides_anew(config: dict[str, str]) -> None:
    """A trainer's candidate is judged against nothing live; while it announces, another one goes live."""
    seen: list[str | None] = []

    def slow(versions: Versions, channels: Versions) -> list[ModelVersion]:
        seen.append(channels["live"].version if "live" in channels else None)
        if len(seen) == 1:
            announce(config, lambda known, at: announcement(ModelVersion("quick"), None, known, at))
        return announcement(ModelVersion("slow"), None, versions, channels)

    (made_of_it,) = announce(config, slow)
    assert seen == [None, "quick"] and live(config) == "quick"
    assert made_of_it.state == "refused" and "quick went live" in str(made_of_it.reason)
    versions, _ = read_models(config)
    assert {name: version.state for name, version in versions.items()} == {"quick": "accepted", "slow": "refused"}


def test_commands(config: dict[str, str], tmp_path: Path) -> None:
    first, second = made().version, made(2, 1).version
    announce(config, lambda known, at: [first, second, pointing("quick", known, at)])
    env = {name: value for name, value in os.environ.items() if not name.startswith("MSAM_")}
    env |= {"MSAM_HOME": str(tmp_path), "MSAM_BOOTSTRAP": config["bootstrap.servers"], "OMP_NUM_THREADS": "1"}

    def msam(*words: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "streams.cli", "models", *words]
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=200)
        return done.returncode, done.stdout, done.stderr

    code, out, _ = msam("verify", first.version, second.version, "quick", "--json")
    assert code == 1 and [row["sound"] for row in json.loads(out)] == [True, True, False]
    for version, before in ((first.version, "quick"), (second.version, first.version)):
        code, out, told = msam("promote", version, "--json")
        assert (code, told) == (0, "") and json.loads(out)["previous"] == before and live(config) == version
    code, out, told = msam("rollback", "--json")
    assert code == 0 and live(config) == first.version, told
    code, _, told = msam("promote", "quick")
    assert code == 1 and "names no artifact" in told and live(config) == first.version, "verified before it is moved"
