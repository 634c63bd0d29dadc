"""VSTAN: STAN with V-SKNN's additions, items weighted by IDF and neighbours by the newest item they share.

Ludewig, Mauro, Latifi, Jannach: Empirical analysis of session-based recommendation algorithms, UMUAI 31 (2021), and
their code, session-rec (`VSKNN_STAN`), with its settings for 30Music, a Last.fm log, chosen for the hit rate.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from msam.baselines.sessions import Floats, Sessions, best
from msam.baselines.stan import DAY
from msam.listening import History

NEIGHBOURS = 1000
RECENT = 5000
"""Only so many of the latest sessions that share an item are compared."""
POSITION = 33.6
"""lambda_spw: plays after which a play of the current session counts a factor e less."""
AGE = 100.0 * DAY
"""lambda_snh: age in seconds by which a past session counts a factor e less."""
DISTANCE = 8.4
"""lambda_inh: plays away from the last shared item by which an item of a past session counts a factor e less."""
NEWEST = 1e-5
"""lambda_ipw: plays back to the newest shared item by which a session counts a factor e less: only sessions with the
last item are left."""
RARE = 5.0
"""lambda_idf: weight of the IDF."""


class VSTAN(Sessions):
    """Σ over the nearest sessions n of sim(s, n) · exp(-|p(item, n) - p*(n)| / λinh) · (1 + λidf · idf(item)) · w(n).

    sim: cosine of the weights exp((p(i, s) - |s|) / λspw) of s and the distinct items of n, times
    exp(-(t(s) - t(n)) / λsnh); p*(n): the last place in n of an item of s; w(n) = exp(-back / λipw), back: plays of s
    after the newest item that n holds. The published code has plays in place of sessions in the IDF's divisor, which
    makes it negative for an item that is played more often than there are sessions; here it is V-SKNN's.
    """

    name: ClassVar[str] = "vstan"

    def score_one(self, history: History) -> Floats:
        session = history.session()
        decay = np.exp(np.arange(1 - len(session), 1) / POSITION)
        found = self.meet(history, decay)
        near = np.flatnonzero(found.similarity)[-RECENT:]
        norm = np.linalg.norm(decay[::-1][np.unique(session[::-1], return_index=True)[1]])
        distinct = np.array([len(self.sessions[place]) for place in near.tolist()], dtype=np.float64)
        age = np.maximum(history.times[-1] - np.array([self.ends[place] for place in near.tolist()]), 0.0)
        similarity = np.zeros_like(found.similarity)
        similarity[near] = found.similarity[near] / (norm * np.sqrt(distinct)) * np.exp(-age / AGE)
        chosen = best(similarity, NEIGHBOURS)
        weights = similarity[chosen] * np.exp((1 - found.step[chosen]) / NEWEST)
        items, scores = self.around(chosen, weights, found.last[chosen], DISTANCE)
        return np.bincount(items, scores * (1 + RARE * self.idf(items)), minlength=self.items).astype(np.float64)
