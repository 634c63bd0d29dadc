"""Where the wide head alone ranks the demo's cold track, from the moment it is described, in its listeners' lists.

    python benchmarks/wide_cold.py --data DIR/classic_rock [--plays 20000]

The head is trained on the demo's history only; the track is described when the paced plays begin, and nobody plays it.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

from msam.config import CountsConfig
from msam.counts import Discography, key_of, keys_of
from msam.datasets.canonical import TrackRow, read_plays, read_tracks
from msam.evaluation.prequential import make_stream
from msam.wide_alone import WideAlone, train_alone
from msam.wide_training import WideConfig
from streams.demo.plan import make_plan


def enter(book: Discography, rows: list[TrackRow]) -> None:
    """Describe tracks."""
    artists, albums = (
        [key_of(one) if one else 0 for one in ids]
        for ids in zip(*((r.artist_id, r.album_id) for r in rows), strict=True)
    )
    book.update(keys_of(row.track_id for row in rows), np.array(artists), np.array(albums))


def main() -> int:
    """Train, live through the demo, and look for the track."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--plays", type=int, default=20000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tracks = read_tracks(args.data / "tracks.csv")
    plan = make_plan(read_plays(args.data / "plays.csv"), tracks, args.plays)
    assert plan.cold is not None
    rows = sorted(plan.tracks, key=lambda row: key_of(row.track_id))
    book, config = Discography(), CountsConfig()
    enter(book, rows)
    every = [*rows, plan.cold]
    head, _ = train_alone(make_stream(plan.history, every), book, config, WideConfig(), test=0.0)
    system, stream = WideAlone(head, config, book), make_stream(plan.plays, every)
    before = len(plan.plays) - len(plan.paced)
    listeners = {key_of(user): user for user in plan.listeners}
    cold, artist = key_of(plan.cold.track_id), key_of(plan.cold.artist_id or "")
    ranks: list[float] = []
    after: list[float] = []
    first: dict[str, int] = {}
    heard = dict.fromkeys(listeners, 0)
    for place, (user, track, by, at) in enumerate(zip(*(column.tolist() for column in stream[:4]), strict=True)):
        if place == before:
            enter(book, [plan.cold])
        system.learn(user, track, by, at)
        system.share(*(column[place : place + 1] for column in stream[:4]))
        heard[user] = heard.get(user, 0) + (by == artist)
        if place >= before and user in listeners:
            best = list(system.top(user, 10_000))
            rank = best.index(cold) + 1.0 if cold in best else np.inf
            ranks.append(rank)
            if by == artist:
                after.append(rank)
            if rank <= 20:
                first.setdefault(listeners[user], place - before)
    print(
        json.dumps(
            {
                "cold": plan.cold.track_id,
                "listeners": len(listeners),
                "lists": len(ranks),
                "best rank": min(ranks),
                "median rank": float(np.median(ranks)),
                "in top 20": float(np.mean(np.array(ranks) <= 20)),
                "after a play of the artist": {
                    "lists": len(after),
                    "in top 20": float(np.mean(np.array(after) <= 20)),
                    "median rank": float(np.median(after)),
                }
                if after
                else None,
                "listeners reached": len(first),
                "plays until the first": min(first.values()) if first else None,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
