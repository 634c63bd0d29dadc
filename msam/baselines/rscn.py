"""RSCN: a convolutional network on one source, the sound.

A residual network reads each clip's mel spectrogram into a vector (van den Oord, Dieleman, Schrauwen: Deep
content-based music recommendation, NIPS 2013; residual blocks of He et al., CVPR 2016). A listener is what was heard of
late; the next play is near it in sound. Nothing about an item but its sound and how often it is played enters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from msam.baselines.neural import NeuralRecommender, pool, recent
from msam.content import MEL_BANDS, MEL_FRAMES
from msam.listening import History, Listening

DIM = 64
CHANNELS = 32
WINDOW = 20


class Block(nn.Module):
    """Two convolutions over time and the shortcut around them, then half as many frames: [n, C, T] -> [n, C, T / 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(2))
        self.shrink = nn.AvgPool1d(2)

    def forward(self, maps: Tensor) -> Tensor:
        """maps [n, C, T]."""
        halved: Tensor = self.shrink(torch.relu(maps + self.two(torch.relu(self.one(maps)))))
        return halved


class Network(nn.Module):
    """items M -> logits [B, M]; mel bands are channels, as in van den Oord's network."""

    mel: Tensor
    known: Tensor

    def __init__(self, items: int) -> None:
        super().__init__()
        self.register_buffer("mel", torch.zeros(items, MEL_BANDS, MEL_FRAMES))
        self.register_buffer("known", torch.zeros(items, 1))
        self.first = nn.Conv1d(MEL_BANDS, CHANNELS, 3, padding=1)
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.sound = nn.Linear(2 * CHANNELS, DIM)
        self.silent = nn.Parameter(torch.zeros(DIM))  # stands for every item without a clip
        self.decay = nn.Parameter(torch.tensor(0.2))
        self.taste = nn.Sequential(nn.Linear(2 * DIM, DIM), nn.ReLU(), nn.Linear(DIM, DIM))
        self.bias = nn.Parameter(torch.zeros(items))
        self.cached: Tensor | None = None

    def items(self) -> Tensor:
        """Vector of every item from its clip [M, DIM]; computed once while the network is not trained."""
        if self.training or self.cached is None:
            maps = self.blocks(torch.relu(self.first(self.mel)))  # [M, C, T / 8]
            heard = self.sound(torch.cat([maps.mean(2), maps.amax(2)], 1))
            vectors = torch.where(self.known > 0, heard, self.silent)
            self.cached = None if self.training else vectors
            return vectors
        return self.cached

    def train(self, mode: bool = True) -> Network:
        """As torch's; forgets what was computed with earlier weights."""
        self.cached = None
        super().train(mode)
        return self

    def forward(self, window: Tensor) -> Tensor:
        """window int64 [B, WINDOW], oldest first, -1 padded."""
        vectors = self.items()
        age = torch.arange(WINDOW - 1.0, -1.0, -1.0)
        listener = torch.cat(
            [pool(vectors, window, torch.exp(-self.decay.abs() * age)), pool(vectors, window[:, -1:], torch.ones(1))], 1
        )
        logits: Tensor = self.taste(listener) @ vectors.T + self.bias
        return logits


class RSCN(NeuralRecommender):
    """CNN on mel spectrograms; cannot run on data without sound."""

    name: ClassVar[str] = "rscn"
    needs: ClassVar[frozenset[str]] = frozenset({"sound"})

    def measure(self, train: Listening) -> dict[str, Any]:
        return {"items": len(train.items)}

    def build(self, **sizes: Any) -> Network:
        return Network(**sizes)

    def describe(self, network: nn.Module, train: Listening) -> None:
        assert isinstance(network, Network)
        network.mel.copy_(torch.from_numpy(train.content.mel).float())
        network.known.copy_(torch.from_numpy(train.content.mel_mask).unsqueeze(1))

    def features(self, histories: Sequence[History]) -> tuple[Tensor, ...]:
        return (recent(histories, WINDOW),)
