"""How the wide head and MSAM become one softmax: three numbers, fitted on plays that neither was trained on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from msam.counts.keys import KeyIndex, Keys, keys_of
from msam.network.model import MSAM
from msam.network.wide import WideHead
from msam.ranking import logits_after
from msam.sequences import Dataset, Integers

_DEEP = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # never 0: a silent track's -inf has to stay one
_SHARP = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_OTHERS = torch.linspace(-16.0, 12.0, 113)


class Join(NamedTuple):
    """A candidate's logit is deep * (U h*) + sharp * score, any other track's deep * (U h*) + others."""

    deep: float
    sharp: float
    others: float


class Held(NamedTuple):
    """What S plays look like to the fit; C candidates, padded with -inf scores."""

    scores: Tensor  # [S, C] of the wide head
    inside: Tensor  # [S, C] U h* of the candidates
    outside: Tensor  # [S, len(_DEEP)] log Σ exp(deep * U h*) over all other tracks
    target: Tensor  # [S] U h* of the track that was played
    place: Tensor  # int64 [S] its place among the candidates, -1: not there


def fit(held: Held) -> Join:
    """The join with the greatest likelihood of the plays."""
    best, found = torch.inf, Join(1.0, 1.0, 0.0)
    among = held.place >= 0
    place = held.place.clamp(min=0).unsqueeze(1)
    for column, deep in enumerate(_DEEP):
        for sharp in _SHARP:
            logits = deep * held.inside + sharp * held.scores
            outside = held.outside[:, column].unsqueeze(1) + _OTHERS
            total = torch.logaddexp(logits.logsumexp(1).unsqueeze(1), outside)
            hit = torch.where(among.unsqueeze(1), logits.gather(1, place), deep * held.target.unsqueeze(1) + _OTHERS)
            loss = (total - hit).mean(0)
            least = int(loss.argmin())
            if float(loss[least]) < best:
                best, found = float(loss[least]), Join(deep, sharp, float(_OTHERS[least]))
    return found


def apply(head: WideHead, join: Join) -> None:
    """Store the join in the head; `sharp` goes into its last layer."""
    last = head.net[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.weight.mul_(join.sharp)
        last.bias.mul_(join.sharp)
    head.deep.fill_(join.deep)
    head.others.fill_(join.others)


@torch.inference_mode()
def held_of(
    model: MSAM, data: Dataset, catalogue_rows: Integers, positions: Integers, candidates: Tensor, features: Tensor
) -> Held:
    """`Held` of the S plays at `positions`; candidates [S, C]: rows of the catalogue, -1 none; features [S, C, F]."""
    assert model.wide_head is not None
    offsets = model.offsets(torch.from_numpy(catalogue_rows))
    parts: list[Held] = []
    for some, bare in logits_after(model, data, catalogue_rows, positions):
        logits, mine = bare + offsets, candidates[some]
        real = mine >= 0
        scores = model.wide_head(features[some]).masked_fill(~real, -torch.inf)
        inside = logits.gather(1, mine.clamp(min=0)).masked_fill(~real, 0.0)
        wider = torch.cat([logits, logits.new_zeros(len(logits), 1)], 1)
        wider.scatter_(1, torch.where(real, mine, logits.shape[1]), -torch.inf)
        others = wider[:, : logits.shape[1]]
        outside = torch.stack([(deep * others).logsumexp(1) for deep in _DEEP], 1)
        play = torch.from_numpy(data.plays[positions[some]])
        match = (mine == play.unsqueeze(1)) & real
        place = torch.where(match.any(1), match.int().argmax(1), -1)
        parts.append(Held(scores, inside, outside, logits.gather(1, play.unsqueeze(1)).squeeze(1), place))
    return Held(*(torch.cat(field) for field in zip(*parts, strict=True)))


def rows_in(data: Dataset, keys: Keys) -> Keys:
    """Rows of the catalogue of candidates by key, -1 where there is none (and for the padding key 0)."""
    index = KeyIndex()
    index.add(keys_of(data.track_ids))
    return np.asarray(index.rows(keys))
