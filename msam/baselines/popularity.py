"""What everybody plays, and what this user plays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from msam.baselines.contract import Arrays, Recommender, Scores
from msam.listening import History, Listening


class Popularity(Recommender):
    """Plays of each item by everybody."""

    name: ClassVar[str] = "popularity"

    def __init__(self) -> None:
        self.counts: NDArray[np.float64] = np.zeros(0)

    def fit(self, train: Listening, seed: int) -> None:
        self.counts = train.popularity()

    def score(self, histories: Sequence[History]) -> Scores:
        return np.tile(self.counts.astype(np.float32), (len(histories), 1))

    def update(self, history: History, item: int, time: float) -> None:
        self.counts[item] += 1

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        return {"counts": self.counts}, {}

    @classmethod
    def restore(cls, arrays: Arrays, values: Mapping[str, Any]) -> Self:
        system = cls()
        system.counts = arrays["counts"].copy()
        return system


class PersonalPopularity(Popularity):
    """Plays of each item by this user; among equals what everybody plays (which adds less than one play)."""

    name: ClassVar[str] = "personal-popularity"

    def score(self, histories: Sequence[History]) -> Scores:
        rest = self.counts / (self.counts.sum() + 1)
        own = [np.bincount(history.items, minlength=len(self.counts)) for history in histories]
        scores: Scores = (np.stack(own) + rest).astype(np.float32)
        return scores
