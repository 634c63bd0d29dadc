"""What the network systems share: training on the next play, early stopping on the newest part of training."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from msam import metrics
from msam.baselines.contract import Arrays, BaselineError, Recommender, Scores
from msam.config import HOLDOUT
from msam.listening import History, Integers, Listening
from msam.sequences import batches
from msam.training import reproducible


def epochs_for(plays: int, batch: int, least: int, steps: int) -> int:
    """Epochs that make `steps` steps on so many plays: at least `least`, at most five times as many.

    >>> [epochs_for(plays, 100, least=6, steps=2700) for plays in (46_000, 20_000, 1000)]
    [6, 14, 30]
    """
    return min(max(-(-steps // -(-max(plays, 1) // batch)), least), 5 * least)


@dataclass(frozen=True, slots=True)
class Settings:
    """How the networks are trained: batch 100 and Adam as in the paper, the epoch with the best holdout kept.

    chunk: plays of one user taken in a row into a batch, as MSAM's training does. The rate is twice the paper's 1e-3,
    for few epochs; MSAM is trained with the same here. steps: what a small log gets at least (`epochs_for`).
    """

    epochs: int = 6
    steps: int = 2700
    batch: int = 100
    chunk: int = 10
    learning_rate: float = 2e-3
    patience: int = 2
    holdout: float = HOLDOUT
    max_holdout: int = 1000
    threads: int = 1

    def epochs_on(self, plays: int) -> int:
        """Epochs on a log with so many plays to train on."""
        return epochs_for(plays, self.batch, self.epochs, self.steps)


class NeuralRecommender(Recommender):
    """A torch network from features of a history to logits over the catalogue; Eq. 27's loss for all of them."""

    logits: ClassVar[bool] = True
    seeded: ClassVar[bool] = True
    network: nn.Module

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.sizes: dict[str, Any] = {}
        self.losses: list[float] = []
        self.figures: list[float] = []  # holdout NDCG@20 of each epoch

    @abstractmethod
    def measure(self, train: Listening) -> dict[str, Any]:
        """Sizes of the network for this data, as `build` takes them; values that JSON has."""

    @abstractmethod
    def build(self, **sizes: Any) -> nn.Module:
        """The network, with zeros where `describe` will put content."""

    def describe(self, network: nn.Module, train: Listening) -> None:
        """Copy what is known of items and users into the network's buffers."""

    @abstractmethod
    def features(self, histories: Sequence[History]) -> tuple[Tensor, ...]:
        """What `network` is called with: tensors with B rows."""

    def fit(self, train: Listening, seed: int) -> None:
        with reproducible(seed, self.settings.threads):
            self.sizes = self.measure(train)
            self.network = self.build(**self.sizes)
            self.describe(self.network, train)
            self._train(train, seed)

    def _train(self, train: Listening, seed: int) -> None:
        cuts = train.cuts(self.settings.holdout)
        held = train.targets(cuts)
        positions = np.setdiff1d(train.targets(), held)
        if not len(positions):
            raise BaselineError(f"{self.name}: no user has two plays to train on")
        some = spread(held, self.settings.max_holdout)
        optimiser = torch.optim.Adam(self.network.parameters(), self.settings.learning_rate, fused=True)
        order = torch.Generator().manual_seed(seed)
        best, since, kept = -1.0, 0, None
        self.losses, self.figures = [], []
        for _ in range(self.settings.epochs_on(len(positions))):
            self.losses.append(self._epoch(train, positions, optimiser, order))
            self.network.eval()
            figure = metrics.ndcg(self._ranks(train, some), 20)
            self.figures.append(figure)
            since += 1
            if figure > best:
                best, since, kept = figure, 0, copy.deepcopy(self.network.state_dict())
            if len(some) and since >= self.settings.patience:
                break
        if kept is not None and len(some):
            self.network.load_state_dict(kept)
        self.network.eval()

    def _epoch(
        self, train: Listening, positions: Integers, optimiser: torch.optim.Optimizer, order: torch.Generator
    ) -> float:
        self.network.train()
        total = 0.0
        for part in batches(positions, self.settings.chunk, self.settings.batch, order):
            optimiser.zero_grad(set_to_none=True)
            logits = self.network(*self.features(train.histories(part)))
            loss = functional.cross_entropy(logits, torch.from_numpy(train.plays[part]))
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
            optimiser.step()
            total += float(loss.detach()) * len(part)
        return total / len(positions)

    def _ranks(self, data: Listening, positions: Integers) -> np.ndarray[Any, np.dtype[np.float64]]:
        parts = [positions[start : start + 256] for start in range(0, len(positions), 256)]
        found = [metrics.ranks_of(self.score(data.histories(part)), data.plays[part]) for part in parts]
        return np.concatenate([np.zeros(0), *found])

    @torch.inference_mode()
    def score(self, histories: Sequence[History]) -> Scores:
        logits: Scores = self.network(*self.features(histories)).float().numpy()
        return logits

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        arrays = {name: tensor.numpy() for name, tensor in self.network.state_dict().items()}
        return arrays, {"sizes": self.sizes, "losses": self.losses, "figures": self.figures}

    @classmethod
    def restore(cls, arrays: Arrays, values: Mapping[str, Any]) -> Self:
        system = cls()
        system.sizes, system.losses, system.figures = values["sizes"], values["losses"], values["figures"]
        system.network = system.build(**system.sizes)
        system.network.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in arrays.items()})
        system.network.eval()
        return system


def spread(positions: Integers, most: int) -> Integers:
    """At most `most` of the positions, from the first to the last."""
    places = np.linspace(0, len(positions) - 1, min(len(positions), most)).astype(int)
    return np.asarray(positions[places], dtype=np.int64)


def recent(histories: Sequence[History], size: int) -> Tensor:
    """The last `size` items of each history, oldest first, left padded with -1: int64 [B, size]."""
    out = np.full((len(histories), size), -1, dtype=np.int64)
    for row, history in enumerate(histories):
        last = history.items[-size:]
        if len(last):
            out[row, size - len(last) :] = last
    return torch.from_numpy(out)


def users_of(histories: Sequence[History]) -> Tensor:
    """User of each history: int64 [B]."""
    return torch.tensor([history.user for history in histories], dtype=torch.int64)


def pool(vectors: Tensor, items: Tensor, weights: Tensor) -> Tensor:
    """Weighted means of rows of vectors [M, D] at items int64 [B, K] (-1: none), weights [K] -> [B, D]."""
    share = weights * (items >= 0)
    share = share / share.sum(1, keepdim=True).clamp(min=1e-9)
    return functional.embedding_bag(items.clamp(min=0), vectors, per_sample_weights=share, mode="sum")


def mean_words(words: Tensor, mask: Tensor) -> Tensor:
    """Mean word vector of each row: words float16 [n, P, E], mask bool [n, P] -> float32 [n, E], 0 without words."""
    count = mask.sum(1, keepdim=True).clamp(min=1)
    return (words.float() * mask.unsqueeze(-1)).sum(1) / count
