"""Extension: a pointer over the plays of the window, added to the logits of their tracks."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from msam.network.sides import Hidden

FEATURES = 9
# The order of plays is known to matter before any training: the head starts near "newest first" and learns the rest.
# Its table is stored in units of GAIN so that one optimiser step moves a score by GAIN times the learning rate.
GAIN = 10.0


class WindowFacts(NamedTuple):
    """Counts within each window, for every play of it."""

    newest: Tensor  # bool [B, K] the last occurrence of its track
    rank: Tensor  # int64 [B, K] how many other tracks were played since
    features: Tensor  # [B, K, FEATURES]


def occurrences(window: Tensor) -> Tensor:
    """window int64 [B, K] (-1 pad) -> [B, K]: how often the track of each play occurs in its window, 0 at padding."""
    mask = window >= 0
    same = (window.unsqueeze(2) == window.unsqueeze(1)) & mask.unsqueeze(1)
    return same.sum(2).float() * mask


def window_facts(window: Tensor) -> WindowFacts:
    """window int64 [B, K] (left padded with -1) -> WindowFacts."""
    size = window.shape[1]
    mask = window >= 0
    same = (window.unsqueeze(2) == window.unsqueeze(1)) & mask.unsqueeze(1) & mask.unsqueeze(2)  # [B, K, K]
    later = torch.ones(size, size, dtype=torch.bool, device=window.device).triu(1)
    newest = mask & ~(same & later).any(2)
    rank = (newest.flip(1).cumsum(1).flip(1) - newest.long()).clamp(min=0)

    previous = torch.cat([torch.full_like(window[:, :1], -1), window[:, :-1]], 1)
    before = torch.cat([torch.full_like(window[:, :1], -1), previous[:, :-1]], 1)
    follows = mask & (previous >= 0) & (previous == window[:, -1:])
    follows2 = follows & (before >= 0) & (before == window[:, -2:-1]) if size > 1 else torch.zeros_like(follows)
    each = same.float()
    count = each.sum(2)
    own = (each @ torch.stack([follows, follows2], -1).float()).clamp(max=4.0)  # [B, K, 2] per track
    played = mask.sum(1, keepdim=True).clamp(min=1).float()
    distinct = newest.sum(1, keepdim=True).float() / played
    known = follows.any(1, keepdim=True).float()  # did the last track occur before: a loop may be under way
    again = (window[:, -1:] == previous[:, -1:]).float()
    spread = torch.ones_like(count)
    features = torch.stack(
        [
            count.clamp(min=1).log(),
            own[..., 0],
            (own[..., 0] > 0).float(),
            own[..., 1],
            distinct * spread,
            known * spread,
            again * spread,
            (played / size) * spread,
            rank.float() / size,
        ],
        -1,
    )
    return WindowFacts(newest, rank, features * mask.unsqueeze(-1))


class CopyHead(nn.Module):
    """c_j = b[rank_j] + w^T tanh(W [h*, z_j, facts_j]) for the newest play of each track in the window, else 0.

    With one score per distinct track, the sum over plays is that track's share of the joint softmax.
    """

    def __init__(self, dim: int, state: int, hidden: int, window: int, rows: int) -> None:
        super().__init__()
        self.by_state = nn.Linear(state, hidden)
        self.by_play = nn.Linear(dim, hidden, bias=False)
        self.by_facts = nn.Linear(FEATURES, hidden, bias=False)
        self.outer = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.outer.weight)
        start = max(math.log(max(rows, 2)) - 2.0, 1.0)
        by_rank = start - torch.log1p(torch.arange(window, dtype=torch.float32))
        self.by_rank = nn.Parameter(by_rank / GAIN)

    def forward(self, hidden: Hidden, window: Tensor) -> Tensor:
        """Hidden of B windows, window int64 [B, K] -> scores [B, K]."""
        facts = window_facts(window)
        inner = self.by_state(hidden.state).unsqueeze(1) + self.by_play(hidden.fused) + self.by_facts(facts.features)
        scores = GAIN * (self.by_rank[facts.rank] + self.outer(torch.tanh(inner)).squeeze(-1))
        return torch.where(facts.newest, scores, 0.0)
