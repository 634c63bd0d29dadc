"""`msam demo`, whole, on real plays: every figure of its summary, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.integration.workers import ROOT, members

PLAYS = 1500


def test_demo(data_dir: Path, tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MSAM_")}
    words = ["demo", "--plays", str(PLAYS), "--data", str(data_dir / "classic_rock"), "--json"]
    log_path, answer_path = tmp_path / "log", tmp_path / "answer"
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with log_path.open("wb") as log, answer_path.open("wb") as answer:
        process = subprocess.Popen(
            [sys.executable, "-m", "streams.cli", *words],
            stdout=answer,
            stderr=log,
            env={**env, "TMPDIR": str(temporary)},
            cwd=ROOT,
            start_new_session=True,
        )
        try:
            code = process.wait(270)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
    assert code == 0, log_path.read_text()[-3000:]
    left = members(process.pid)
    users = [line for line in _command_lines() if str(temporary) in line]
    assert not left and not users, f"processes are left behind: {left} {users}"
    kept = [path for path in temporary.iterdir() if not path.name.startswith("torchinductor_")]  # torch's own cache
    assert kept == [], "the temporary directory is gone"
    lines = answer_path.read_text().splitlines()
    assert len(lines) == 1, "one JSON document, nothing else"
    check(json.loads(lines[0]))


def _command_lines() -> list[str]:
    """Arguments of every process; the demo's own start new sessions, but all name its directory."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
    return found


def check(summary: dict[str, object]) -> None:
    """The fields of the command line's description, and figures that can be true."""
    names = ["plays", "recommendations", "lost", "duplicates", "plays_per_second", "latency_ms", "prequential"]
    assert list(summary) == [*names, "model_versions", "cold_track", "tracks", "users", "partitions"]
    assert [summary[n] for n in ("plays", "recommendations", "lost", "duplicates")] == [PLAYS, PLAYS, 0, 0]
    rate, latency, hits = summary["plays_per_second"], summary["latency_ms"], summary["prequential"]
    assert isinstance(rate, float) and rate > 10
    assert isinstance(latency, dict) and list(latency) == ["p50", "p99"] and 0 < latency["p50"] <= latency["p99"]
    assert isinstance(hits, dict) and list(hits) == ["hr@10", "hr@20", "mrr@20"]
    assert 0 < hits["mrr@20"] <= hits["hr@20"] and hits["hr@10"] <= hits["hr@20"] <= 1
    versions = summary["model_versions"]
    assert isinstance(versions, list) and len(versions) == 2
    assert {"version", "state", "lists"} <= set(versions[0]) and versions[0]["state"] == "accepted"
    assert sum(version["lists"] for version in versions) == PLAYS
    cold = summary["cold_track"]
    assert isinstance(cold, dict) and {"track_id", "seconds_to_first_recommendation"} <= set(cold)
    assert cold["seconds_to_scored"] is not None and 0 < cold["seconds_to_scored"] < 30
    assert isinstance(summary["users"], int) and 15 <= summary["users"] <= 25
    assert isinstance(summary["tracks"], int) and summary["tracks"] > 300
