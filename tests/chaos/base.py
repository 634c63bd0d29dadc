"""What every chaos run begins from: a broker's data with described tracks and a small trained model, made once."""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from streams.local_kafka import LocalKafka
from tests.integration.workers import ROOT, Worker, running

USERS, TRACKS, PLAYS = 48, 120, 2000  # simulated


def options(what: str | None, out: str) -> argparse.ArgumentParser:
    """What every run is told; its report goes to `out` if nothing else is said."""
    parser = argparse.ArgumentParser(description=(what or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--home", type=Path, default=ROOT / "build" / "chaos")
    parser.add_argument("--out", type=Path, default=Path(out))
    return parser


def environment(bootstrap: str, home: Path, models: Path) -> dict[str, str]:
    """The environment of every process of a run."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("MSAM_")}
    settings = {"MSAM_BOOTSTRAP": bootstrap, "MSAM_HOME": str(home), "MSAM_MODEL_STORE": str(models)}
    return mine | settings | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def msam(env: dict[str, str], *words: str, timeout: float = 300) -> str:
    """Run a command of the program; what it printed."""
    command = [sys.executable, "-m", "streams.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT, env=env)
    if done.returncode != 0:
        raise SystemExit(f"msam {' '.join(words)} failed: {done.stderr[-2000:]}")
    return done.stdout


def prepared(folder: Path) -> Path:
    """The base in `folder`, made where it is missing or was made by another version of the method."""
    stamp, wanted = folder / "made-of", _fingerprint()
    if not (stamp.exists() and stamp.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _make(folder)
        stamp.write_text(wanted)
    return folder


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for part in ("msam", "schemas"):
        for path in sorted((ROOT / part).rglob("*")):
            if path.suffix in (".py", ".avsc"):
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _make(folder: Path) -> None:
    data, models = folder / "data", folder / "models"
    with LocalKafka(folder / "kafka", heap="384m") as broker:
        env = environment(broker.bootstrap, folder / "home", models)
        sizes = ("--users", str(USERS), "--tracks", str(TRACKS), "--plays", str(PLAYS), "--clips", "0")
        msam(env, "simulate", "--out", str(data), *sizes)
        msam(env, "topics", "create")
        with running(Worker(folder / "worker", folder / "worker.log", env, [])) as worker:
            msam(env, "publish", "profiles", str(data / "users.csv"))
            msam(env, "publish", "tracks", str(data / "tracks.csv"))
            msam(env, "publish", "plays", str(data / "plays.csv"))
            _until(
                lambda: worker.get("/health/ready")[1]["catalogue_version"] >= TRACKS, "the tracks are not described"
            )
            msam(env, "trainer", "--once", "--epochs", "1", "--max-seconds", "15")
            worker.wait_ready()
            _until(lambda: worker.metric("msam_plays_total") >= PLAYS, "the history is not answered")
            time.sleep(1.5)  # the offsets of the last plays are committed within a second


def _until(done: Callable[[], bool], what: str, timeout: float = 240.0) -> None:
    deadline = time.monotonic() + timeout
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit(what)
        time.sleep(0.2)


def copied(base: Path, home: Path) -> Path:
    """A copy of the base's broker data, to be served and harmed."""
    kafka = home / "kafka"
    subprocess.run(["cp", "-a", "--sparse=always", str(base / "kafka"), str(kafka)], check=True)
    return kafka
