"""Mix, blend and the wide head alone, prequentially, on the four rows of evaluation.md (docs/decisions/0008-counts.md).

    python benchmarks/wide_rows.py --data DIR [--rows lfm_timeline:track ...] [--history 1000] [--no-fresh]

DIR holds the canonical data sets. Every line is one system at one age of everyone's counts.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from msam.baselines.blend import WEIGHTS, Blend
from msam.baselines.mix import Mix
from msam.config import CountsConfig
from msam.counts import Discography, key_of, keys_of
from msam.datasets.canonical import TrackRow, read_plays, read_tracks
from msam.evaluation.prequential import Age, Online, Stream, make_stream, run
from msam.wide_alone import WideAlone, train_alone
from msam.wide_training import WideConfig

ROWS = ("lfm_timeline:artist", "lfm_timeline:track", "lfm_sessions:track", "classic_rock:track")
AGES = (1, 1000)  # plays


def load(folder: Path, level: str) -> tuple[Stream, Discography]:
    """Plays in time order, and the catalogue by key (the file's order tells when a track was first played)."""
    file = folder / "tracks.csv"
    tracks: list[TrackRow] = sorted(read_tracks(file), key=lambda row: key_of(row.track_id)) if file.exists() else []
    book = Discography()
    if level == "track" and tracks:
        artists = np.array([key_of(row.artist_id) if row.artist_id else 0 for row in tracks])
        albums = np.array([key_of(row.album_id) if row.album_id else 0 for row in tracks])
        book.update(keys_of(row.track_id for row in tracks), artists, albums)
    return make_stream(read_plays(folder / "plays.csv"), tracks, level), book


def report(row: str, system: str, age: int, figures: dict[str, float], seconds: float) -> None:
    """One line of JSON."""
    rounded = {name: round(value, 4) for name, value in figures.items()}
    print(json.dumps({"row": row, "system": system, "age": age, **rounded, "seconds": round(seconds, 1)}), flush=True)


def main() -> int:
    """Run the rows asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", default=ROWS)
    parser.add_argument("--history", type=int, default=CountsConfig().history)
    parser.add_argument("--no-fresh", action="store_true", help="no candidates that nobody has played")
    parser.add_argument("--systems", nargs="+", default=["mix", "blend", "wide"])
    parser.add_argument("--ages", nargs="+", type=int, default=AGES)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for row in args.rows:
        name, level = row.split(":")
        stream, book = load(args.data / name, level)
        config = CountsConfig(history=args.history)
        config = replace(config, fresh=0) if args.no_fresh else config
        head = None
        if "wide" in args.systems:
            start = time.process_time()
            head, loss = train_alone(stream, book, config, WideConfig(), say=lambda line: print(line, file=sys.stderr))
            report(row, "wide, training", 1, {"holdout": loss}, time.process_time() - start)
        for age in args.ages:
            for system in args.systems:
                start = time.process_time()
                made: Online = Mix() if system == "mix" else Blend(WEIGHTS[level])
                if system == "wide":
                    assert head is not None
                    made = WideAlone(head, config, book)
                outcome = run(stream, made, age=Age(plays=age))
                report(row, system, age, outcome.figures(), time.process_time() - start)
    return 0


if __name__ == "__main__":
    sys.exit(main())
