"""A softmax over some of the tracks that stands for one over all (importance sampling; Bengio and Senécal, 2008)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Drawn(NamedTuple):
    """S of M tracks, ascending."""

    tracks: Tensor  # int64 [S]
    weights: Tensor  # [S] added to their logits: the log of how many tracks each stands for
    places: Tensor  # int64 [M] place of a track among them, -1: not drawn


def draw(total: int, sure: Tensor, negatives: int) -> Drawn:
    """The tracks `sure` (int64 rows, -1 is none) and `negatives` of the others of `total`, each as likely as any.

    The sum of exp(logit + weight) has the sum of exp(logit) over all tracks as its expectation. Where there are not
    more others than negatives, everything is drawn and the two are the same.
    """
    taken = torch.zeros(total, dtype=torch.bool)
    taken[sure[sure >= 0]] = True
    others = torch.nonzero(~taken).squeeze(1)
    weights = torch.zeros(total)
    if negatives < len(others):
        weights[others] = math.log(len(others) / negatives)
        others = others[torch.randperm(len(others))[:negatives]]
    taken[others] = True
    tracks = torch.nonzero(taken).squeeze(1)
    places = torch.full((total,), -1, dtype=torch.int64)
    places[tracks] = torch.arange(len(tracks))
    return Drawn(tracks, weights[tracks], places)
