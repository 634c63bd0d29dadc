"""Attention over audio groups, text positions and modalities (Eq. 19-24)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


def steady_exp(values: Tensor) -> Tensor:
    """exp whose bits do not depend on where in its batch a row stands.

    In float32 the vector code for aligned and odd rows differs by a unit in the last place; taken in float64 and
    rounded, it does not.
    """
    return torch.exp(values.double()).to(values.dtype)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension among the positions of `mask`; all zeros where nothing is present."""
    kept = scores.masked_fill(~mask, -torch.inf)
    top = kept.amax(-1, keepdim=True)
    power = steady_exp(kept - torch.where(torch.isfinite(top), top, 0.0))
    return power / power.sum(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)


class Scorer(nn.Module):
    """u^T tanh(U x + k) + k': the two-layer score of Eq. 22-24."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, 1)

    def forward(self, values: Tensor) -> Tensor:
        """values [..., D] -> [...]."""
        scores: Tensor = self.outer(torch.tanh(self.inner(values))).squeeze(-1)
        return scores


class Attended(NamedTuple):
    """A softmax-weighted sum with what is needed to join it to another one exactly."""

    value: Tensor  # [n, D]
    log_sum: Tensor  # [n] log-sum-exp of the scores, 0 where nothing is present
    present: Tensor  # bool [n]
    weights: Tensor  # [n, P]


class Attention(nn.Module):
    """x' = U x + k, then softmax of the two-layer scores over positions (Eq. 19 and 22, or 20 and 23).

    `attend=False`: every position that is there weighs the same.
    """

    def __init__(self, width: int, dim: int, attend: bool = True) -> None:
        super().__init__()
        self.attend = attend
        self.project = nn.Linear(width, dim)
        self.score = Scorer(dim)

    def forward(self, values: Tensor, mask: Tensor) -> Attended:
        """values [n, P, F], mask [n, P] -> Attended; positions out of the mask have no part in the softmax."""
        projected = self.project(values)  # [n, P, D]
        scores = self.score(projected) if self.attend else torch.zeros_like(projected[..., 0])
        weights = masked_softmax(scores, mask)
        value = torch.bmm(weights.unsqueeze(1), projected).squeeze(1)
        present = mask.any(-1)
        log_sum = torch.where(present, scores.masked_fill(~mask, -1e30).double().logsumexp(-1).to(scores.dtype), 0.0)
        return Attended(value, log_sum, present, weights)


class ModalityAttention(nn.Module):
    """gamma = softmax of the scores of audio, text, sequence; z_att = gamma . (a_att, b_att, c') (Eq. 24)."""

    def __init__(self, dim: int, attend: bool = True) -> None:
        super().__init__()
        self.attend = attend
        self.audio = Scorer(dim)
        self.text = Scorer(dim)
        self.sequence = Scorer(dim)

    def forward(
        self, values: tuple[Tensor, Tensor, Tensor], audio_score: Tensor, present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """z_att [B, K, D] and gamma [B, K, 3] from a_att, b_att, c' [B, K, D].

        audio_score [B, K] is cached with a_att; present bool [B, K, 3] says which modalities there are.
        """
        audio, text, sequence = values
        scores = torch.stack([audio_score, self.text(text), self.sequence(sequence)], -1)
        if not self.attend:
            scores = torch.zeros_like(scores)
        gamma = masked_softmax(scores, present)
        fused = gamma[..., :1] * audio + gamma[..., 1:2] * text + gamma[..., 2:] * sequence
        return fused, gamma
