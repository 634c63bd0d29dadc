"""GRU4Rec and SASRec as the library cornac has them (`pip install 'msam[peers]'`), behind our contract.

Hidasi, Karatzoglou: Recurrent neural networks with top-k gains for session-based recommendations, CIKM 2018.
Kang, McAuley: Self-attentive sequential recommendation, ICDM 2018.

The library's networks, losses, samplers and training loops; ours are the data, the batched scores and the files. The
epoch with the best NDCG@20 on the last tenth of training is kept, as with all networks. Items that the rest of training
lacks have no rows: they are left out of what is read and get the least score.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from msam.baselines.contract import BaselineError
from msam.baselines.neural import NeuralRecommender, Settings, recent, spread
from msam.listening import History, Integers, Listening
from msam.training import reproducible


class Whole(nn.Module):
    """A library network over the N items that it knows, as logits over all M; `place` [M]: their rows, -1 for none."""

    place: Tensor

    def __init__(self, inner: Any, items: int) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("place", torch.full((items,), -1, dtype=torch.int64))

    @abstractmethod
    def known(self, rows: Tensor) -> Tensor:
        """Logits [B, N] after rows int64 [B, T] of known items, oldest first, left padded with -1."""

    def forward(self, rows: Tensor) -> Tensor:
        """Logits [B, M]."""
        logits = self.known(rows)
        return torch.cat([logits, logits.amin(1, keepdim=True)], 1)[:, self.place]  # -1 is the column of the least


class Recurrent(Whole):
    """GRU4Rec; where nothing is known of the session, the scores of its first state: the biases."""

    def known(self, rows: Tensor) -> Tensor:
        hidden = [torch.zeros(len(rows), width) for width in self.inner.layers]
        for row in rows[:, (rows >= 0).any(0)].T:
            there = row >= 0
            self.inner.hidden_step(self.inner.Wy(torch.where(there, row, self.inner.n_items)), hidden)
            hidden = [state * there[:, None] for state in hidden]
        logits: Tensor = self.inner.score_items(hidden[-1], self.inner.Wy.weight[:-1], self.inner.By.weight[:-1])
        return logits


class Attentive(Whole):
    """SASRec."""

    def known(self, rows: Tensor) -> Tensor:
        known = self.inner.item_num
        logits: Tensor = self.inner(None, torch.where(rows < 0, known, rows), torch.arange(known))
        return logits


class CornacPeer(NeuralRecommender):
    """A next-item model of cornac. `update` learns nothing: histories grow, weights stay."""

    wrapper: ClassVar[type[Whole]]
    longest: ClassVar[int]
    """Known plays that are read."""
    network: Whole

    @abstractmethod
    def context(self, history: History) -> Integers:
        """The plays that the next one is predicted from, oldest first."""

    @abstractmethod
    def sequences(self, train: Listening) -> Iterator[Integers]:
        """What the model is trained on: each play of a sequence is predicted from those before it."""

    @abstractmethod
    def model(self, sequences: int, **settings: Any) -> Any:
        """The library's model for so many sequences, with `settings` that both have."""

    @abstractmethod
    def inner(self, known: int) -> nn.Module:
        """The library's network for so many items."""

    def measure(self, train: Listening) -> dict[str, Any]:
        return {"items": len(train.items), "known": int((train.popularity() > 0).sum())}

    def build(self, **sizes: Any) -> Whole:
        return self.wrapper(self.inner(sizes["known"]), sizes["items"])

    def fit(self, train: Listening, seed: int) -> None:
        cuts = train.cuts(self.settings.holdout)
        begun = train.first(cuts)
        self.sizes = self.measure(begun)
        known = begun.popularity() > 0
        sequences = [items for items in self.sequences(begun) if len(items) > 1]
        if not sequences:
            raise BaselineError(f"{self.name}: nothing to train on, no sequence has two plays")
        with reproducible(seed, self.settings.threads), _numpy_left_alone():
            self.network = self.build(**self.sizes)
            self.network.place[torch.from_numpy(known)] = torch.arange(self.sizes["known"])
            model = self.model(
                len(sequences),
                n_epochs=self.settings.epochs_on(sum(map(len, sequences))),
                model_selection="best",
                val_eval_every=1,
                val_metric="ndcg",
                val_k=20,
                seed=seed,
            )
            held = spread(train.targets(cuts), self.settings.max_holdout)
            tests = [np.append(self._context(train.history(p)), self._rows(train.plays[p : p + 1])) for p in held]
            model.fit(
                self._dataset([self._rows(items) for items in sequences], seed),
                self._dataset([rows for rows, p in zip(tests, held, strict=True) if known[train.plays[p]]], seed),
            )
            self.network.inner = model.model
        self.network.eval()

    def _rows(self, items: Integers) -> Integers:
        rows: Integers = self.network.place.numpy()[items]
        return rows[rows >= 0]

    def _context(self, history: History) -> Integers:
        return self._rows(self.context(history))[-self.longest :]

    def _dataset(self, sequences: Sequence[Integers], seed: int) -> Any:
        """Sequences of two plays and more in the library's form; None where there is none."""
        from cornac.data import SequentialDataset

        plays = [
            (number, int(row), step)
            for number, rows in enumerate(sequences)
            if len(rows) > 1
            for step, row in enumerate(rows)
        ]
        rows = {row: row for row in range(self.sizes["known"])}
        return SequentialDataset.build(plays, fmt="SIT", global_iid_map=rows, seed=seed) if plays else None

    def features(self, histories: Sequence[History]) -> tuple[Tensor, ...]:
        contexts = [history._replace(items=self._context(history)) for history in histories]
        return (recent(contexts, self.longest),)


class GRU4Rec(CornacPeer):
    """Trained on sessions in parallel with the library's settings: 100 units, cross-entropy, 2,048 negatives, Adagrad.

    The library draws the first weights from seed 42 whatever the seed: a seed changes the order and the negatives.
    """

    name: ClassVar[str] = "gru4rec"
    wrapper: ClassVar[type[Whole]] = Recurrent
    longest: ClassVar[int] = 200

    def context(self, history: History) -> Integers:
        return history.session()

    def sequences(self, train: Listening) -> Iterator[Integers]:
        return (items for _, items, _ in train.sessions())

    def model(self, sequences: int, **settings: Any) -> Any:
        from cornac.models import GRU4Rec as Model

        # The library's iterator fails where sessions are too few to fill the batch.
        return Model(batch_size=min(self.settings.batch, sequences), **settings)

    def inner(self, known: int) -> nn.Module:
        from cornac.models.gru4rec.gru4rec import GRU4RecModel

        network: nn.Module = GRU4RecModel(known)
        return network


class SASRec(CornacPeer):
    """Trained on users' whole sequences, the newest 50 plays before each play: 2 blocks, 1 head, d = 50, as published.

    Loss and negatives (cross-entropy over 2,048) are the library's, rate and batch those of all networks here, the
    epochs 3, because the library encodes the 50 plays anew for every target.
    """

    name: ClassVar[str] = "sasrec"
    wrapper: ClassVar[type[Whole]] = Attentive
    longest: ClassVar[int] = 50
    DIM: ClassVar[int] = 50

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings or Settings(epochs=3, steps=1350))

    def context(self, history: History) -> Integers:
        return history.items

    def sequences(self, train: Listening) -> Iterator[Integers]:
        return (train.plays[start:stop] for start, stop in zip(train.starts[:-1], train.starts[1:], strict=True))

    def model(self, sequences: int, **settings: Any) -> Any:
        from cornac.models import SASRec as Model

        ours = {"batch_size": self.settings.batch, "learning_rate": self.settings.learning_rate}
        return Model(embedding_dim=self.DIM, max_len=self.longest, **ours, **settings)

    def inner(self, known: int) -> nn.Module:
        from cornac.models.sasrec.sasrec import SASRecModel

        network: nn.Module = SASRecModel(known, self.DIM, self.longest, use_biases=False, pad_idx=known)
        return network


@contextmanager
def _numpy_left_alone() -> Iterator[None]:
    """The library seeds numpy's global generator."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)
