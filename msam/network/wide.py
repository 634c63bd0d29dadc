"""Extension: the wide head, a learned scorer over counts whose score is added to U h*, for one softmax."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

HIDDEN = 64
CHUNK = 256  # candidates are scored in multiples of so many: in small or odd numbers a score's last bits would differ


class WideInputs(NamedTuple):
    """Candidates of B windows, all in a row: what the counts know, `msam.counts` makes it. M is a multiple of CHUNK."""

    window: Tensor  # int64 [M] which window
    rows: Tensor  # int64 [M] row of the candidate among the N tracks that are ranked, -1: none
    features: Tensor  # float32 [M, F]

    @classmethod
    def of(cls, window: Tensor, rows: Tensor, features: Tensor) -> WideInputs:
        """Any number of candidates, filled up."""
        more = -len(rows) % CHUNK
        if not more:
            return cls(window, rows, features)
        return cls(
            torch.cat([window, window.new_zeros(more)]),
            torch.cat([rows, rows.new_full((more,), -1)]),
            torch.cat([features, features.new_zeros(more, features.shape[1])]),
        )


class WideHead(nn.Module):
    """score = net(features), and how scores and U h* are joined.

    The logit of a candidate is `deep` * (U h*) + score, that of every other track `deep` * (U h*) + `others`.
    """

    deep: Tensor
    others: Tensor

    def __init__(self, features: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        last = nn.Linear(hidden, 1)
        nn.init.zeros_(last.weight)  # until it is trained, the head changes nothing
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), last)
        self.bucket = nn.Parameter(torch.zeros(()))  # log of what all other tracks together weigh against scores
        self.register_buffer("deep", torch.ones(()))
        self.register_buffer("others", torch.zeros(()))

    @torch.no_grad()
    def fold(self, mean: Tensor, deviation: Tensor) -> None:
        """Having been trained on (features - mean) / deviation, take features as they are."""
        first = self.net[0]
        assert isinstance(first, nn.Linear)
        first.weight.div_(deviation)
        first.bias.sub_(first.weight @ mean)

    def forward(self, features: Tensor) -> Tensor:
        """Features [..., F] -> scores [...]."""
        scores: Tensor = self.net(features).squeeze(-1)
        return scores

    def join(self, logits: Tensor, wide: WideInputs) -> Tensor:
        """Logits of U h* [B, N] with the scores of the candidates among them: [B, N]."""
        real = wide.rows >= 0
        places = (wide.window * logits.shape[1] + wide.rows)[real]
        mixed = self.deep * logits
        candidates = mixed.view(-1)[places] + self(wide.features)[real]
        return (mixed + self.others).view(-1).scatter(0, places, candidates).view_as(mixed)
