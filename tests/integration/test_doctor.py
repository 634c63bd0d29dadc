"""The doctor on a real system: sound at first, then with planted faults, each found."""

from __future__ import annotations

import json
from typing import Any

from streams.partitioner import partition_for
from streams.records import Play, UserProfile
from streams.serialization import encode
from streams.topics import PLAYS
from tests.integration.system import START, System
from tests.integration.taps import Answers
from tests.integration.workers import Worker


def examined(system: System, *words: str, **env: str) -> tuple[int, dict[str, list[dict[str, Any]]], str]:
    """Exit status, findings that are wrong by check, standard error."""
    done = system.msam("doctor", "--seconds", "1", "--json", *words, env=env)
    body = json.loads(done.stdout)
    wrong: dict[str, list[dict[str, Any]]] = {}
    for finding in body["findings"]:
        assert bool(finding["remedy"]) == (not finding["ok"]), finding
        if not finding["ok"]:
            wrong.setdefault(finding["check"], []).append(finding)
    assert body["ok"] == (not wrong) == (done.returncode == 0)
    checks = {finding["check"] for finding in body["findings"]}
    assert checks >= {"kafka", "topics", "keys", "schemas", "registry", "disk", "clock", "model", "lag"} or words
    return done.returncode, wrong, done.stderr


def crowd(system: System) -> None:
    """Enough good plays that no older fault is among the newest records."""
    with Answers(system.config) as answers:
        answers.wait(system.play(system.some_plays("crowd", 200, 1200)), 90)
        system.wait_committed()


def test_planted_faults_are_found(operated: System, operated_worker: Worker) -> None:
    system = operated
    crowd(system)
    code, wrong, told = examined(system)
    assert (code, wrong, told) == (0, {}, "")
    home = partition_for(b"doctor-1", 4)
    system.sender.send(PLAYS, b"doctor-1", encode(Play("doctor-1", "t1", START)), partition=(home + 1) % 4)
    system.sender.send(PLAYS, b"doctor-1", encode(UserProfile("doctor-1")))
    system.sender.send(PLAYS, b"doctor-1", encode(Play("doctor-1", "t1", 4e9)))
    system.sender.flush()
    system.wait_committed()
    code, wrong, told = examined(system)
    assert code == 1 and wrong.keys() == {"keys", "schemas", "clock"} and "3 of " in told
    assert "murmur2_random" in wrong["keys"][0]["remedy"] and "plays" in wrong["schemas"][0]["text"]
    code, wrong, _ = examined(system, MSAM_REGISTRY_URL="http://127.0.0.1:9")
    assert code == 1 and "does not answer" in wrong["registry"][0]["text"]
    code, wrong, _ = examined(system, "--partitions", "8", "--group", "nobody")
    texts = " ".join(finding["text"] for finding in wrong["topics"])
    assert "plays: 4 partitions, should be 8" in texts and "nobody-windows-changelog: missing" in texts
    assert all("nobody stands at" in finding["text"] for finding in wrong["lag"]) and len(wrong["lag"]) >= 4
    code, wrong, _ = examined(system, "--bootstrap", "127.0.0.1:9")
    assert code == 1 and list(wrong) == ["kafka"]


def test_a_worker_that_is_gone(operated: System) -> None:
    system = operated
    system.quiet()
    places = system.play([("doctor-2", system.described[0], START)])
    _, wrong, _ = examined(system)
    assert f"msam stands at plays[{places[0][1]}]@" in wrong["lag"][0]["text"]
    assert "msam worker" in wrong["lag"][0]["remedy"]
    with system.worker("doctor"), Answers(system.config):
        system.wait_committed(60)
