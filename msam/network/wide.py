"""Extension: the wide head, a learned scorer over counts whose score is added to U h*, for one softmax."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

HIDDEN = 64
WINDOWS = 8


class WideInputs(NamedTuple):
    """Candidates of B windows, C each: what the counts know, `msam.counts` makes it."""

    rows: Tensor  # int64 [B, C] row of the candidate among the N tracks that are ranked, -1: none
    features: Tensor  # float32 [B, C, F]


class WideHead(nn.Module):
    """score = net((features - mean) / deviation), and how scores and U h* are joined.

    The logit of a candidate is `deep` * (U h*) + score, that of every other track `deep` * (U h*) + `others`.
    """

    mean: Tensor
    deviation: Tensor
    deep: Tensor
    others: Tensor

    def __init__(self, features: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        last = nn.Linear(hidden, 1)
        nn.init.zeros_(last.weight)  # until it is trained, the head changes nothing
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), last)
        self.bucket = nn.Parameter(torch.zeros(()))  # log of what all other tracks together weigh against scores
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.register_buffer("deep", torch.ones(()))
        self.register_buffer("others", torch.zeros(()))

    def fit_scales(self, features: Tensor) -> None:
        """Mean and deviation of every input over candidates [n, F]; one that never varies stays as it is."""
        deviation = features.std(0)
        self.mean.copy_(features.mean(0))
        self.deviation.copy_(torch.where(deviation > 1e-6, deviation, 1.0))

    def forward(self, features: Tensor) -> Tensor:
        """Features [..., F] -> scores [...]."""
        scores: Tensor = self.net((features - self.mean) / self.deviation).squeeze(-1)
        return scores

    def join(self, logits: Tensor, wide: WideInputs) -> Tensor:
        """Logits of U h* [B, N] with the scores of the candidates among them: [B, N].

        A candidate that is given twice in a row counts once.
        """
        count = logits.shape[1]
        places = torch.where(wide.rows >= 0, wide.rows, count)
        # A few windows at a time, so that their number cannot change the bits of a score.
        scores = torch.cat([self(some) for some in torch.split(wide.features, WINDOWS)])
        added = self.others.expand(len(logits), count + 1).scatter(1, places, scores)
        return self.deep * logits + added[:, :count]
