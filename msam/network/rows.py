"""Rows of U (Eq. 26): free ones as published, or made from content; and rows for tracks that were not trained on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from msam.config import MSAMConfig
from msam.network.inputs import FIELDS, TrackInputs
from msam.network.normalise import Principal

TEXT_COMPONENTS = 64
AUDIO_COMPONENTS = 32
START = 0.3  # standard deviation of rows before training; smaller ones need more epochs than there are


class RawContent(nn.Module):
    """Fixed description of a track for `ContentRows`: factors, and principal components of its text and audio."""

    def __init__(self, config: MSAMConfig, joined: int) -> None:
        super().__init__()
        self.text = Principal(FIELDS * config.text_dim, TEXT_COMPONENTS)
        self.audio = Principal(config.audio_groups * config.audio_width, AUDIO_COMPONENTS)
        self.width = joined + self.text.basis.shape[1] + self.audio.basis.shape[1] + 2

    def _blocks(self, inputs: TrackInputs, audio: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        pooled, fields = inputs.pooled()  # [n, 3, E], [n, 3]
        text_mask = fields.unsqueeze(-1).expand_as(pooled).flatten(1)
        flat = audio.flatten(1)
        return pooled.flatten(1), text_mask, flat, inputs.audio_mask.unsqueeze(1).expand_as(flat)

    def fit(self, inputs: TrackInputs, audio: Tensor) -> None:
        """Fit the components on the tracks of training."""
        text, text_mask, flat, audio_mask = self._blocks(inputs, audio)
        if bool(text_mask.any()):
            self.text.fit(text, text_mask)
        if bool(audio_mask.any()):
            self.audio.fit(flat, audio_mask)

    def forward(self, inputs: TrackInputs, audio: Tensor, joined: Tensor) -> Tensor:
        """inputs of n tracks, standardised audio [n, G, A], joined factors [n, F] -> [n, width]."""
        text, text_mask, flat, audio_mask = self._blocks(inputs, audio)
        flags = torch.stack([text_mask.any(1), audio_mask.any(1)], 1).float()
        return torch.cat([joined, self.text(text, text_mask), self.audio(flat, audio_mask), flags], 1)


class ContentRows(nn.Module):
    """Extension: row = g(content) + δ, g linear, δ free and 0 at first.

    δ is left out at random in training (as DropoutNet does), so g alone has to work, which is what a cold track gets.
    """

    frozen: Tensor

    def __init__(self, width: int, rows: int, state: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, state)
        self.residual = nn.Parameter(torch.zeros(rows, state))
        self.register_buffer("frozen", torch.zeros(rows, state))

    def training_rows(self, content: Tensor, residual: Tensor) -> Tensor:
        """content [n, C] and δ [n, 2d] of n trained tracks -> rows [n, 2d]."""
        rows: Tensor = self.map(content)
        return rows + residual

    @torch.no_grad()
    def freeze(self, content: Tensor) -> None:
        """Keep the trained rows: later changes of a track's content do not move them."""
        self.frozen.copy_(self.training_rows(content, self.residual))


class FreeRows(nn.Module):
    """The published U: one free row per trained track, and a ridge map from content for tracks that arrive later."""

    cold_weight: Tensor
    cold_bias: Tensor

    def __init__(self, width: int, rows: int, state: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(START * torch.randn(rows, state))
        self.register_buffer("cold_weight", torch.zeros(width, state))
        self.register_buffer("cold_bias", torch.zeros(state))

    @torch.no_grad()
    def start(self, factors: Tensor) -> None:
        """Start from standardised factors [rows, 2d]; where there is none (0), from chance as before."""
        self.weight.copy_(torch.where(factors != 0, START * factors, self.weight))

    def cold(self, features: Tensor) -> Tensor:
        """features [n, C] -> rows [n, 2d]."""
        return features @ self.cold_weight + self.cold_bias

    @torch.no_grad()
    def fit_cold(self, features: Tensor, strength: float = 0.1) -> None:
        """Ridge regression of the trained rows on features [M, C], solved in float64.

        The penalty is `strength` times the mean variance of a feature, per track, so it does not depend on M.
        """
        x, y = features.double(), self.weight.double()
        x_mean, y_mean = x.mean(0), y.mean(0)
        x, y = x - x_mean, y - y_mean
        gram = x.T @ x / len(x)
        penalty = max(strength * float(gram.diagonal().mean()), 1e-9)
        solved = torch.linalg.solve(gram + penalty * torch.eye(len(gram), dtype=gram.dtype), x.T @ y / len(x))
        self.cold_weight.copy_(solved)
        self.cold_bias.copy_(y_mean - x_mean @ solved)
