"""First-order Markov chain over the plays of everybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from msam.baselines.contract import Arrays, Recommender, Scores
from msam.listening import History, Listening

_BACK_OFF = 0.1
"""Plays' worth of popularity that every row starts with, so that a row is never empty."""


class Markov(Recommender):
    """P(y | last play x) = (times anyone went x -> y + 0.1 · popularity of y) / (times anyone went on from x + 0.1)."""

    name: ClassVar[str] = "markov"

    def __init__(self) -> None:
        self.following: dict[int, dict[int, float]] = {}
        self.counts: NDArray[np.float64] = np.zeros(0)

    def fit(self, train: Listening, seed: int) -> None:
        self.counts = train.popularity()
        self.following = {}
        after = train.targets()
        for before, item in zip(train.plays[after - 1].tolist(), train.plays[after].tolist(), strict=True):
            self._add(before, item)

    def _add(self, before: int, item: int, times: float = 1.0) -> None:
        row = self.following.setdefault(before, {})
        row[item] = row.get(item, 0.0) + times

    def score(self, histories: Sequence[History]) -> Scores:
        popular = _BACK_OFF * self.counts / max(self.counts.sum(), 1.0)
        scores = np.tile(popular, (len(histories), 1))
        for row, history in enumerate(histories):
            known = self.following.get(int(history.items[-1]), {}) if len(history.items) else {}
            scores[row, list(known)] += list(known.values())
            scores[row] /= sum(known.values()) + _BACK_OFF
        return scores.astype(np.float32)

    def update(self, history: History, item: int, time: float) -> None:
        self.counts[item] += 1
        if len(history.items):
            self._add(int(history.items[-1]), item)

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        flat = [(x, y, n) for x, row in self.following.items() for y, n in row.items()]
        return {"counts": self.counts, "pairs": np.array(flat, dtype=np.float64).reshape(-1, 3)}, {}

    @classmethod
    def restore(cls, arrays: Arrays, values: Mapping[str, Any]) -> Self:
        system = cls()
        system.counts = arrays["counts"].copy()
        for before, item, times in arrays["pairs"].tolist():
            system._add(int(before), int(item), times)
        return system
