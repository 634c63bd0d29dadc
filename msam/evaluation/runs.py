"""Runs of systems over seeds, in processes; a finished run is a file, so an evaluation goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np

import msam
from msam.baselines import system
from msam.evaluation.measures import Judged
from msam.evaluation.prepare import EvaluationError, Level, Sources
from msam.evaluation.protocols import Protocol, run_prequential, run_split
from msam.listening import Listening

CODE = Path(msam.__file__).parent
"""Whatever of it changes may change what a run measures; runs of other code are not taken over."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is evaluated. `seed`: of the first run; run r has seed + r. `age`: that of `run_prequential`."""

    sources: Sources
    level: Level
    protocol: Protocol
    systems: tuple[str, ...]
    runs: int
    seed: int = 0
    age: int = 1

    def __post_init__(self) -> None:
        if self.age != 1 and self.protocol == "split":
            raise EvaluationError(
                "--age is of the prequential protocol: under the split nobody learns from what is scored"
            )

    def runs_of(self, name: str) -> range:
        """A system that no seed changes is run once."""
        return range(self.runs if system(name).seeded else 1)

    def fingerprint(self) -> str:
        """What the files of a run depend on beside the system and the run's number."""
        digest = hashlib.sha256(json.dumps([self.level, self.protocol, self.seed, self.age]).encode())
        for module in sorted(CODE.rglob("*.py")):
            digest.update(hashlib.sha256(module.read_bytes()).digest())
        clips = [f"{name} {path.stat().st_size}" for name, path in sorted(self.sources.clips().items())]
        digest.update(json.dumps(clips).encode())
        for path in (self.sources.plays, self.sources.tracks, self.sources.users):
            digest.update(b"-" if path is None else hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run: what it measured, and what is told about the training."""

    system: str
    run: int
    judged: Judged
    told: dict[str, Any]


def path_of(folder: Path, name: str, run: int) -> Path:
    """File of a run."""
    return folder / f"{name}-{run:02d}.npz"


def write(folder: Path, run: Run, fingerprint: str) -> None:
    """Whole or not at all: written beside and renamed."""
    target = path_of(folder, run.system, run.run)
    beside = target.with_suffix(f".{os.getpid()}.tmp")
    told = json.dumps({"fingerprint": fingerprint, **run.told})
    with beside.open("wb") as file:
        np.savez_compressed(file, told=np.array(told), **run.judged._asdict())
    beside.replace(target)


def read(folder: Path, name: str, run: int, fingerprint: str) -> Run | None:
    """A finished run; None where there is none. EvaluationError where it is of other data, protocol or code."""
    path = path_of(folder, name, run)
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        told = json.loads(str(stored["told"]))
        judged = Judged(*(stored[field] for field in Judged._fields))
    if told.pop("fingerprint") != fingerprint:
        raise EvaluationError(f"{path} is a run of other data, protocol or code of msam; choose another --out")
    return Run(name, run, judged, told)


_DATA: Listening | None = None  # of a worker process


def _start(data: Listening) -> None:
    import torch

    global _DATA
    _DATA = data
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed evaluation must not leave processes that train for nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _work(name: str, number: int, plan: Plan, folder: Path, fingerprint: str) -> None:
    assert _DATA is not None
    write(folder, one(_DATA, name, number, plan), fingerprint)


def one(data: Listening, name: str, number: int, plan: Plan) -> Run:
    """Fit and score one system with one seed."""
    started = time.process_time()
    recommender = system(name)()
    if plan.protocol == "split":
        judged = run_split(recommender, data, plan.seed + number)
    else:
        judged = run_prequential(recommender, data, plan.seed + number, age=plan.age)
    told: dict[str, Any] = {key: list(getattr(recommender, key, ())) for key in ("losses", "figures")}
    told["cpu_seconds"] = time.process_time() - started
    if hasattr(recommender, "attention") and number == 0:
        places = data.targets(data.cuts(0.2))[:2000]
        told["attention"] = {k: v.tolist() for k, v in recommender.attention(data.histories(places)).items()}
    return Run(name, number, judged, told)


def run_all(
    plan: Plan, folder: Path, prepare: Callable[[], Listening], jobs: int, done: Callable[[str, int], None]
) -> None:
    """Run what has no file yet, `jobs` at a time; `prepare` is called only if something is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    fingerprint = plan.fingerprint()
    missing = [task for task in _tasks(plan) if read(folder, *task, fingerprint) is None]
    if not missing:
        return
    data = prepare()
    # New processes rather than forks: torch's and BLAS's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(missing)), context, initializer=_start, initargs=(data,)) as pool:
        futures = {pool.submit(_work, *task, plan, folder, fingerprint): task for task in missing}
        try:
            for future in as_completed(futures):
                future.result()
                done(*futures[future])
        except BrokenProcessPool:
            raise EvaluationError(
                "a process of the evaluation was killed, perhaps for want of memory; the same command with fewer "
                "--jobs goes on from the runs that are finished"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _tasks(plan: Plan) -> Iterator[tuple[str, int]]:
    """The first run of every system before the second of any."""
    for number in range(plan.runs):
        yield from ((name, number) for name in plan.systems if number in plan.runs_of(name))


def finished(plan: Plan, folder: Path) -> dict[str, list[Run]]:
    """Every finished run, by system in the order of the plan."""
    fingerprint = plan.fingerprint()
    found: dict[str, list[Run]] = {}
    for name in plan.systems:
        runs = [read(folder, name, number, fingerprint) for number in plan.runs_of(name)]
        found[name] = [run for run in runs if run is not None]
    return found


def lacking(plan: Plan) -> dict[str, str]:
    """System -> what it needs and the data lacks."""
    needs = {name: sorted(system(name).needs - plan.sources.kinds()) for name in plan.systems}
    return {name: f"no {' and '.join(missing)}" for name, missing in needs.items() if missing}
