"""Makes the scores of cold tracks comparable with those of trained ones (an addition to Eq. 26 for new tracks).

A cold track's row comes from its content alone. How much such rows say, and how often listeners go to tracks that
nobody had played before, is measured on the holdout: its tracks that training did not meet are cold there too.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from msam.network.inference import encode_catalogue
from msam.network.model import MSAM
from msam.sequences import Dataset, Integers

_SCALES = (0.25, 0.5, 0.75, 1.0)  # never 0: a new track has to be able to reach a list before the next training
_OFFSETS = torch.linspace(-12.0, 6.0, 73)
_MOST = 600  # windows: two numbers need no more
_LIST = 20  # places


class Calibration(NamedTuple):
    """Cold logits become `scale` * logit + `offset`."""

    scale: float
    offset: float


def fit(trained: Tensor, cold: Tensor, target: Tensor, is_cold: Tensor) -> Calibration:
    """The calibration with the greatest likelihood of the plays that followed B windows.

    trained [B, M] and cold [B, C] logits, target int64 [B] (a place among the M or the C), is_cold bool [B]. One
    cold play is assumed beside those that are seen, so that a holdout without any does not silence cold tracks.
    """
    everything = trained.logsumexp(1)  # [B]
    best, found = torch.inf, Calibration(0.0, 0.0)
    own = trained.gather(1, target.where(~is_cold, 0).unsqueeze(1)).squeeze(1)
    theirs = cold.gather(1, target.where(is_cold, 0).unsqueeze(1)).squeeze(1)
    for scale in _SCALES:
        mass = (scale * cold).logsumexp(1).unsqueeze(1) + _OFFSETS  # [B, O]
        total = torch.logaddexp(everything.unsqueeze(1), mass)
        hit = torch.where(is_cold.unsqueeze(1), scale * theirs.unsqueeze(1) + _OFFSETS, own.unsqueeze(1))
        loss = (total - hit).sum(0) + (total - mass).mean(0)  # [O]
        place = int(loss.argmin())
        if float(loss[place]) < best:
            best, found = float(loss[place]), Calibration(scale, float(_OFFSETS[place]))
    return found


def share_offset(trained: Tensor, cold: Tensor, share: float) -> float:
    """The offset with which cold tracks get a `share` of the places of the lists for B windows.

    The likelihood is for placing them far lower: every cold track has a little of the probability, and none enough for
    a list. Here lists show as much of what is new as listeners play, in the windows that it fits best (the calibration
    of Steck, RecSys 2018, with new and known tracks as the two genres). trained [B, M] and cold [B, C] logits.
    """
    size = min(_LIST, trained.shape[1], cold.shape[1])
    # A list holds j cold tracks once the j-th best of them is above the j-th last place of the others.
    needed = (trained.topk(size).values.flip(1) - cold.topk(size).values).flatten().sort().values
    return float(needed[min(int(share * len(needed)), len(needed) - 1)])


@torch.inference_mode()
def calibrate(model: MSAM, data: Dataset, catalogue_rows: Integers, positions: Integers) -> Calibration:
    """Fit the calibration on the plays at `positions` and store it in the model."""
    index = torch.from_numpy(catalogue_rows)
    members, cold = torch.nonzero(index >= 0).squeeze(1), torch.nonzero(index < 0).squeeze(1)
    if not len(cold) or not len(positions):
        return Calibration(float(model.cold_scale), float(model.cold_offset))
    some = positions[torch.linspace(0, len(positions) - 1, min(len(positions), _MOST)).long().numpy()]
    model.eval()
    model.cold_scale.fill_(1.0)
    side, rows, _ = encode_catalogue(model, data.tracks, index, batch=256)
    window = torch.from_numpy(data.windows(some, model.config.window))
    users = model.encode_users(data.users).select(torch.from_numpy(data.owner(some)))
    logits = model.logits(model(side, window, users), rows, window)
    play = torch.from_numpy(data.plays[some])
    place = torch.full((len(index),), -1, dtype=torch.int64)
    place[members], place[cold] = torch.arange(len(members)), torch.arange(len(cold))
    found = fit(logits[:, members], logits[:, cold], place[play], index[play] < 0)
    if model.config.cold_share:
        share = (1 + int((catalogue_rows[data.plays[positions]] < 0).sum())) / (1 + len(positions))
        found = found._replace(offset=share_offset(logits[:, members], found.scale * logits[:, cold], share))
    model.cold_scale.fill_(found.scale)
    model.cold_offset.fill_(found.offset)
    return found
