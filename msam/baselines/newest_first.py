"""What the user played, newest first (LRU)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from msam.baselines.contract import Arrays, Recommender, Scores
from msam.listening import History, Listening


class NewestFirst(Recommender):
    """1 / (1 + number of plays since the item was last heard); 0 for what the user has never heard."""

    name: ClassVar[str] = "newest-first"

    def __init__(self) -> None:
        self.items = 0

    def fit(self, train: Listening, seed: int) -> None:
        self.items = len(train.items)

    def score(self, histories: Sequence[History]) -> Scores:
        scores = np.zeros((len(histories), self.items), dtype=np.float32)
        for row, history in enumerate(histories):
            age = np.arange(len(history.items), 0, -1)
            scores[row, history.items] = 1 / age  # of an item heard twice the newer play is written last and stays
        return scores

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        return {}, {"items": self.items}

    @classmethod
    def restore(cls, arrays: Arrays, values: Mapping[str, Any]) -> Self:
        system = cls()
        system.items = int(values["items"])
        return system
