"""Does each branch of MSAM earn its keep? Simulated data of known truth, the model with and without a branch.

    python benchmarks/branches.py [--seeds 4] [--worlds all,no-audio] [--keep folder] [--out results.json]

A world states what taste depends on: on all, or on all but one thing, of which the model is then rid. Without audio or
text the model never sees them (nor do the factors see the tags), without time the plays of every window stand
in another order by chance, without attention every weight is the same. HR@20 over the whole catalogue, cold tracks
included; differences are paired on the same plays. Of cold tracks, both ways to place them are told: by likelihood,
and with as many places as plays (`cold_share`).
"""

import argparse
import csv
import json
import multiprocessing
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from telling import say, tell

from msam import metrics
from msam.baselines.msam import WithContentRows
from msam.config import TrainConfig
from msam.evaluation.prepare import Sources, prepare
from msam.evaluation.protocols import SHARE, Slices, run_split, targets
from msam.evaluation.statistics import paired
from msam.listening import Listening
from msam.network.inputs import TrackInputs
from msam.simulate import Shares, SimulationConfig, simulate

DIM = 32
BRANCHES = ("audio", "text", "time", "attention")
SHARE_OUT = "likelihood of cold tracks"
WORLDS = {
    "all": (Shares(audio=0.4, text=0.4, artist=0.0, time=0.2, popularity=0.0), True),
    "heed": (Shares(audio=0.8, text=0.0, artist=0.0, time=0.2, popularity=0.0), True),
    "no-audio": (Shares(audio=0.0, text=0.6, artist=0.0, time=0.4, popularity=0.0), False),
    "no-text": (Shares(audio=0.7, text=0.0, artist=0.0, time=0.0, popularity=0.3), True),  # time is likeness of styles
    "no-time": (Shares(audio=0.5, text=0.5, artist=0.0, time=0.0, popularity=0.0), True),
    "no-attention": (Shares(audio=0.0, text=0.0, artist=0.5, time=0.0, popularity=0.5), False),
}
"""World -> what taste depends on, and whether every listener heeds one group of audio descriptors alone."""
TRAINING = TrainConfig(epochs=12, learning_rate=3e-3, patience=2, max_holdout=1000)


class Branched(WithContentRows):
    """The published network with content rows (and group attention), less what `without` names."""

    without: ClassVar[str] = ""


def system(without: str, grouped: bool) -> type[Branched]:
    """The system without one branch ("": with all), or with a share of the places for cold tracks.

    `grouped`: the extension `group_attention` is a part of the whole.
    """
    switched = {"attention": {"attention": False}, "time": {"order": False}, SHARE_OUT: {"cold_share": True}}
    off = switched.get(without, {})
    whole = {**Branched.switches, "group_attention": grouped}
    return type("Branched", (Branched,), {"switches": whole | off, "without": without})


def worded(folder: Path) -> Sources:
    """The files of a simulation."""
    return Sources(folder / "plays.csv", folder / "tracks.csv", folder / "users.csv", folder / "audio")


def wordless(folder: Path) -> Sources:
    """The same without titles, names, labels, profiles and sound: artists and albums are numbers."""
    with (folder / "tracks.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    blank = dict.fromkeys(("title", "artist", "album", "labels", "duration", "release_year"), "")
    with (folder / "wordless.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, **blank} for row in rows)
    return replace(worded(folder), tracks=folder / "wordless.csv", users=None, audio=None)


def sounding(data: Listening, audio: torch.Tensor, mask: torch.Tensor) -> Listening:
    """The same with other sound: [M, G, A], and which tracks have any [M]."""
    known = data.content.tracks
    tracks = TrackInputs(*known[:2], audio, mask, *known[4:])
    return replace(data, content=replace(data.content, tracks=tracks))


def tags_of(sources: Sources, data: Listening) -> np.ndarray:
    """Which tags each track has: bool [M, tags]."""
    with sources.tracks.open(newline="", encoding="utf-8") as file:
        labels = {row["track_id"]: set(row["labels"].split("|")) - {""} for row in csv.DictReader(file)}
    every = sorted(set().union(*labels.values()))
    return np.array([[tag in labels[item] for tag in every] for item in data.items])


def data_of(config: SimulationConfig, branches: Sequence[str]) -> tuple[dict[str, Listening], np.ndarray]:
    """What the model sees with all ("") and without each branch; the tags."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulate(config, folder)
        whole = prepare(worded(folder), "track", dim=DIM, say=quiet)
        seen = {"": whole, **dict.fromkeys(branches, whole)}
        audio, mask = whole.content.tracks.audio, whole.content.tracks.audio_mask
        if "audio" in branches:
            seen["audio"] = sounding(whole, torch.zeros_like(audio), torch.zeros_like(mask))
        if "text" in branches:
            seen["text"] = sounding(prepare(wordless(folder), "track", dim=DIM, say=quiet), audio, mask)
        tags = tags_of(worded(folder), whole)
    seen = {without: replace(data, content=replace(data.content, model=replace(data.content.model, hidden=DIM)))
            for without, data in seen.items()}  # fmt: skip
    return seen, tags


def quiet(text: str) -> None:
    """What a step in a crowd of processes has to say."""


def cold_ranks(data: Listening, alike: np.ndarray, most: bool = True) -> np.ndarray:
    """Ranks by how much is shared with the last play ([M, n]: artists, or tags), then by plays of all.

    `most=False`: to share anything is enough, so that popularity within the same tag decides.
    """
    popular = data.first(data.cuts(SHARE)).popularity()
    places = targets(data)
    shared = alike[data.plays[places - 1]].astype(np.float32) @ alike.T.astype(np.float32)
    shared = shared if most else shared > 0
    return metrics.ranks_of((popular / (popular.max() + 1) + shared).astype(np.float32), data.plays[places])


def hit(ranks: np.ndarray) -> np.ndarray:
    """HR@20 of each play."""
    return (ranks <= 20).astype(np.float64)


class Found(NamedTuple):
    """What one seed of a world showed: HR@20 of each play [T] without each branch ("": with all), and of cold plays."""

    hits: dict[str, np.ndarray]
    cold: dict[str, np.ndarray]
    sessions: np.ndarray


def world_of(name: str, seed: int, sizes: Mapping[str, Any]) -> tuple[dict[str, Listening], np.ndarray]:
    """One seed of a world: `data_of` for what is asked of it."""
    torch.set_num_threads(1)
    shares, heed = WORLDS[name]
    config = SimulationConfig(**sizes, seed=seed, clip_seconds=2.0, shares=shares, repeat=0.0, heed=heed)
    found = data_of(config, asked(name))
    say(f"{name}, seed {seed}: simulated")
    return found


def hits_of(
    name: str, seed: int, without: str, grouped: bool, training: TrainConfig, data: Listening, keep: Path | None
) -> np.ndarray:
    """HR@20 of each play after one training, read from the folder `keep` where it was trained before."""
    file = keep / f"{name}-{seed}-{without or 'whole'}.npy" if keep else None
    if file and file.exists():
        kept: np.ndarray = np.load(file)
        return kept
    torch.set_num_threads(1)
    hits = hit(run_split(system(without, grouped)(training), data, seed).open_rank)
    if file:
        with file.with_suffix(".part").open("wb") as part:
            np.save(part, hits)
        file.with_suffix(".part").rename(file)
    say(f"{name}, seed {seed}, without {without or 'nothing'}: HR@20 {hits.mean():.4f}")
    return hits


def found_of(hits: dict[str, np.ndarray], data: Listening, tags: np.ndarray) -> Found:
    """All hits of a seed and, where cold tracks are looked at, those of cold plays beside what needs no training."""
    slices = Slices(data, "split")
    if SHARE_OUT not in hits:
        return Found(hits, {}, slices.sessions)
    artists = data.content.artist[:, None] == np.unique(data.content.artist)
    cold = {
        "msam": hits[""],
        "msam, shared places": hits[SHARE_OUT],
        "within artist": hit(cold_ranks(data, artists)),
        "within tag": hit(cold_ranks(data, tags, most=False)),
        "by shared tags": hit(cold_ranks(data, tags)),
    }
    return Found(hits, {of: found[slices.masks["cold"]] for of, found in cold.items()}, slices.sessions)


def asked(world: str) -> tuple[str, ...]:
    """What is switched off in a world: how cold tracks are placed, and all branches or the one of which it tells."""
    named = {"all": (SHARE_OUT, *BRANCHES), "heed": ("attention",)}
    return named.get(world, (SHARE_OUT, world.removeprefix("no-")))


def told(name: str, seeds: Sequence[Found]) -> dict[str, Any]:
    """What all seeds of a world say: intervals over sessions and, stricter, over seeds."""
    shares, heed = WORLDS[name]
    number = np.repeat(np.arange(len(seeds)), [len(f.sessions) for f in seeds])
    independent = {"sessions": np.concatenate([f.sessions for f in seeds]) + number * 10**6, "seeds": number}
    full = np.concatenate([f.hits[""] for f in seeds])
    less = {branch: np.concatenate([f.hits[branch] for f in seeds]) for branch in asked(name)}
    cold = {of: np.concatenate([f.cold[of] for f in seeds]) for of in seeds[0].cold}
    return {
        "shares": {part: getattr(shares, part) for part in ("audio", "text", "artist", "time", "popularity")},
        "heed": heed,
        "plays": len(full),
        "hr@20": float(full.mean()),
        "adds": {branch: {over: paired(full, hits, clusters)._asdict() for over, clusters in independent.items()}
                 for branch, hits in less.items()},
        "cold": {"plays": len(cold["msam"]), **{of: float(hits.mean()) for of, hits in cold.items()}} if cold else {},
    }  # fmt: skip


def same_settings(keep: Path, settings: Mapping[str, Any]) -> None:
    """Note the settings in `keep`. SystemExit where another run's trainings are kept there."""
    keep.mkdir(parents=True, exist_ok=True)
    file = keep / "settings.json"
    if file.exists() and json.loads(file.read_text()) != settings:
        raise SystemExit(f"{keep} keeps trainings under other settings ({file}); name another folder")
    file.write_text(json.dumps(settings) + "\n")


def main() -> int:
    """Run the worlds and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--worlds", default=",".join(WORLDS))
    parser.add_argument("--users", type=int, default=600)
    parser.add_argument("--tracks", type=int, default=1000)
    parser.add_argument("--plays", type=int, default=12_000)
    parser.add_argument("--new", type=float, default=0.3, help="share of the tracks that is released during the plays")
    parser.add_argument(
        "--apart",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="sound and words tell nothing of each other",
    )
    parser.add_argument("--coherence", type=float, default=0.0, help="how much of a track's style is its artist's")
    parser.add_argument(
        "--group-attention",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="the whole model has this extension, too",
    )
    parser.add_argument("--order-dropout", type=float, default=0.5, help="windows of training read in any order")
    parser.add_argument("--average", type=float, default=0.98, help="decay of the running mean of the weights")
    parser.add_argument("--once", action="store_true", help="nobody plays a track twice")
    parser.add_argument("--sharpness", type=float, default=1.5, help="how much liking decides")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, of one thread each")
    parser.add_argument("--keep", type=Path, help="keep what every training shows in this folder, and go on from there")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    sizes = {
        name: getattr(args, name)
        for name in ("users", "tracks", "plays", "new", "sharpness", "apart", "once", "coherence")
    }
    sizes["clips"] = args.tracks
    grouped = args.group_attention
    steadied = {"order_dropout": args.order_dropout, "average": args.average}
    training = replace(TRAINING, **steadied)
    if args.keep:
        same_settings(args.keep, {**sizes, "group_attention": grouped, **steadied})
    names = args.worlds.split(",")
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        made = {(name, n): pool.submit(world_of, name, n, sizes) for name in names for n in range(args.seeds)}
        runs = {}
        for (name, n), world in made.items():
            seen, _ = world.result()
            runs[name, n] = {
                less: pool.submit(hits_of, name, n, less, grouped, training, seen.get(less, seen[""]), args.keep)
                for less in ("", *asked(name))
            }
        found = defaultdict(list)
        for (name, n), mine in runs.items():
            seen, tags = made[name, n].result()
            found[name].append(found_of({without: run.result() for without, run in mine.items()}, seen[""], tags))
    result = {name: told(name, seeds) for name, seeds in found.items()}
    tell(result, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
