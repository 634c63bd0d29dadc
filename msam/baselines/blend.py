"""The blend of evaluation.md: session rules, own moves, newest first and most played, weighted. In plain Python."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from msam.counts.keys import Keys

GAP = 1800.0  # seconds without a play that end a session
_BACK, _RANKS, _MOST = 8, 150, 40
WEIGHTS = {"track": (1.0, 1.5, 3.0, 0.03, 0.03, 0.01), "artist": (0.3, 0.5, 3.0, 0.1, 0.1, 0.01)}


class Blend:
    """w0 rules(p1) + w1 Σ rules(p_d)/d² + w2 own moves + w3/(1+r) + w4/(20+r) + w5 count/distinct.

    Rules are learned within sessions, weight 1/d², up to 8 back; rules and moves are divided by their row's sum + 1.
    """

    def __init__(self, weights: tuple[float, float, float, float, float, float] = WEIGHTS["track"]) -> None:
        self._weights = weights
        self._rules: defaultdict[int, defaultdict[int, float]] = defaultdict(lambda: defaultdict(float))
        self._sums: defaultdict[int, float] = defaultdict(float)
        self._sessions: dict[int, tuple[float, deque[int]]] = {}
        self._users: defaultdict[int, _User] = defaultdict(_User)

    def top(self, user: int, n: int) -> Sequence[int]:
        """Keys of the best n; of equal scores the smaller key first."""
        own = self._users[user]
        if not own.recent:
            return []
        w0, w1, w2, w3, w4, w5 = self._weights
        scores: defaultdict[int, float] = defaultdict(float)
        for distance, source in enumerate(own.recent, 1):
            if source in self._rules:
                weight = w0 if distance == 1 else w1 / distance**2
                scale = weight / (self._sums[source] + 1.0)
                for track, value in self._rules[source].items():
                    scores[track] += scale * value
        moves = own.moves[own.recent[0]]
        total = sum(moves.values()) + 1.0
        for track, count in moves.items():
            scores[track] += w2 * count / total
        for rank, track in zip(range(_RANKS), reversed(own.ranks), strict=False):
            scores[track] += w3 / (1.0 + rank) + w4 / (20.0 + rank)
        for track, count in own.counts.most_common(_MOST):
            scores[track] += w5 * count / len(own.counts)
        return sorted(scores, key=lambda track: (-scores[track], track))[:n]

    def learn(self, user: int, track: int, artist: int, at: float) -> None:
        """The user's own play."""
        self._users[user].play(track)

    def share(self, users: Keys, tracks: Keys, artists: Keys, times: NDArray[np.float64]) -> None:
        """Rules within everyone's sessions."""
        for user, track, at in zip(users.tolist(), tracks.tolist(), times.tolist(), strict=True):
            last, session = self._sessions.get(user, (at, deque(maxlen=_BACK)))
            if at - last > GAP:
                session.clear()
            for distance, source in enumerate(session, 1):
                self._rules[source][track] += 1.0 / distance**2
                self._sums[source] += 1.0 / distance**2
            session.appendleft(track)
            self._sessions[user] = at, session


class _User:
    """A user's own counts."""

    def __init__(self) -> None:
        self.recent: deque[int] = deque(maxlen=_BACK)  # newest first
        self.moves: defaultdict[int, Counter[int]] = defaultdict(Counter)
        self.ranks: OrderedDict[int, None] = OrderedDict()  # distinct, newest last
        self.counts: Counter[int] = Counter()

    def play(self, track: int) -> None:
        if self.recent:
            self.moves[self.recent[0]][track] += 1
        self.recent.appendleft(track)
        self.ranks[track] = None
        self.ranks.move_to_end(track)
        self.counts[track] += 1
