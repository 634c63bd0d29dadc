"""Attention over audio groups, text positions and modalities (Eq. 19-24)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from msam.network.normalise import Principal

GROUP_COMPONENTS = 8  # by which an audio group is known; with 6, bits depend on a track's place in its batch


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


class GroupAttention(nn.Module):
    """Extension: which audio group a listener heeds. In that group, likeness to the window raises a track's score.

    Eq. 22 weighs the groups of a track by that track alone, whoever listens. Here a group weighs the more, the further
    the plays of the window are together from the average of all tracks: n |m|^2, their mean m in whitened components,
    which is the number of components where they are together by chance.
    """

    def __init__(self, groups: int, width: int, attend: bool = True) -> None:
        super().__init__()
        self.attend = attend
        self.components = nn.ModuleList(Principal(width, GROUP_COMPONENTS) for _ in range(groups))
        self.sharpness = nn.Parameter(torch.full((groups,), -1.5))  # log
        self.bias = nn.Parameter(torch.zeros(groups))
        self.gain = nn.Parameter(torch.full((groups, 1), 0.5))
        self.doubt = nn.Parameter(torch.tensor(1.0))  # log of the number of plays that count half

    def fit(self, audio: Tensor, mask: Tensor) -> None:
        """Fit the components on standardised audio [n, G, A] of the tracks of training, mask bool [n]."""
        if bool(mask.any()):
            for group, part in zip(self.components, audio[mask].unbind(1), strict=True):
                group.fit(part, torch.ones_like(part, dtype=torch.bool))  # type: ignore[operator]

    def encode(self, audio: Tensor, mask: Tensor) -> Tensor:
        """Standardised audio [n, G, A], mask bool [n] -> [n, G, R], 0 without audio."""
        there = mask.unsqueeze(1).expand(audio.shape[::2])
        return torch.stack(
            [group(part, there) for group, part in zip(self.components, audio.unbind(1), strict=True)], 1
        )

    def weighed(self, values: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """values [B, K, G, R], present bool [B, K] -> means over the window [B, G, R], and their weights [B, G]."""
        count = present.sum(1)[:, None, None]
        mean = (values * present[..., None, None]).sum(1) / count.clamp(min=1)
        scores = self.sharpness.exp() * (count * mean.square()).sum(-1) + self.bias
        if not self.attend:
            scores = torch.zeros_like(scores)
        return mean * count / (count + self.doubt.exp()), masked_softmax(scores, (count[..., 0] > 0).expand_as(scores))

    def forward(self, values: Tensor, present: Tensor) -> Tensor:
        """values [B, K, G, R], present bool [B, K] -> by what a track's values [G * R] are multiplied: [B, G * R]."""
        mean, weights = self.weighed(values, present)
        return (self.gain * weights.unsqueeze(-1) * mean).flatten(1) * weights.shape[1]


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
