"""MSAM behind the contract: published (the paper's model alone) and extended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from msam.baselines.contract import Arrays, Recommender, Scores
from msam.baselines.neural import epochs_for, recent, users_of
from msam.config import EXTENSIONS, CountsConfig, MSAMConfig, TrainConfig
from msam.counts import CandidateMaker, Discography, KeyIndex, Plays, SharedCounts, keys_of, optional_keys
from msam.counts.keys import Keys
from msam.listening import History, Integers, Listening
from msam.network.inference import encode_catalogue, encode_users
from msam.network.model import MSAM
from msam.network.sides import TrackSide, UserSide
from msam.network.wide import WideInputs
from msam.sequences import Dataset
from msam.training import train
from msam.wide_candidates import inputs_of
from msam.wide_training import stream_of

TRAINING = TrainConfig(epochs=2, learning_rate=2e-3, patience=2, max_holdout=1000)
"""A step costs 0.20 s of CPU at d = 100 and 0.11 s at d = 64, several times one of the other networks. Two epochs keep
MSAM, both ways, at about six minutes of CPU on a log with 50,000 plays to train on."""
STEPS = 900
"""What a small log gets at least (`epochs_for`)."""


class Counts:
    """Everyone's counts and the catalogue in the keys of the wide head; users' own counts come from their histories."""

    def __init__(self, keys: Mapping[str, Keys], shared: SharedCounts) -> None:
        self.keys, self.shared = keys, shared
        self.index = KeyIndex()
        self.index.add(keys["items"])
        self.book = Discography()
        order = np.argsort(keys["items"])
        self.book.update(keys["items"][order], keys["artists"][order], keys["albums"][order])
        self.maker = CandidateMaker(shared.config)

    @classmethod
    def of(cls, data: Dataset, config: CountsConfig) -> Self:
        """Of all plays of `data`."""
        shared, stream = SharedCounts(config), stream_of(data)
        shared.fold(stream.users, stream.tracks, stream.artists, stream.times)
        keys = {
            "items": keys_of(data.track_ids),
            "users": keys_of(data.user_ids),
            "artists": optional_keys(data.artists),
            "albums": optional_keys(data.albums),
        }
        return cls(keys, shared)

    def inputs(self, histories: Sequence[History]) -> WideInputs:
        """Candidates after each history, as rows of the catalogue."""
        own = [Plays(self.keys["items"][h.items], h.times) for h in histories]
        found = self.maker.batch(own, self.shared, self.book)
        return inputs_of(found, self.index)

    def fold(self, user: int, item: int, time: float) -> None:
        """Take in a play of anyone."""
        one = np.array([item])
        self.shared.fold(
            self.keys["users"][[user]], self.keys["items"][one], self.keys["artists"][one], np.array([float(time)])
        )

    def arrays(self) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
        """Everything `restored` needs."""
        return {f"keys/{name}": keys for name, keys in self.keys.items()} | {
            f"shared/{name}": array for name, array in self.shared.to_arrays().items()
        }

    @classmethod
    def restored(cls, arrays: Arrays, config: CountsConfig) -> Self:
        """Inverse of `arrays`."""
        keys = {name.removeprefix("keys/"): a.copy() for name, a in arrays.items() if name.startswith("keys/")}
        shared = {name.removeprefix("shared/"): a for name, a in arrays.items() if name.startswith("shared/")}
        return cls(keys, SharedCounts.from_arrays(config, shared))


def _ids(numbers: Integers) -> tuple[str | None, ...]:
    return tuple(None if number < 0 else str(number) for number in numbers.tolist())


class MSAMPublished(Recommender):
    """Eq. 11-27 and nothing else. The tracks' and users' sides are computed once after the fit."""

    name: ClassVar[str] = "msam"
    logits: ClassVar[bool] = True
    seeded: ClassVar[bool] = True
    published: ClassVar[bool] = True
    narrow: ClassVar[bool] = False
    """Whether d is that of `Content.narrow`, as in the stream, rather than the paper's."""
    switches: ClassVar[dict[str, bool]] = {}
    """Extensions of `MSAMConfig` set otherwise than by default."""

    def __init__(self, training: TrainConfig = TRAINING, steps: int = STEPS) -> None:
        self.training, self.steps = training, steps
        self.losses: list[float] = []
        self.figures: list[float] = []  # holdout NDCG@20 of each epoch
        self.model: MSAM
        self.side: TrackSide
        self.users: UserSide
        self.rows: Tensor
        self.offsets: Tensor
        self.counts: Counts | None = None  # what the wide head reads

    def fit(self, train_part: Listening, seed: int) -> None:
        content = train_part.content
        sizes, tracks = content.narrowed() if self.narrow else (content.model, content.tracks)
        data = Dataset(
            train_part.items,
            tracks,
            train_part.users,
            content.users,
            train_part.plays,
            train_part.times,
            train_part.starts,
            _ids(content.artist),
            _ids(content.album),
        )
        config = MSAMConfig.from_dict({**sizes.to_dict(), "published": self.published, **self.switches})
        training, plays = self.training, len(data.split(self.training.holdout)[0])
        epochs = epochs_for(plays, training.batch, training.epochs, self.steps)
        trained = train(data, config, replace(training, seed=seed, epochs=epochs))
        assert trained.report is not None
        self.losses = list(trained.report.losses)
        self.figures = [epoch["ndcg@20"] for epoch in trained.report.history if epoch]
        place = {item: row for row, item in enumerate(trained.track_ids)}
        index = torch.tensor([place.get(item, -1) for item in train_part.items], dtype=torch.int64)
        self.model = trained.model.requires_grad_(False)
        self.side, self.rows, self.offsets = encode_catalogue(self.model, tracks, index)
        self.users = encode_users(self.model, content.users)
        self.counts = Counts.of(data, config.counts) if self.model.wide_head is not None else None

    @torch.inference_mode()
    def score(self, histories: Sequence[History]) -> Scores:
        window = recent(histories, self.model.config.window)
        hidden = self.model(self.side, window, self.users.select(users_of(histories)))
        logits = self.model.logits(hidden, self.rows, window) + self.offsets
        wide = None if self.counts is None else self.counts.inputs(histories)
        joined: Scores = self.model.join(logits, wide).numpy()
        return joined

    def update(self, history: History, item: int, time: float) -> None:
        if self.counts is not None:
            self.counts.fold(history.user, item, time)

    @torch.inference_mode()
    def attention(self, histories: Sequence[History]) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
        """Mean weights over the plays of the windows: of sound, words, order [3]; of the audio groups [G]."""
        window = recent(histories, self.model.config.window)
        user = self.users.select(users_of(histories))
        told = self.model.explain(self.model(self.side, window, user), self.side, window, user)
        plays = (window >= 0).sum().clamp(min=1)
        return {
            "modality": (told.gamma.sum((0, 1)) / plays).double().numpy(),
            "audio": (told.beta.sum((0, 1)) / plays).double().numpy(),
        }

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        parts: dict[str, Tensor] = {f"network/{name}": tensor for name, tensor in self.model.state_dict().items()}
        parts |= {f"side/{name}": tensor for name, tensor in zip(TrackSide._fields, self.side, strict=True)}
        parts |= {f"users/{name}": tensor for name, tensor in zip(UserSide._fields, self.users, strict=True)}
        parts |= {"rows": self.rows, "offsets": self.offsets}
        counts = {} if self.counts is None else self.counts.arrays()
        values = {"config": self.model.config.to_dict(), "count": self.model.row_count}
        arrays = {name: tensor.numpy() for name, tensor in parts.items()} | {
            f"counts/{n}": a for n, a in counts.items()
        }
        return arrays, {**values, "losses": self.losses, "figures": self.figures}

    @classmethod
    def restore(cls, arrays: Arrays, values: Mapping[str, Any]) -> Self:
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        system = cls()
        system.losses, system.figures = values["losses"], values["figures"]
        system.model = MSAM(MSAMConfig.from_dict(values["config"]), int(values["count"]))
        network = {name.removeprefix("network/"): t for name, t in tensors.items() if name.startswith("network/")}
        system.model.load_state_dict(network)
        system.model.eval().requires_grad_(False)
        system.side = TrackSide(*(tensors[f"side/{name}"] for name in TrackSide._fields))
        system.users = UserSide(*(tensors[f"users/{name}"] for name in UserSide._fields))
        system.rows, system.offsets = tensors["rows"], tensors["offsets"]
        if system.model.wide_head is not None:
            counts = {name.removeprefix("counts/"): a for name, a in arrays.items() if name.startswith("counts/")}
            system.counts = Counts.restored(counts, system.model.config.counts)
        return system


class MSAMExtended(MSAMPublished):
    """The extensions that `MSAMConfig` has on by default, with the d of the stream's models."""

    name: ClassVar[str] = "msam-extended"
    published: ClassVar[bool] = False
    narrow: ClassVar[bool] = True


def _only(*extensions: str) -> dict[str, bool]:
    return {name: name in extensions for name in EXTENSIONS}


class _Ablation(MSAMExtended):
    narrow: ClassVar[bool] = False


class WithContentRows(_Ablation):
    """Ablation: the published model and content rows (with what makes cold ones comparable)."""

    name: ClassVar[str] = "msam+content-rows"
    switches: ClassVar[dict[str, bool]] = _only("content_rows", "cold_calibration")


class WithSiMFRows(_Ablation):
    """Ablation: the published model with rows of U that start as SiMF's factors."""

    name: ClassVar[str] = "msam+simf-rows"
    switches: ClassVar[dict[str, bool]] = _only("simf_rows")


class WithTiedRows(_Ablation):
    """Ablation: the published model that is told the rows of U of the plays, too."""

    name: ClassVar[str] = "msam+tied-rows"
    switches: ClassVar[dict[str, bool]] = _only("tied_rows")


class WithGroupAttention(_Ablation):
    """Ablation: the published model that also attends to the audio groups in which a window agrees."""

    name: ClassVar[str] = "msam+group-attention"
    switches: ClassVar[dict[str, bool]] = _only("group_attention")


class WithColdShare(_Ablation):
    """Ablation: `WithContentRows`, with as many places of lists for cold tracks as they have plays."""

    name: ClassVar[str] = "msam+cold-share"
    switches: ClassVar[dict[str, bool]] = _only("content_rows", "cold_calibration", "cold_share")


class WithCopyHead(_Ablation):
    """Ablation: the published model and the copy head."""

    name: ClassVar[str] = "msam+copy-head"
    switches: ClassVar[dict[str, bool]] = _only("copy_head")


class WithWideHead(_Ablation):
    """Ablation: the published model and the wide head."""

    name: ClassVar[str] = "msam+wide-head"
    switches: ClassVar[dict[str, bool]] = _only("wide_head")
