"""The contract of every recommender: fit, score, update, save, load.

    system.fit(train, seed)             learns from plays; the same plays and seed give the same bits
    system.score(histories) -> [B, M]   a score for every item of the catalogue, higher is better
    system.update(history, item, time)  learns from the play that followed (after it was scored); may do nothing
    system.save(folder); type.load(folder)

Scores are logits where `logits` is true (a softmax makes them probabilities), else weights from 0 up (their shares
are). A folder holds `state.safetensors` and `state.json`: numbers and plain values, no pickle.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from msam.errors import MethodError
from msam.listening import History, Listening

Scores = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]
STATE, META = "state.safetensors", "state.json"


class BaselineError(MethodError):
    """A recommender cannot be fitted, stored or loaded as asked."""


class Recommender(ABC):
    """A system of the table. `name`: as `--systems` takes it."""

    name: ClassVar[str]
    logits: ClassVar[bool] = False
    seeded: ClassVar[bool] = False
    """Whether another seed gives another model."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """What the system cannot run without: "sound"."""

    @abstractmethod
    def fit(self, train: Listening, seed: int) -> None:
        """Learn from all plays of `train`, which is left as it is."""

    @abstractmethod
    def score(self, histories: Sequence[History]) -> Scores:
        """Scores float32 [B, M] of the whole catalogue for the play that follows each history."""

    def update(self, history: History, item: int, time: float) -> None:  # noqa: B027 - a frozen model learns nothing
        """Learn that `item` was played at `time` (s) after `history`."""

    @abstractmethod
    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """Everything `restore` needs: arrays, and values that JSON has."""

    @classmethod
    @abstractmethod
    def restore(cls, arrays: Arrays, values: Mapping[str, Any]) -> Self:
        """Inverse of `state`."""

    def save(self, folder: Path) -> None:
        """Write the state into `folder`, which is made if it is missing."""
        arrays, values = self.state()
        folder.mkdir(parents=True, exist_ok=True)
        whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        (folder / STATE).write_bytes(safetensors.numpy.save(whole))
        (folder / META).write_text(json.dumps({"system": self.name, **values}) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `save` wrote; BaselineError where the folder holds another system or none."""
        try:
            values = json.loads((folder / META).read_text(encoding="utf-8"))
            arrays = safetensors.numpy.load((folder / STATE).read_bytes())
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            raise BaselineError(f"{folder} holds no stored recommender: {error}") from error
        if values.get("system") != cls.name:
            raise BaselineError(f"{folder} holds {values.get('system')!r}, not {cls.name!r}")
        return cls.restore(arrays, values)


def probabilities(scores: Scores, logits: bool) -> NDArray[np.float64]:
    """Scores [B, M] as probabilities: the softmax of logits, the shares of weights (all 0 where every weight is).

    >>> probabilities(np.array([[3.0, 1.0]], dtype=np.float32), logits=False)
    array([[0.75, 0.25]])
    """
    values = scores.astype(np.float64)
    if logits:
        values = np.exp(values - values.max(axis=1, keepdims=True))
    total = values.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(values, total, out=np.zeros_like(values), where=total > 0))
