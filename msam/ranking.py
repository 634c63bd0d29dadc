"""Ranks of the plays that followed, over the whole catalogue: how a model is checked on plays that it has not seen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msam import metrics
from msam.network.inference import encode_catalogue
from msam.network.model import MSAM
from msam.sequences import Dataset, Integers


@torch.inference_mode()
def logits_after(
    model: MSAM, data: Dataset, catalogue_rows: Integers, positions: Integers, batch: int = 100
) -> Iterator[tuple[slice, Tensor]]:
    """U h* of the whole catalogue before each of the plays at `positions`, without offsets: [batch, M] and which."""
    model.eval()
    side, rows, _ = encode_catalogue(model, data.tracks, torch.from_numpy(catalogue_rows), batch=256)
    users = model.encode_users(data.users)
    for start in range(0, len(positions), batch):
        some = slice(start, min(start + batch, len(positions)))
        window = torch.from_numpy(data.windows(positions[some], model.config.window))
        hidden = model(side, window, users.select(torch.from_numpy(data.owner(positions[some]))))
        yield some, model.logits(hidden, rows, window)


def ranks(model: MSAM, data: Dataset, catalogue_rows: Integers, positions: Integers) -> NDArray[np.float64]:
    """1-based ranks of the plays at `positions` among the whole catalogue, each after its true window."""
    offsets = model.offsets(torch.from_numpy(catalogue_rows))
    found = [
        metrics.ranks_of((logits + offsets).numpy(), data.plays[positions[some]])
        for some, logits in logits_after(model, data, catalogue_rows, positions)
    ]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.float64)


def evaluate(model: MSAM, data: Dataset, catalogue_rows: Integers, positions: Integers) -> dict[str, float]:
    """HR@10, HR@20, MRR@20 and NDCG@20 of the plays at `positions`."""
    found = ranks(model, data, catalogue_rows, positions)
    return {
        "hr@10": metrics.hit_rate(found, 10),
        "hr@20": metrics.hit_rate(found, 20),
        "mrr@20": metrics.mrr(found, 20),
        "ndcg@20": metrics.ndcg(found, 20),
    }
