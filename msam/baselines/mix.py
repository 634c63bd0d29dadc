"""The mix of evaluation.md: own and everyone's moves, the last plays and the most played, added up."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from msam.counts.keys import Keys

_LATE = 20  # plays, and most played tracks, that count


class Mix:
    """1000 own moves p→y + 100 moves of anyone + 1 per occurrence among the last 20 + 0.5 for the 20 most played.

    Newer plays among the last 20 count a hundredth more a place, so equal sums go newest first.
    """

    def __init__(self) -> None:
        self._own: defaultdict[tuple[int, int], Counter[int]] = defaultdict(Counter)
        self._all: defaultdict[int, Counter[int]] = defaultdict(Counter)
        self._late: defaultdict[int, deque[int]] = defaultdict(lambda: deque(maxlen=_LATE))
        self._counts: defaultdict[int, Counter[int]] = defaultdict(Counter)
        self._before: dict[int, int] = {}

    def top(self, user: int, n: int) -> Sequence[int]:
        """Keys of the best n; of equal scores the smaller key first."""
        late = self._late[user]
        if not late:
            return []
        scores: defaultdict[int, float] = defaultdict(float)
        for track, count in self._own[user, late[-1]].items():
            scores[track] += 1000.0 * count
        for track, count in self._all[late[-1]].items():
            scores[track] += 100.0 * count
        for place, track in enumerate(late):
            scores[track] += 1.0 + 0.01 * place
        for track, _ in self._counts[user].most_common(_LATE):
            scores[track] += 0.5
        return sorted(scores, key=lambda track: (-scores[track], track))[:n]

    def learn(self, user: int, track: int, artist: int, at: float) -> None:
        """The user's own play."""
        late = self._late[user]
        if late:
            self._own[user, late[-1]][track] += 1
        late.append(track)
        self._counts[user][track] += 1

    def share(self, users: Keys, tracks: Keys, artists: Keys, times: NDArray[np.float64]) -> None:
        """Moves of everyone."""
        for user, track in zip(users.tolist(), tracks.tolist(), strict=True):
            if user in self._before:
                self._all[self._before[user]][track] += 1
            self._before[user] = track
