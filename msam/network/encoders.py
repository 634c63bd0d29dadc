"""Feature extraction: MLP over audio groups (Eq. 13), TextCNN (Eq. 14-15), LSTMs over the window (Eq. 16-18)."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def _uniform(*shape: int, fan_in: int) -> nn.Parameter:
    bound = 1.0 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


class AudioMLP(nn.Module):
    """a_i = MLP_i([x_i, factors]) for each of G groups of descriptors (Eq. 13); one MLP per group.

    The factors enter every group through one shared matrix, which is what concatenating them to x_i would do.
    """

    def __init__(self, groups: int, width: int, joined: int, hidden: int) -> None:
        super().__init__()
        self.inner = _uniform(groups, width, hidden, fan_in=width + joined)
        self.inner_bias = nn.Parameter(torch.zeros(groups, 1, hidden))
        self.joined = nn.Linear(joined, hidden, bias=False)
        self.outer = _uniform(groups, hidden, hidden, fan_in=hidden)
        self.outer_bias = nn.Parameter(torch.zeros(groups, 1, hidden))

    def forward(self, audio: Tensor, joined: Tensor) -> Tensor:
        """audio [n, G, A], joined [n, F] -> [n, G, H]."""
        grouped = audio.transpose(0, 1)  # [G, n, A]
        inner = torch.relu(torch.bmm(grouped, self.inner) + self.inner_bias + self.joined(joined))
        outer = torch.relu(torch.bmm(inner, self.outer) + self.outer_bias)
        return outer.transpose(0, 1)


class TextCNN(nn.Module):
    """b_p = relu(Σ_t W_t e_{p+t} + k) for several kernel widths (Eq. 14-15), 'same' padding, no pooling.

    All taps of all kernels are one matrix product; shifting and adding its slices is the convolution.
    """

    def __init__(self, width: int, kernel_widths: Sequence[int], joined: int, hidden: int) -> None:
        super().__init__()
        self.kernel_widths = tuple(kernel_widths)
        self.filters = -(-hidden // len(self.kernel_widths))
        self.channels = self.filters * len(self.kernel_widths)
        taps = sum(self.kernel_widths) * self.filters
        self.taps = nn.Linear(width, taps, bias=False)
        self.bias = nn.Parameter(torch.zeros(self.channels))
        self.joined = nn.Linear(joined, self.channels, bias=False)

    def forward(self, words: Tensor, mask: Tensor, joined: Tensor | None = None) -> Tensor:
        """words [n, P, E], mask [n, P], joined [n, F] or None -> [n, P, C], 0 where there is no word."""
        positions = words.shape[1]
        taps = self.taps(words * mask.unsqueeze(-1))  # [n, P, sum(widths) * filters]
        maps, start = [], 0
        for width in self.kernel_widths:
            before = (width - 1) // 2
            padded = functional.pad(taps, (0, 0, before, width - 1 - before))
            parts = []
            for tap in range(width):
                parts.append(padded[:, tap : tap + positions, start : start + self.filters])
                start += self.filters
            maps.append(functools.reduce(torch.add, parts))
        features = torch.cat(maps, -1) + self.bias
        if joined is not None:
            features = features + self.joined(joined).unsqueeze(1)
        return torch.relu(features) * mask.unsqueeze(-1)


class WindowLSTM(nn.Module):
    """An LSTM over left-padded windows that never sees the padding.

    Each window is moved to the front before the recurrence, so padding comes after its last play and cannot
    change what precedes it; that needs no packing and keeps one batch shape.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, batch_first=True)

    def forward(self, series: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """series [B, K, F] left padded, lengths [B] -> every state [B, K, H] (left padded) and the last one [B, H].

        States at padded steps are meaningless; the last state of an empty window is 0.
        """
        size = series.shape[1]
        steps = torch.arange(size, device=series.device)
        shift = (size - lengths).unsqueeze(1)
        states, _ = self.lstm(take(series, (steps + shift).clamp(max=size - 1)))
        last = take(states, (lengths - 1).clamp(min=0).unsqueeze(1)).squeeze(1)
        return take(states, (steps - shift).clamp(min=0)), torch.where(lengths.unsqueeze(1) > 0, last, 0.0)


class BiLSTM(nn.Module):
    """Bi-LSTM over the window (Eq. 16-18): c_t = [forward, backward] for every play."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.forwards = WindowLSTM(width, hidden)
        self.backwards = nn.LSTM(width, hidden, batch_first=True)

    def forward(self, series: Tensor, lengths: Tensor) -> Tensor:
        """series [B, K, F] left padded, lengths [B] -> [B, K, 2H]; meaningless at padded steps."""
        ahead, _ = self.forwards(series, lengths)
        back, _ = self.backwards(series.flip(1))  # newest first: the padding comes last
        return torch.cat([ahead, back.flip(1)], -1)


def take(series: Tensor, steps: Tensor) -> Tensor:
    """series [B, K, F] at steps int64 [B, S] -> [B, S, F]. (Whole rows are copied, which gather would not do.)"""
    batch, size, width = series.shape
    first = torch.arange(0, batch * size, size, device=series.device).unsqueeze(1)
    flat = series.reshape(batch * size, width).index_select(0, (steps + first).flatten())
    return flat.view(batch, -1, width)
