"""Scales fitted once on the tracks of training and stored with the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Standardise(nn.Module):
    """(x - mean) / scale per column; what is absent becomes 0 and is told apart by its mask.

    A column that hardly varies is not blown up: its scale is floored at a tenth of the root mean square of all scales.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, *shape: int, limit: float = 8.0) -> None:
        super().__init__()
        self.limit = limit
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    @torch.no_grad()
    def fit(self, values: Tensor, mask: Tensor) -> None:
        """Fit on the rows of values [n, *shape] where mask [n]; fewer than two rows leave it as it is."""
        rows = values[mask].double()
        if len(rows) < 2:
            return
        spread = rows.std(0, correction=0)
        floor = max(0.1 * float(spread.square().mean().sqrt()), 1e-6)
        self.mean.copy_(rows.mean(0))
        self.scale.copy_(spread.clamp(min=floor))

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """values [n, *shape], mask [n] -> [n, *shape], clipped to ±limit, 0 where masked."""
        scaled = ((values - self.mean) / self.scale).clamp(-self.limit, self.limit)
        return torch.where(mask.view(-1, *[1] * (values.dim() - 1)), scaled, 0.0)


class Principal(nn.Module):
    """Projection on the whitened leading principal components; absent blocks count as average."""

    mean: Tensor
    basis: Tensor

    def __init__(self, width: int, components: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("basis", torch.zeros(width, min(components, width)))

    @torch.no_grad()
    def fit(self, values: Tensor, mask: Tensor) -> None:
        """Fit on values [n, width] where mask [n, width] (bool); directions without variance are dropped."""
        rows, present = values.double(), mask.double()
        self.mean.copy_((rows * present).sum(0) / present.sum(0).clamp(min=1.0))
        centred = (rows - self.mean.double()) * present
        if len(rows) < 2:
            return
        power, directions = torch.linalg.eigh(centred.T @ centred / len(rows))
        width = self.basis.shape[1]
        power, directions = power.flip(0)[:width], directions.flip(1)[:, :width]
        whiten = torch.where(power > 1e-6 * power[0].clamp(min=1e-12), power.clamp(min=1e-12).rsqrt(), 0.0)
        self.basis.copy_(directions * whiten)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """values, mask [n, width] -> [n, components]."""
        return torch.where(mask, values - self.mean, 0.0).clamp(-64.0, 64.0) @ self.basis
