"""BLCR: tree-structured fusion of multi-source user interest.

The leaves of a tree are what each source says about a user: what was played long ago, of late and last (behaviour),
the words, sound and factors of what was played of late (content), and the profile. Every inner node joins its children
with a Child-Sum Tree-LSTM cell (Tai, Socher, Manning, ACL 2015), which keeps a gate of its own for each child, so that
a source that says nothing about this user can be shut out; the root is the interest.

    interest ─┬─ behaviour ─┬─ records      (the last 200 plays)
              │             ├─ window       (the last 20, by recency)
              │             └─ last play
              ├─ content ───┬─ words
              │             ├─ sound
              │             └─ factors
              └─ person ────┬─ profile words
                            └─ user
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from msam.baselines.neural import NeuralRecommender, mean_words, pool, recent, users_of
from msam.listening import History, Listening

RECORDS, WINDOW = 200, 20
DIM = 64
_SOURCES = ("words", "sound", "factors")


class Join(nn.Module):
    """Child-Sum Tree-LSTM cell without an input of its own: children's h, c [B, C, D] and who is there [B, C]."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Linear(DIM, 3 * DIM)
        self.forget = nn.Linear(DIM, DIM)
        nn.init.constant_(self.forget.bias, 1.0)

    def forward(self, children: Sequence[tuple[Tensor, Tensor]], present: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """h and c of the node, [B, D] each; present: [B, 1] of each child, 0 where it says nothing."""
        there = torch.stack(list(present), 1)  # [B, C, 1]
        h = torch.stack([child[0] for child in children], 1) * there
        c = torch.stack([child[1] for child in children], 1) * there
        enter, leave, update = self.gates(h.sum(1)).chunk(3, 1)
        kept = (torch.sigmoid(self.forget(h)) * c).sum(1)
        cell = torch.sigmoid(enter) * torch.tanh(update) + kept
        return torch.sigmoid(leave) * torch.tanh(cell), cell


class Leaf(nn.Module):
    """A source's vector [B, W] as h and c of a leaf, [B, D] each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell = nn.Linear(width, DIM)
        self.leave = nn.Linear(width, DIM)

    def forward(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """vector [B, W]."""
        cell = self.cell(vector)
        return torch.sigmoid(self.leave(vector)) * torch.tanh(cell), cell


class Network(nn.Module):
    """items M, users U; widths: columns of the words, sound and factors of items, and of profile words."""

    def __init__(self, items: int, users: int, widths: dict[str, int]) -> None:
        super().__init__()
        for name in _SOURCES:
            self.register_buffer(name, torch.zeros(items, widths[name]))
            self.register_buffer(f"{name}_known", torch.zeros(items, 1))
        self.register_buffer("profile", torch.zeros(users, widths["profile"]))
        self.register_buffer("profile_known", torch.zeros(users, 1))
        self.item = nn.Parameter(torch.randn(items, DIM) * 0.1)
        self.user = nn.Parameter(torch.randn(users, DIM) * 0.05)
        kinds = {"records": DIM, "window": DIM, "last": DIM, "user": DIM, **widths}
        self.leaves = nn.ModuleDict({name: Leaf(width) for name, width in kinds.items()})
        self.joins = nn.ModuleDict({name: Join() for name in ("behaviour", "content", "person", "interest")})
        self.dropout = nn.Dropout(0.2)
        self.out = nn.Linear(DIM, items)

    def _content(self, name: str, window: Tensor, recency: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of a source over the window's items that have it [B, W], and whether any has [B, 1]."""
        vectors, known = getattr(self, name), getattr(self, f"{name}_known")
        having = torch.where(known[window.clamp(min=0), 0] > 0, window, -1)
        return pool(vectors, having, recency), (having >= 0).any(1, keepdim=True).float()

    def forward(self, users: Tensor, records: Tensor) -> Tensor:
        """users int64 [B], records int64 [B, RECORDS], oldest first, -1 padded."""
        window, last = records[:, -WINDOW:], records[:, -1:]
        recency = torch.exp(torch.arange(1.0 - WINDOW, 1.0) / 5)
        some = (last >= 0).float()
        always = torch.ones_like(some)
        vectors = {
            "records": (pool(self.item, records, torch.ones(RECORDS)), some),
            "window": (pool(self.item, window, recency), some),
            "last": (pool(self.item, last, torch.ones(1)), some),
            "user": (self.user[users], always),
            "profile": (self.get_buffer("profile")[users], self.get_buffer("profile_known")[users]),
            **{name: self._content(name, window, recency) for name in _SOURCES},
        }

        def branch(name: str, *leaves: str) -> tuple[tuple[Tensor, Tensor], Tensor]:
            children = [self.leaves[leaf](self.dropout(vectors[leaf][0])) for leaf in leaves]
            present = [vectors[leaf][1] for leaf in leaves]
            return self.joins[name](children, present), torch.stack(present).amax(0)

        nodes = [
            branch("behaviour", "records", "window", "last"),
            branch("content", *_SOURCES),
            branch("person", "profile", "user"),
        ]
        interest, _ = self.joins["interest"]([node for node, _ in nodes], [there for _, there in nodes])
        logits: Tensor = self.out(self.dropout(interest))
        return logits


class BLCR(NeuralRecommender):
    """Tree of sources; those that the data lacks are absent from the tree."""

    name: ClassVar[str] = "blcr"

    def measure(self, train: Listening) -> dict[str, Any]:
        content = train.content
        widths = {
            "words": content.model.text_dim,
            "sound": content.tracks.audio[0].numel(),
            "factors": content.model.dim,
            "profile": content.model.text_dim,
        }
        return {"items": len(train.items), "users": len(train.users), "widths": widths}

    def build(self, **sizes: Any) -> Network:
        return Network(**sizes)

    def describe(self, network: nn.Module, train: Listening) -> None:
        tracks, users = train.content.tracks, train.content.users
        sources = {
            "words": (mean_words(tracks.words, tracks.word_mask), tracks.word_mask.any(1)),
            "sound": (tracks.audio.flatten(1), tracks.audio_mask),
            "factors": (_scaled(tracks.factor), tracks.factor_mask),
            "profile": (mean_words(users.words, users.mask), users.mask.any(1)),
        }
        for name, (vectors, known) in sources.items():
            network.get_buffer(name).copy_(vectors)
            network.get_buffer(f"{name}_known").copy_(known.unsqueeze(1))

    def features(self, histories: Sequence[History]) -> tuple[Tensor, ...]:
        return users_of(histories), recent(histories, RECORDS)


def _scaled(factors: Tensor) -> Tensor:
    """Rows of unit length, so that how often an item is played does not decide; rows of 0 stay."""
    lengths: Tensor = factors.norm(dim=1, keepdim=True)
    return factors / lengths.clamp(min=1e-9)
