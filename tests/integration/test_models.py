"""Models promoted, rolled back and verified while plays go on; bad artifacts; trainers that are killed or meet."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest
import safetensors.torch
import torch

from msam.checkpoint import MANIFEST, WEIGHTS, load
from streams.records import ModelVersion
from streams.serialization import encode
from streams.topics import MODEL_VERSIONS
from tests.integration.system import START, System
from tests.integration.taps import Answers, Place
from tests.integration.workers import ROOT, Worker

# With a system of their own: they take as long as all others that share one.
pytestmark = pytest.mark.xdist_group("models")

Tensors = dict[str, torch.Tensor]


def live(system: System) -> str:
    return next(str(row["version"]) for row in system.ask("models", "list") if "live" in row["channels"])


def folder_of(system: System, version: str) -> Path:
    (row,) = [row for row in system.ask("models", "list") if row["version"] == version]
    return Path(unquote(urlparse(row["uri"]).path))


def announce(system: System, *records: ModelVersion) -> None:
    for record in records:
        system.sender.send(MODEL_VERSIONS, record.key.encode(), encode(record), partition=0)
        system.sender.flush()


@pytest.fixture(scope="module")
def two(operated: System) -> tuple[str, str]:
    """The first model, and a second one that was trained from it and is live."""
    operated.play(operated.some_plays("two", 3, 30))  # something that the first has not seen
    second = operated.train("--margin", "1")
    assert second["state"] == "accepted" and live(operated) == second["version"] and second["parent"]
    return str(second["parent"]), str(second["version"])


def serves(worker: Worker, version: str) -> Callable[[], bool]:
    return lambda: worker.get("/health/ready")[1]["model"] == version


def test_rollback_and_promotion_under_load(operated: System, two: tuple[str, str]) -> None:
    system, (first, second) = operated, two
    worker = system.shared()
    places: list[Place] = []
    plays = iter(system.some_plays("roll", 20, 40_000))
    stop = threading.Event()

    def load_it() -> None:
        while not stop.wait(0.05):  # about 200 plays a second
            places.extend(system.play([next(plays) for _ in range(10)]))

    with Answers(system.config) as answers:
        player = threading.Thread(target=load_it)
        player.start()
        try:
            answers.until(serves(worker, second), lambda: f"{second} is not served", 60)
            answers.until(lambda: len(answers.by_place) > 100, lambda: "no answers", 60)
            done = system.ask("models", "rollback")
            assert done == {"channel": "live", "version": first, "previous": second}
            answers.until(serves(worker, first), lambda: f"no roll-back; {worker.tail()}", 60)
            seen = len(answers.by_place)
            answers.until(lambda: len(answers.by_place) > seen + 100, lambda: "no answers", 60)
            assert system.ask("models", "promote", second)["version"] == second
            answers.until(serves(worker, second), lambda: f"no promotion; {worker.tail()}", 60)
            seen = len(answers.by_place)
            answers.until(lambda: len(answers.by_place) > seen + 100, lambda: "no answers", 60)
        finally:
            stop.set()
            player.join(30)
        found = answers.wait(places, 90)
    by_partition: dict[int, list[str]] = {}
    for place, answer in zip(places, found, strict=True):
        assert answer.record is not None, answer.reason
        by_partition.setdefault(place[1], []).append(answer.record.model_version)
    for versions in by_partition.values():
        turns = [version for n, version in enumerate(versions) if n == 0 or versions[n - 1] != version]
        assert turns == [second, first, second], "each record names one version, and they change when told to"
    again = system.msam("models", "promote", second)
    assert again.returncode == 1 and "already" in again.stderr


def rewrite(folder: Path, change: Callable[[Tensors], object]) -> str:
    """Change tensors and make the manifest's sha256 agree, so that later checks are reached; the new sha256."""
    data = (folder / WEIGHTS).read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    tensors = safetensors.torch.load(data)
    change(tensors)
    return rehash(folder, safetensors.torch.save(tensors, metadata=header["__metadata__"]))


def rehash(folder: Path, data: bytes) -> str:
    (folder / WEIGHTS).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    edit(folder, lambda manifest: manifest["weights"].update(sha256=digest))
    return digest


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> str:
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return str(manifest["weights"]["sha256"])


class Payload:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "pickle was executed")


def test_bad_artifacts_are_refused_and_the_old_one_serves(
    operated: System, two: tuple[str, str], tmp_path: Path
) -> None:
    system, (_, second) = operated, two
    worker, good, trap = system.shared(), folder_of(operated, second), tmp_path / "executed"
    whole = (good / WEIGHTS).read_bytes()

    def spoil(tensors: Tensors) -> None:
        next(t for name, t in tensors.items() if name.startswith("network/") and t.is_floating_point()).view(-1)[0] = (
            torch.nan
        )

    def reshape(tensors: Tensors) -> None:
        name = next(name for name, t in tensors.items() if name.startswith("network/") and t.dim() == 2)
        tensors[name] = tensors[name][:-1].clone()

    def shift(tensors: Tensors) -> None:
        for name, tensor in tensors.items():
            if name.startswith("network/") and tensor.is_floating_point():
                tensor.add_(0.1)

    digest, half = hashlib.sha256(whole).hexdigest(), len(whole) // 2
    flipped = whole[:half] + bytes([whole[half] ^ 0xFF]) + whole[half + 1 :]
    kinds: dict[str, tuple[Callable[[Path], object], str]] = {
        "corrupt": (lambda f: (f / WEIGHTS).write_bytes(flipped), "sha256"),
        "truncated": (lambda f: rehash(f, whole[: len(whole) // 2]), "not a readable weights file"),
        "nan": (lambda f: rewrite(f, spoil), "not finite"),
        "shape": (lambda f: rewrite(f, reshape), "does not fit the configuration"),
        "golden": (lambda f: rewrite(f, shift), "golden window"),
        "catalogue": (lambda f: edit(f, lambda m: m["extra"].update(catalogue_version=10**9)), "needs catalogue"),
        "ids": (lambda f: edit(f, lambda m: m["track_ids"].reverse()), "not those of the weights"),
        "pickle": (lambda f: rehash(f, pickle.dumps(Payload(trap))), "not a readable weights file"),
        "empty": (lambda f: (f / MANIFEST).unlink(), "cannot read"),
    }
    for name, (spoil_it, _) in kinds.items():
        copy = shutil.copytree(good, good.parent / f"bad-{name}")
        spoil_it(copy)
        weights = (copy / WEIGHTS).read_bytes()
        sha = digest if name == "corrupt" else hashlib.sha256(weights).hexdigest()
        announce(system, ModelVersion(f"bad-{name}", uri=copy.as_uri(), sha256=sha, state="refused", reason="planted"))
    names = [f"bad-{name}" for name in kinds]
    done = system.msam("models", "verify", *names, second, "--json", timeout=200)
    assert (
        done.returncode == 1
        and done.stderr
        == f"error: {len(names)} of {len(names) + 1} versions cannot be served; workers refuse them too\n"
    )
    told = {row["version"]: row["reason"] for row in json.loads(done.stdout)}
    assert told.pop(second) is None
    for name, (_, words) in kinds.items():
        assert words in told[f"bad-{name}"], told[f"bad-{name}"]
    refused = system.msam("models", "promote", "bad-nan", "--even-refused")
    assert refused.returncode == 1 and "not finite" in refused.stderr and live(system) == second
    gated = system.msam("models", "promote", "bad-nan")
    assert gated.returncode == 1 and "planted" in gated.stderr
    # And past the command, as a broken trainer would: the worker looks for itself.
    for name in ("pickle", "golden"):
        before = worker.metric("msam_models_refused_total")
        announce(system, ModelVersion(f"bad-{name}", channel="live", parent=second, state="channel"))
        with Answers(system.config) as answers:
            answers.until(
                lambda before=before: worker.metric("msam_models_refused_total") > before, lambda: worker.tail(), 60
            )
            (answer,) = answers.wait(system.play([("bad-1", system.described[0], START)]))
        assert answer.record is not None and answer.record.model_version == second
        status, body = worker.get("/health/ready")
        assert status == 200 and body["model"] == second and f"bad-{name}" in body["model_refused"]
    worker.kill()
    system.quiet()
    with system.worker("anew") as fresh:  # it never served an old one: it takes the one before
        fresh.wait_ready()
        with Answers(system.config) as answers:
            (answer,) = answers.wait(system.play([("bad-1", system.described[0], START)]))
        assert answer.record is not None and answer.record.model_version == second
    assert system.ask("models", "rollback")["version"] == second and not trap.exists()


def sound(store: Path) -> set[str]:
    """The versions of a store; fails unless every one that has a name is whole."""
    names = {path.name for path in store.iterdir() if not path.name.startswith((".", "bad-"))}
    for name in names:
        load(store / name)
    return names


def start_trainer(system: System, log: Path) -> subprocess.Popen[bytes]:
    words = ["trainer", "--once", "--epochs", "2", "--max-seconds", "10", "--margin", "1", "--json"]
    with log.open("wb") as file:
        command = [sys.executable, "-m", "streams.cli", *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, env=system.env, cwd=ROOT)


def test_a_killed_trainer_leaves_nothing_half_made(operated: System, two: tuple[str, str], tmp_path: Path) -> None:
    system, store = operated, folder_of(operated, two[0]).parent
    before, rows = sound(store), system.ask("models", "list")
    system.play(system.some_plays("killed", 3, 30))
    for words in ("SiMF", "epoch 1", "epoch 2"):
        log = tmp_path / "trainer.log"
        with start_trainer(system, log) as trainer, Answers(system.config) as clock:
            clock.until(
                lambda log=log, words=words, t=trainer: words in log.read_text() or t.poll() is not None,
                lambda log=log: log.read_text(),
                120,
            )
            trainer.kill()
        assert len(sound(store) - before) <= 1, "at most one that is whole and was not announced yet"
        assert [row["version"] for row in system.ask("models", "list")] == [row["version"] for row in rows]
        before = sound(store)


def test_two_trainers_do_not_fight(operated: System, two: tuple[str, str], tmp_path: Path) -> None:
    system = operated
    system.play(system.some_plays("both", 3, 30))
    basis, count = live(system), len(system.ask("models", "list"))
    pair = [start_trainer(system, tmp_path / f"trainer-{n}.log") for n in range(2)]
    made = [json.loads(trainer.communicate(timeout=200)[0]) for trainer in pair]
    assert [trainer.returncode for trainer in pair] == [0, 0]
    accepted = [version for version in made if version["state"] == "accepted"]
    late = [version for version in made if version["state"] == "refused"]
    assert accepted and live(system) == accepted[-1]["version"] != basis
    assert len(system.ask("models", "list")) == count + len({version["version"] for version in made})
    for version in late:
        assert version["reason"] == f"{accepted[0]['version']} went live while it was trained"
    assert late or accepted[1]["parent"] == accepted[0]["version"], "side by side one of them, one after the other both"
