"""DLAN: a feed-forward network on the user's profile and play records.

The profile (gender, age, country as words) and the records (how often each item was played, what was played of late)
are projected, joined, and go through two hidden layers to one softmax over the catalogue, as in Covington, Adams,
Sargin: Deep neural networks for YouTube recommendations (RecSys 2016), from where the averaged history comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from msam.baselines.neural import NeuralRecommender, mean_words, pool, recent, users_of
from msam.listening import History, Listening

RECORDS = 200
"""Plays of the records that count; the newest RECENT of them once more, by recency."""
RECENT = 10
DIM = 64


class Network(nn.Module):
    """items M, users U, width E of word vectors -> logits [B, M]."""

    profile: Tensor
    known: Tensor

    def __init__(self, items: int, users: int, width: int) -> None:
        super().__init__()
        self.register_buffer("profile", torch.zeros(users, width))
        self.register_buffer("known", torch.zeros(users, 1))
        self.user = nn.Embedding(users, DIM)
        nn.init.normal_(self.user.weight, std=0.05)
        self.item = nn.Parameter(torch.randn(items, DIM) * 0.1)
        self.of_profile = nn.Linear(width, DIM)
        self.layers = nn.Sequential(
            nn.Linear(5 * DIM, 2 * DIM), nn.ReLU(), nn.Dropout(0.2), nn.Linear(2 * DIM, DIM), nn.ReLU(), nn.Dropout(0.2)
        )
        self.out = nn.Linear(DIM, items)

    def forward(self, users: Tensor, records: Tensor) -> Tensor:
        """users int64 [B], records int64 [B, RECORDS] (oldest first, -1 padded)."""
        late = records[:, -RECENT:]
        parts = [
            self.user(users),
            torch.relu(self.of_profile(self.profile[users])) * self.known[users],
            pool(self.item, records, torch.ones(RECORDS)),
            pool(self.item, late, torch.arange(1.0, RECENT + 1)),
            pool(self.item, late[:, -1:], torch.ones(1)),
        ]
        logits: Tensor = self.out(self.layers(torch.cat(parts, 1)))
        return logits


class DLAN(NeuralRecommender):
    """Feed-forward network; a user without a profile has none, not an average one."""

    name: ClassVar[str] = "dlan"

    def measure(self, train: Listening) -> dict[str, Any]:
        return {"items": len(train.items), "users": len(train.users), "width": train.content.model.text_dim}

    def build(self, **sizes: Any) -> Network:
        return Network(**sizes)

    def describe(self, network: nn.Module, train: Listening) -> None:
        assert isinstance(network, Network)
        words, mask = train.content.users
        network.profile.copy_(mean_words(words, mask))
        network.known.copy_(mask.any(1, keepdim=True))

    def features(self, histories: Sequence[History]) -> tuple[Tensor, ...]:
        return users_of(histories), recent(histories, RECORDS)
