"""Processor time of a fold and of a play's candidates with their inputs, on a real log.

python benchmarks/counts_speed.py --data DIR/lfm_timeline [--history 1000] [--plays 3000]
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from wide_rows import load

from msam.config import CountsConfig
from msam.counts import CandidateMaker, SharedCounts, UserHistory


def main() -> int:
    """Fold all but the last plays, then time the last ones, one by one as a worker does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--history", type=int, default=CountsConfig().history)
    parser.add_argument("--plays", type=int, default=3000)
    args = parser.parse_args()
    stream, book = load(args.data, "track")
    config = CountsConfig(history=args.history)
    shared, maker = SharedCounts(config), CandidateMaker(config)
    histories = {user: UserHistory(config.history) for user in set(stream.users.tolist())}
    first = len(stream.users) - args.plays
    warm = [column[:10] for column in stream[:4]]
    SharedCounts(config).fold(*warm)  # compiled before it is timed
    start = time.process_time()
    shared.fold(*(column[:first] for column in stream[:4]))
    whole = (time.process_time() - start) / first
    for user, track, _, at in zip(*(column[:first].tolist() for column in stream[:4]), strict=True):
        histories[user].append(track, at)
    maker.make(histories[int(stream.users[0])].plays(), shared, book)
    made, taken, found = [], [], []
    for place in range(first, len(stream.users)):
        one = slice(place, place + 1)
        history = histories[int(stream.users[place])]
        history.append(int(stream.tracks[place]), float(stream.times[place]))
        start = time.thread_time_ns()
        shared.fold(*(column[one] for column in stream[:4]))
        taken.append(time.thread_time_ns() - start)
        start = time.thread_time_ns()
        found.append(len(maker.make(history.plays(), shared, book)[0]))
        made.append(time.thread_time_ns() - start)
    print(f"fold, many at once: {1e6 * whole:.1f} us a play")
    print(f"fold, one by one: {np.median(taken) / 1e3:.1f} us")
    print(f"candidates and inputs: {np.median(made) / 1e3:.1f} us median, {np.percentile(made, 99) / 1e3:.1f} us p99")
    print(f"candidates: {np.mean(found):.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
