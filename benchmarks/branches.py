"""Does each branch of MSAM earn its keep? Simulated data of known truth, the model with and without a branch.

    python benchmarks/branches.py [--seeds 3] [--worlds all,no-audio] [--new 0.3] [--out results.json]

A world states what taste depends on; without audio or text the model never sees them (nor do the factors see the tags),
without time the plays of a window stand in the order of the catalogue, without attention every weight is the same.
HR@20 over the whole catalogue, cold tracks included; differences are paired on the same plays, over sessions.
"""

import argparse
import csv
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

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
WORLDS = {
    "all": (Shares(audio=0.4, text=0.2, artist=0.0, time=0.4, popularity=0.0), True),
    "no-audio": (Shares(audio=0.0, text=0.5, artist=0.0, time=0.5, popularity=0.0), False),
    "no-text": (Shares(audio=0.5, text=0.0, artist=0.0, time=0.5, popularity=0.0), True),
    "no-time": (Shares(audio=0.7, text=0.3, artist=0.0, time=0.0, popularity=0.0), True),
    "no-attention": (Shares(audio=0.0, text=0.0, artist=0.5, time=0.0, popularity=0.5), False),
}
"""World -> what taste depends on, and whether every listener heeds one property of sound alone."""
SHARPNESS = 1.5
"""How much liking decides: with the default of 2.5 every listener's few favourites are learned without any content."""
TRAINING = TrainConfig(epochs=12, learning_rate=3e-3, patience=2, max_holdout=1000)


class Branched(WithContentRows):
    """The published network with content rows, less what `without` names."""

    without: ClassVar[str] = ""


def system(without: str) -> type[Branched]:
    """The system without one branch ("": with all)."""
    off = {"attention": {"attention": False}, "time": {"order": False}}.get(without, {})
    return type("Branched", (Branched,), {"switches": {**Branched.switches, **off}, "without": without})


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


def data_of(config: SimulationConfig, say: Any) -> dict[str, Listening]:
    """What the model sees without each branch."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulate(config, folder)
        whole, mute = (prepare(make(folder), "track", dim=DIM, say=say) for make in (worded, wordless))
    audio, mask = whole.content.tracks.audio, whole.content.tracks.audio_mask
    silent = sounding(whole, torch.zeros_like(audio), torch.zeros_like(mask))
    seen = {"": whole, "time": whole, "attention": whole, "text": sounding(mute, audio, mask), "audio": silent}
    return {without: replace(data, content=replace(data.content, model=replace(data.content.model, hidden=DIM)))
            for without, data in seen.items()}  # fmt: skip


def cold_ranks(data: Listening) -> np.ndarray:
    """Ranks of popularity within the artist of the last play (then by plays of all): what knows no content can do."""
    popular = data.first(data.cuts(SHARE)).popularity()
    artist, places = data.content.artist, targets(data)
    same = artist[data.plays[places - 1]][:, None] == artist
    scores = (popular / (popular.max() + 1) + same).astype(np.float32)
    return metrics.ranks_of(scores, data.plays[places])


def hit(ranks: np.ndarray) -> np.ndarray:
    """HR@20 of each play."""
    return (ranks <= 20).astype(np.float64)


def world(name: str, seeds: int, sizes: Mapping[str, Any], say: Any) -> dict[str, Any]:
    """HR@20 with all branches and what each of them adds, over seeds of the world and of the training."""
    shares, heed = WORLDS[name]
    hits: dict[str, list[np.ndarray]] = {without: [] for without in ("", *BRANCHES)}
    cold: dict[str, list[np.ndarray]] = {"msam": [], "within artist": []}
    sessions: list[np.ndarray] = []
    for seed in range(seeds):
        config = SimulationConfig(
            **sizes, seed=seed, clip_seconds=2.0, shares=shares, sharpness=SHARPNESS, repeat=0.0, heed=heed
        )
        seen = data_of(config, lambda text: None)
        slices = Slices(seen[""], "split")
        sessions.append(slices.sessions + (max(map(np.max, sessions)) + 1 if sessions else 0))
        for without, found in hits.items():
            found.append(hit(run_split(system(without)(TRAINING), seen[without], seed).open_rank))
            say(f"{name}, seed {seed}, without {without or 'nothing'}: HR@20 {found[-1].mean():.4f}")
        mask = slices.masks["cold"]
        cold["msam"].append(hits[""][-1][mask])
        cold["within artist"].append(hit(cold_ranks(seen[""]))[mask])
    clusters, full = np.concatenate(sessions), np.concatenate(hits[""])
    return {
        "shares": {part: getattr(shares, part) for part in ("audio", "text", "artist", "time", "popularity")},
        "heed": heed,
        "plays": len(full),
        "hr@20": float(full.mean()),
        "adds": {name: paired(full, np.concatenate(hits[name]), clusters)._asdict() for name in BRANCHES},
        "cold": {"plays": len(np.concatenate(cold["msam"])),
                 **{name: float(np.concatenate(found).mean()) for name, found in cold.items()}},
    }  # fmt: skip


def main() -> int:
    """Run the worlds and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--worlds", default=",".join(WORLDS))
    parser.add_argument("--users", type=int, default=60)
    parser.add_argument("--tracks", type=int, default=400)
    parser.add_argument("--plays", type=int, default=8000)
    parser.add_argument("--new", type=float, default=0.1, help="share of the tracks that is released during the plays")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    sizes = {"users": args.users, "tracks": args.tracks, "plays": args.plays, "clips": args.tracks, "new": args.new}
    result = {name: world(name, args.seeds, sizes, say) for name in args.worlds.split(",")}
    tell(result, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
