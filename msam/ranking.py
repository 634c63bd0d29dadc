"""Ranks of the plays that followed, over the whole catalogue: how a model is checked on plays that it has not seen."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from msam import metrics
from msam.network.inference import encode_catalogue
from msam.network.model import MSAM
from msam.sequences import Dataset, Integers


@torch.inference_mode()
def ranks(
    model: MSAM, data: Dataset, catalogue_rows: Integers, positions: Integers, batch: int = 100
) -> NDArray[np.float64]:
    """1-based ranks of the plays at `positions` among the whole catalogue, each after its true window."""
    model.eval()
    side, rows, offsets = encode_catalogue(model, data.tracks, torch.from_numpy(catalogue_rows), batch=256)
    users = model.encode_users(data.users)
    found = []
    for start in range(0, len(positions), batch):
        part = positions[start : start + batch]
        window = torch.from_numpy(data.windows(part, model.config.window))
        hidden = model(side, window, users.select(torch.from_numpy(data.owner(part))))
        scores = (model.logits(hidden, rows, window) + offsets).numpy()
        found.append(metrics.ranks_of(scores, data.plays[part]))
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
