"""The mix and the blend behind the contract. They know users and items by whole numbers; ours are places in the log."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from msam.baselines.blend import WEIGHTS, Blend
from msam.baselines.contract import Arrays, Recommender, Scores
from msam.baselines.mix import Mix
from msam.evaluation.prequential import Online
from msam.listening import History, Listening

DEEP = 100
"""Length of the list that is asked for; an item scores 1 / its rank, one that is not listed 0."""


class OnlineSystem(Recommender):
    """Everyone's counts grow with `fit` and `update`, a user's own with the history that is scored."""

    system: Online

    def __init__(self) -> None:
        self.items = 0
        self.level = "track"
        self.shared: list[tuple[int, int, float]] = []  # user, item, time in the order they were learned
        self.own: dict[int, tuple[int, int]] = {}  # user -> (number that the system knows the user by, plays it knows)
        self.numbers = 0

    @abstractmethod
    def make(self, level: str) -> Online:
        """The system, knowing nothing."""

    def fit(self, train: Listening, seed: int) -> None:
        order = np.argsort(train.times, kind="stable")
        plays = zip(train.owner(order).tolist(), train.plays[order].tolist(), train.times[order].tolist(), strict=True)
        self._begin(len(train.items), train.level, list(plays))

    def _begin(self, items: int, level: str, plays: list[tuple[int, int, float]]) -> None:
        self.items, self.level, self.shared = items, level, plays
        self.system = self.make(level)
        self._share(plays)

    def _share(self, plays: Sequence[tuple[int, int, float]]) -> None:
        users, items, times = zip(*plays, strict=True) if plays else ((), (), ())
        tracks = np.array(items, dtype=np.int64)
        self.system.share(np.array(users, np.int64), tracks, np.zeros_like(tracks), np.array(times, np.float64))

    def update(self, history: History, item: int, time: float) -> None:
        self.shared.append((history.user, item, time))
        self._share(self.shared[-1:])

    def score(self, histories: Sequence[History]) -> Scores:
        scores = np.zeros((len(histories), self.items), dtype=np.float32)
        for row, history in enumerate(histories):
            listed = self.system.top(self._learned(history), DEEP)
            scores[row, list(listed)] = 1 / np.arange(1, len(listed) + 1)
        return scores

    def _learned(self, history: History) -> int:
        """The number of the history's user, whose plays are learned up to its end.

        A shorter history than the last one is learned anew under another number.
        """
        number, known = self.own.get(history.user, (-1, len(history.items) + 1))
        if known > len(history.items):
            number, known, self.numbers = self.numbers, 0, self.numbers + 1
        for item, time in zip(history.items[known:].tolist(), history.times[known:].tolist(), strict=True):
            self.system.learn(number, item, 0, time)
        self.own[history.user] = number, len(history.items)
        return number

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        users, items, times = zip(*self.shared, strict=True) if self.shared else ((), (), ())
        arrays = {
            "users": np.array(users, np.int64),
            "items": np.array(items, np.int64),
            "times": np.array(times, float),
        }
        return arrays, {"items": self.items, "level": self.level}

    @classmethod
    def restore(cls, arrays: Arrays, values: Mapping[str, Any]) -> Self:
        system = cls()
        plays = zip(arrays["users"].tolist(), arrays["items"].tolist(), arrays["times"].tolist(), strict=True)
        system._begin(int(values["items"]), str(values["level"]), list(plays))
        return system


class OnlineMix(OnlineSystem):
    """`msam.baselines.mix`."""

    name: ClassVar[str] = "mix"

    def make(self, level: str) -> Online:
        return Mix()


class OnlineBlend(OnlineSystem):
    """`msam.baselines.blend` with the weights of the level."""

    name: ClassVar[str] = "blend"

    def make(self, level: str) -> Online:
        return Blend(WEIGHTS[level])
