"""Ranking metrics on the next play, from the 1-based rank of the target (`inf`: a miss).

With one relevant item per query HR@N is recall, and NDCG@N is 1/log2(1 + rank) because the ideal gain is 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msam.errors import MethodError


def _hits(ranks: ArrayLike, n: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values = np.asarray(ranks, dtype=np.float64)
    if n < 1:
        raise MethodError(f"N must be at least 1, not {n}")
    if values.size and not (values >= 1).all():
        raise MethodError("ranks start at 1")
    return values, values <= n


def hit_rate(ranks: ArrayLike, n: int) -> float:
    """HR@N: share of targets among the first N; 0 for no targets.

    >>> hit_rate([1, 3, float("inf"), 2], 2)
    0.5
    """
    values, hits = _hits(ranks, n)
    return float(hits.mean()) if values.size else 0.0


def mrr(ranks: ArrayLike, n: int) -> float:
    """MRR@N: mean of 1/rank, 0 beyond N.

    >>> mrr([1, 2, 4], 3)
    0.5
    """
    values, hits = _hits(ranks, n)
    return float(np.where(hits, 1.0 / values, 0.0).mean()) if values.size else 0.0


def ndcg(ranks: ArrayLike, n: int) -> float:
    """NDCG@N with one relevant item: mean of 1/log2(1 + rank), 0 beyond N.

    >>> ndcg([1, 3], 20)
    0.75
    """
    values, hits = _hits(ranks, n)
    return float(np.where(hits, 1.0 / np.log2(1.0 + values), 0.0).mean()) if values.size else 0.0


def ranks_of(scores: NDArray[np.floating], targets: NDArray[np.integer]) -> NDArray[np.float64]:
    """1-based rank of each row's target in a stable descending sort (ties: the lower column first).

    scores [B, M]; targets [B], -1 for a target that is not a column (rank inf).
    """
    columns = np.arange(scores.shape[1])
    own = scores[np.arange(len(scores)), np.maximum(targets, 0)][:, None]
    ahead = (scores > own) | ((scores == own) & (columns < targets[:, None]))
    return np.where(targets >= 0, 1.0 + ahead.sum(axis=1), np.inf)
