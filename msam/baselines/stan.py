"""STAN: sequence and time aware neighbourhood for session-based recommendation.

Garg, Gupta, Malhotra, Vig, Shroff: Sequence and Time Aware Neighborhood for Session-based Recommendations, SIGIR 2019.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from msam.baselines.sessions import Floats, Sessions, best
from msam.listening import History

NEIGHBOURS = 500
LONGEST = 50
DAY = 86400.0
POSITION = 1.02
"""λ1: plays after which a play of the current session counts a factor e less."""
AGE = 20.0 * DAY
"""λ2: age in seconds by which a past session counts a factor e less."""
DISTANCE = 2.05
"""λ3: plays away from the newest shared item by which an item of a past session counts a factor e less."""


class STAN(Sessions):
    """Σ over the nearest sessions n of sim(s, n) · exp(-(t(s) - t(n)) / λ2) · exp(-|p(item, n) - p(i*, n)| / λ3).

    sim: Σ over shared items of exp((p(i, s) - |s|) / λ1), over √(|s| |n|); i*: the newest item of s that n holds.
    """

    name: ClassVar[str] = "stan"

    def score_one(self, history: History) -> Floats:
        length = min(len(history.session()), LONGEST)
        found = self.meet(history, np.exp(np.arange(1 - length, 1) / POSITION))
        age = np.maximum(history.times[-1] - np.array(self.ends), 0.0)
        similarity = found.similarity / np.sqrt(length * np.array(self.lengths)) * np.exp(-age / AGE)
        chosen = best(similarity, NEIGHBOURS)
        items, weights = self.around(chosen, similarity[chosen], found.place[chosen], DISTANCE)
        return np.bincount(items, weights, minlength=self.items).astype(np.float64)
