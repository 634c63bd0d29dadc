"""V-SKNN: vector multiplication session-based nearest neighbours.

Ludewig, Jannach: Evaluation of session-based recommendation algorithms, UMUAI 28 (2018), Sec. 3.2.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from msam.baselines.sessions import Floats, Sessions, best
from msam.listening import History

NEIGHBOURS = 100
RECENT = 1000
"""Only so many of the latest sessions that share an item are compared."""
LONGEST = 50
"""Plays of the current session that count."""


class VSKNN(Sessions):
    """Σ over the nearest sessions n of sim(s, n) · w(n) · [item in n] · idf(item).

    sim: dot product of the current session, whose plays count linearly less the older they are, with the items of n;
    w(n) = 1 / (plays back to the newest item that both hold); idf = log(sessions / sessions with the item).
    """

    name: ClassVar[str] = "vsknn"

    def score_one(self, history: History) -> Floats:
        length = min(len(history.session()), LONGEST)
        found = self.meet(history, np.arange(1, length + 1) / length)
        candidates = np.flatnonzero(found.similarity)[-RECENT:]
        kept = np.zeros_like(found.similarity)
        kept[candidates] = found.similarity[candidates]
        chosen = best(kept, NEIGHBOURS)
        items, _, counts = self.gather(chosen)
        weights = np.repeat(kept[chosen] / found.step[chosen], counts)
        idf = self.idf(items) + 1e-3  # an item of every session still counts
        return np.bincount(items, weights * idf, minlength=self.items).astype(np.float64)
