"""Makes the scores of cold tracks comparable with those of trained ones (an addition to Eq. 26 for new tracks).

A cold track's row comes from its content alone. How much such rows say, and how often listeners go to tracks that
nobody had played before, is measured on the holdout: its tracks that training did not meet are cold there too.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from msam.network.model import MSAM
from msam.network.wide import WideInputs
from msam.ranking import logits_after
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


def needed(trained: Tensor, cold: Tensor) -> Tensor:
    """What must be added to cold logits for 1, 2, ... of them to be in the list of a window: [B, list], rising.

    trained [B, M] and cold [B, C] logits. A list holds j cold tracks once the j-th best of them is above the j-th last
    place of the others. Lists have 20 places, or as many as there are tracks of the rarer kind.
    """
    size = min(_LIST, trained.shape[1], cold.shape[1])
    return trained.topk(size).values.flip(1) - cold.topk(size).values


def share_offset(offsets: Tensor, share: float) -> float:
    """The offset with which cold tracks have a `share` of all places; offsets [B, list] as `needed`."""
    ordered = offsets.flatten().sort().values
    return float(ordered[min(int(share * len(ordered)), len(ordered) - 1)])


@torch.inference_mode()
def calibrate(model: MSAM, data: Dataset, catalogue_rows: Integers, positions: Integers) -> Calibration:
    """Fit the calibration on the plays at `positions` and store it in the model."""
    index = torch.from_numpy(catalogue_rows)
    members, cold = torch.nonzero(index >= 0).squeeze(1), torch.nonzero(index < 0).squeeze(1)
    if not len(cold) or not len(positions):
        return Calibration(float(model.cold_scale), float(model.cold_offset))
    some = _spread(positions)
    model.cold_scale.fill_(1.0)
    logits = torch.cat([logits for _, logits in logits_after(model, data, catalogue_rows, some)])
    play = torch.from_numpy(data.plays[some])
    place = torch.full((len(index),), -1, dtype=torch.int64)
    place[members], place[cold] = torch.arange(len(members)), torch.arange(len(cold))
    found = fit(logits[:, members], logits[:, cold], place[play], index[play] < 0)
    model.cold_scale.fill_(found.scale)
    model.cold_offset.fill_(found.offset)
    return found


class Offered(NamedTuple):
    """Candidates of the wide head for S plays, at most C each."""

    positions: Integers  # int64 [S] of the plays
    rows: Tensor  # int64 [S, C] of the catalogue, -1: none
    features: Tensor  # [S, C, F]

    def inputs(self, some: slice) -> WideInputs:
        """Those of some of the plays."""
        rows = self.rows[some]
        window, column = torch.nonzero(rows >= 0, as_tuple=True)
        return WideInputs.of(window, rows[window, column], self.features[some][window, column])


@torch.inference_mode()
def share_places(
    model: MSAM, data: Dataset, catalogue_rows: Integers, positions: Integers, offered: Offered | None = None
) -> None:
    """Let cold tracks have the share of the places of lists that they have of the plays at `positions`.

    The likelihood places them far lower: every cold track has a little of the probability, and none enough for a list.
    So lists show as much of what is new as listeners play, to those whom it fits best (the calibration of Steck, RecSys
    2018, with new and known tracks for genres). Done last: of a wide head the lists of `offered` are looked at. As in
    `fit`, one cold play is assumed beside those that are seen.
    """
    index = torch.from_numpy(catalogue_rows)
    members, cold = torch.nonzero(index >= 0).squeeze(1), torch.nonzero(index < 0).squeeze(1)
    if not len(cold) or not len(members) or not len(positions):
        return
    share = (1 + int((catalogue_rows[data.plays[positions]] < 0).sum())) / (1 + len(positions))
    some = _spread(positions) if offered is None else offered.positions
    parts = []
    for part, logits in logits_after(model, data, catalogue_rows, some):
        joined = model.join(logits, None if offered is None else offered.inputs(part))
        parts.append(needed(joined[:, members], joined[:, cold]))
    deep = 1.0 if offered is None or model.wide_head is None else float(model.wide_head.deep)
    model.cold_offset.fill_(share_offset(torch.cat(parts), share) / deep)


def _spread(positions: Integers) -> Integers:
    some: Integers = positions[torch.linspace(0, len(positions) - 1, min(len(positions), _MOST)).long().numpy()]
    return some
