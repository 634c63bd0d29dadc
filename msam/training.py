"""Training of MSAM on sliding windows (Eq. 27), with early stopping on each user's latest plays."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from msam.cold import calibrate, share_places
from msam.config import MSAMConfig, TrainConfig
from msam.errors import MethodError
from msam.network.inference import encode_tracks
from msam.network.inputs import TrackInputs
from msam.network.model import MSAM
from msam.network.rows import ContentRows
from msam.network.sides import UserSide
from msam.ranking import evaluate, ranks
from msam.sampled_softmax import Drawn, draw
from msam.sequences import Dataset, Integers, batches
from msam.wide_training import WideConfig, add_wide

__all__ = ["Dataset", "Progress", "TrainReport", "Trained", "TrainingError", "evaluate", "ranks", "train"]


_ALL, _NEGATIVES = 20_000, 4096  # tracks up to which the softmax is over all by default, and what is drawn beyond


class TrainingError(MethodError):
    """There is nothing to train on, or the loss is no longer a number."""


@dataclass(frozen=True, slots=True)
class Progress:
    """State after an epoch (or the part of one that the time budget allowed)."""

    epoch: int
    loss: float
    holdout: dict[str, float]
    seconds: float


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What training did: mean loss and holdout figures per epoch, the epoch kept, and why it stopped."""

    losses: tuple[float, ...]
    history: tuple[dict[str, float], ...]
    holdout: dict[str, float]
    best_epoch: int
    epochs: int
    windows: int
    tracks: int
    seconds: float
    stopped: str  # "epochs" | "patience" | "time"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready mapping for a manifest."""
        return asdict(self)


class Trained(NamedTuple):
    """A model and the ids of the tracks that have a trained row, in row order."""

    model: MSAM
    track_ids: tuple[str, ...]
    report: TrainReport | None = None


@contextmanager
def reproducible(seed: int, threads: int) -> Iterator[None]:
    """Seeded, deterministic, on `threads` threads inside; the process's own settings are put back after."""
    fills: Any = torch.utils.deterministic  # its one setting is not typed
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), fills.fill_uninitialized_memory
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)
        fills.fill_uninitialized_memory = False  # it costs a tenth of the time and every buffer here is written first
        try:
            yield
        finally:
            fills.fill_uninitialized_memory = before[2]
            torch.use_deterministic_algorithms(before[1])
            torch.set_num_threads(before[0])


def _start_from(model: MSAM, track_ids: tuple[str, ...], init: Trained, inputs: TrackInputs) -> None:
    """Copy the weights of `init`, and the rows of the tracks in both; a new track starts from its content."""
    if init.model.config != model.config:
        raise TrainingError("a model can only be started from one of the same configuration")
    known = {track: row for row, track in enumerate(init.track_ids)}
    pairs = [(row, known[track]) for row, track in enumerate(track_ids) if track in known]
    mine = torch.tensor([pair[0] for pair in pairs], dtype=torch.int64)
    theirs = torch.tensor([pair[1] for pair in pairs], dtype=torch.int64)
    per_row = {"u.residual", "u.frozen", "u.weight"}
    old = init.model.state_dict()
    model.load_state_dict({name: tensor for name, tensor in old.items() if name not in per_row}, strict=False)
    model.eval()
    with torch.no_grad():
        if isinstance(model.u, ContentRows):
            model.u.residual.index_copy_(0, mine, old["u.residual"][theirs])
        else:
            if bool(model.u.cold_weight.any()):
                model.u.weight.copy_(encode_tracks(model, inputs).content)
            model.u.weight.index_copy_(0, mine, old["u.weight"][theirs])
    model.train()


def _select(rows: Tensor, some: Tensor | None) -> Tensor:
    return rows if some is None else rows.index_select(0, some)


def _optimiser(model: MSAM, config: TrainConfig) -> torch.optim.Optimizer:
    residual = [model.u.residual] if isinstance(model.u, ContentRows) else []
    others = [parameter for parameter in model.parameters() if not any(parameter is free for free in residual)]
    groups: list[dict[str, Any]] = [{"params": others, "weight_decay": config.weight_decay}]
    if residual:
        groups.append({"params": residual, "weight_decay": config.residual_decay})
    kind = torch.optim.Adam if config.optimiser == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.learning_rate, fused=True)


def turned(window: Tensor, share: float) -> Tensor | None:
    """Places [B, K] of each window's plays in the order in which they are read; this share of the windows by chance."""
    if not share:
        return None
    chance = torch.rand(window.shape).where(window >= 0, -1.0).argsort(1)  # padding stays first
    return chance.where(torch.rand(len(window), 1) < share, torch.arange(window.shape[1]))


class _Run:
    """One training run: the data as tensors, and the step over a batch."""

    def __init__(self, data: Dataset, config: MSAMConfig, settings: TrainConfig, init: Trained | None) -> None:
        self.data, self.config, self.settings = data, config, settings
        self.positions, self.held = data.split(settings.holdout)
        self.later = self.held if len(self.held) else self.positions  # what cold scores are measured on
        if not len(self.positions):
            raise TrainingError("no user has two plays to train on")
        self.catalogue_rows = self._trained_rows()
        self.members = torch.from_numpy(np.flatnonzero(self.catalogue_rows >= 0))
        self.track_ids = tuple(data.track_ids[index] for index in self.members.tolist())
        self.inputs = data.tracks.select(self.members)
        self.model = MSAM(config, len(self.members))
        if init is None:
            self.model.fit_scales(self.inputs)
        else:
            _start_from(self.model, self.track_ids, init, self.inputs)
        self.content = self._content()
        self.groups = None if self.model.groups is None else self.model.all_groups(self.inputs)
        self.optimiser = _optimiser(self.model, settings)
        self.mean: AveragedModel | None = None
        if settings.average:
            running = get_ema_multi_avg_fn(settings.average)  # type: ignore[no-untyped-call]
            self.mean = AveragedModel(self.model, multi_avg_fn=running)
        self.order = torch.Generator().manual_seed(settings.seed)

    @property
    def result(self) -> MSAM:
        """The model that is checked and kept: that of the last step, or the running mean of those of all."""
        return self.model if self.mean is None else cast(MSAM, self.mean.module)

    def _trained_rows(self) -> Integers:
        """Row of every catalogue track, -1 for one never played in the training part: it must stay cold.

        As a negative of every window and the target of none it would only learn never to be recommended.
        """
        played = np.zeros(len(self.data.track_ids), dtype=np.bool_)
        played[self.data.plays[self.positions]] = True
        played[self.data.plays[self.positions - 1]] = True
        return np.where(played, np.cumsum(played) - 1, -1).astype(np.int64)

    def _content(self) -> Tensor | None:
        if self.model.raw_content is None:
            return None
        return self.model.all_content(self.inputs)

    def _rows(self, some: Tensor | None) -> Tensor:
        """Rows of U of `some` tracks of training, or of all [n, 2d]."""
        head = self.model.u
        if not isinstance(head, ContentRows):
            return _select(head.weight, some)
        assert self.content is not None
        content = _select(self.content, some)
        keep = (torch.rand(len(content), 1) >= self.settings.residual_dropout).float()
        return head.training_rows(content, _select(head.residual, some) * keep)

    def _ranked(self, rows: Tensor, some: Tensor | None = None) -> Tensor:
        """Rows of U of `some` tracks of training, or of all, with what group attention multiplies."""
        return rows if self.groups is None else torch.cat([rows, _select(self.groups, some)], 1)

    def _loss(self, positions: Integers) -> Tensor:
        """Mean loss (Eq. 27) of the windows before `positions`, whose tracks are encoded once each, and no others."""
        plays, data = self.data.windows(positions, self.config.window), self.data
        window = torch.from_numpy(np.where(plays >= 0, self.catalogue_rows[plays], -1))
        targets = torch.from_numpy(self.catalogue_rows[data.plays[positions]])
        drawn = self._draw(window, targets)
        rows = self._rows(None if drawn is None else drawn.tracks)

        unique, local = torch.unique(window, return_inverse=True)
        pad = int(unique[0] == -1)  # sorted, so a pad is first
        heard = unique[pad:]
        side = self.model.encode_tracks(self.inputs.select(heard))
        if self.config.tied_rows:
            side = self.model.with_rows(side, rows.index_select(0, heard if drawn is None else drawn.places[heard]))
        users, mine = np.unique(data.owner(positions), return_inverse=True)
        user: UserSide = self.model.encode_users(data.users.select(torch.from_numpy(users)))
        hidden = self.model(
            side, local - pad, user.select(torch.from_numpy(mine)), turned(window, self.settings.order_dropout)
        )
        if drawn is None:
            return functional.cross_entropy(self.model.logits(hidden, self._ranked(rows), window), targets)
        window = torch.where(window >= 0, drawn.places[window.clamp(min=0)], -1)
        logits = self.model.logits(hidden, self._ranked(rows, drawn.tracks), window) + drawn.weights
        return functional.cross_entropy(logits, drawn.places[targets])

    def _draw(self, window: Tensor, targets: Tensor) -> Drawn | None:
        """What a batch is ranked among, None for all tracks of training."""
        negatives = self.settings.negatives
        if negatives is None:
            negatives = _NEGATIVES if len(self.members) > _ALL else 0
        return draw(len(self.members), torch.cat([window.flatten(), targets]), negatives) if negatives else None

    def step(self, positions: Integers) -> float:
        """One optimiser step on the windows before `positions`; returns the mean loss (Eq. 27)."""
        self.model.train()
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._loss(positions)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise TrainingError(f"the loss became {value}; lower the learning rate")
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimiser.step()
        if self.mean is not None:
            self.mean.update_parameters(self.model)
        return value

    def epoch(self, expired: Callable[[], bool]) -> tuple[float | None, bool]:
        """Mean loss over the batches done (None: not one), and whether the time ran out before the last."""
        losses: list[float] = []
        for positions in batches(self.positions, self.settings.chunk, self.settings.batch, self.order):
            if expired():
                return float(np.mean(losses)) if losses else None, True
            losses.append(self.step(positions))
        return float(np.mean(losses)), False

    def check(self) -> dict[str, float]:
        """Holdout figures of the model as it is, ranking the whole catalogue, cold tracks included."""
        if not len(self.held):
            return {}
        model = self.result.eval()
        if isinstance(model.u, ContentRows):
            assert self.content is not None
            model.u.freeze(self.content)
        some = self.held[np.linspace(0, len(self.held) - 1, min(len(self.held), self.settings.max_holdout)).astype(int)]
        self.calibrate()
        return evaluate(model, self.data, self.catalogue_rows, some)

    def calibrate(self) -> None:
        """Make the scores of cold tracks comparable with the others', on the holdout or, without one, in training."""
        if self.config.cold_calibration:
            calibrate(self.result, self.data, self.catalogue_rows, self.later)


def train(
    data: Dataset,
    config: MSAMConfig,
    settings: TrainConfig,
    *,
    init: Trained | None = None,
    wide: WideConfig | None = None,
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Trained:
    """Train on `data`: MSAM (the epoch with the best holdout NDCG@20 is kept), then its wide head, if it has one.

    Two runs give the same bits.

    Tracks of the catalogue that are never played before the holdout stay cold. Raises TrainingError.
    """
    with reproducible(settings.seed, settings.threads):
        run = _Run(data, config, settings, init)
        trained = _train(run, settings, progress)
        offered = None
        if config.wide_head and len(run.held):
            wide = wide or WideConfig(seed=settings.seed)
            offered = add_wide(trained.model, data, run.catalogue_rows, run.held, wide, say)
        if config.cold_share:
            share_places(trained.model, data, run.catalogue_rows, run.later, offered)
        return trained


def _train(run: _Run, settings: TrainConfig, progress: Callable[[Progress], None] | None) -> Trained:
    start = time.monotonic()

    def expired() -> bool:
        return settings.max_seconds is not None and time.monotonic() - start >= settings.max_seconds

    losses: list[float] = []
    history: list[dict[str, float]] = []
    best, best_epoch, kept = -1.0, 0, None
    stopped = "epochs"
    for epoch in range(1, settings.epochs + 1):
        loss, late = run.epoch(expired)
        if loss is None:
            stopped = "time"
            break
        holdout = run.check()
        losses.append(loss)
        history.append(holdout)
        if progress is not None:
            progress(Progress(epoch, loss, holdout, time.monotonic() - start))
        if holdout and holdout["ndcg@20"] > best:
            best, best_epoch = holdout["ndcg@20"], epoch
            kept = {name: tensor.clone() for name, tensor in run.result.state_dict().items()}
        if late or expired():
            stopped = "time"
            break
        if holdout and epoch - best_epoch >= settings.patience:
            stopped = "patience"
            break
    if kept is not None:
        run.result.load_state_dict(kept)
    run.result.eval()
    run.result.finish(run.inputs)
    run.calibrate()
    report = TrainReport(
        tuple(losses),
        tuple(history),
        history[best_epoch - 1] if best_epoch else {},
        best_epoch or len(losses),
        len(losses),
        len(run.positions),
        len(run.track_ids),
        time.monotonic() - start,
        stopped,
    )
    return Trained(run.result, run.track_ids, report)
