"""Model calls at one fixed batch shape, so that a row gives the same bits whatever shares its batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from msam.network.inputs import TrackInputs, UserInputs, spans
from msam.network.model import MSAM
from msam.network.sides import Hidden, TrackSide, UserSide

TRACK_BATCH = 64
USER_BATCH = 32
WINDOW_BATCH = 32


@torch.inference_mode()
def encode_tracks(model: MSAM, inputs: TrackInputs, batch: int = TRACK_BATCH) -> TrackSide:
    """Sides of any number of tracks, in calls of exactly `batch`."""
    return TrackSide.cat([side.head(len(part)) for part, side in _sides(model, inputs, batch)])


def _sides(model: MSAM, inputs: TrackInputs, batch: int) -> Iterator[tuple[Tensor, TrackSide]]:
    """Which tracks are encoded together, and their sides, padded to `batch`."""
    for part in spans(len(inputs), batch) or [torch.arange(0)]:
        yield part, model.encode_tracks(inputs.select(part).padded(batch))


class Encoded(NamedTuple):
    """What n tracks are read and ranked with."""

    side: TrackSide
    rows: Tensor  # [n, 2d] of U
    offsets: Tensor  # [n] added to the logits


@torch.inference_mode()
def encode_catalogue(model: MSAM, inputs: TrackInputs, trained: Tensor, batch: int = TRACK_BATCH) -> Encoded:
    """Any number of tracks, in calls of exactly `batch`; trained int64 [n]: rows in training, -1 for a cold track."""
    parts = []
    for part, side in _sides(model, inputs, batch):
        known = torch.cat([trained[part], trained.new_full((batch - len(part),), -1)])
        parts.append((model.tied(side, known).head(len(part)), model.rows(side, known)[: len(part)]))
    sides, found = zip(*parts, strict=True)
    return Encoded(TrackSide.cat(sides), torch.cat(found), model.offsets(trained))


@torch.inference_mode()
def encode_users(model: MSAM, users: UserInputs, batch: int = USER_BATCH) -> UserSide:
    """Sides of any number of users, in calls of exactly `batch`."""
    sides = []
    for part in spans(len(users), batch) or [torch.arange(0)]:
        some = users.select(part)
        sides.append(model.encode_users(some.padded(batch)).head(len(some)))
    return UserSide.cat(sides)


def stack_windows(windows: Sequence[Sequence[int]], size: int, batch: int = WINDOW_BATCH) -> Tensor:
    """Rows of tracks per window, oldest first, to int64 [batch, size]: cut to the newest, left padded with -1."""
    out = np.full((batch, size), -1, dtype=np.int64)
    for row, window in enumerate(windows):
        recent = window[-size:]
        if recent:
            out[row, size - len(recent) :] = recent
    return torch.from_numpy(out)


@torch.inference_mode()
def score(model: MSAM, side: TrackSide, rows: Tensor, window: Tensor, users: UserSide) -> tuple[Tensor, Hidden]:
    """Logits [batch, n] over the n tracks of side and rows, and the state, for window [batch, K] and users [batch]."""
    hidden = model(side, window, users)
    return model.logits(hidden, rows, window), hidden
