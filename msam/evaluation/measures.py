"""What is measured on every target play: its rank, the relevant items in the list, errors of the predicted scores.

Definitions: the whole catalogue is ranked (ties: the lower column first). HR@N, MRR@N and NDCG@N: the next play alone
is relevant. P@N and R@N: the distinct items of the next 20 plays are. Errors: the predicted probability of an item
against m/k (m = its plays among the next k = 20), over the union of the items of the next window and the 20 best of the
system; with only n < k plays left, the predicted score is n/k times the probability. Everything is averaged over
plays; F1@N is that of each play, and MAPE is over items whose true score is above 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from msam import metrics
from msam.baselines.contract import Scores, probabilities
from msam.listening import Integers, Listening

LIST = 20
WINDOW = 20
CUTS = tuple(range(2, LIST + 1, 2))
ERRORS = ("mse", "mae", "mape", "msle")
Floats = NDArray[np.float64]


class Judged(NamedTuple):
    """Per target play: rank float32 [T] (inf: missed), open_rank [T] (unseen items ranked too), hits uint8 [T, CUTS],
    errors float32 [T, ERRORS] (mape NaN where the true score of nothing is above 0)."""

    rank: NDArray[np.float32]
    open_rank: NDArray[np.float32]
    hits: NDArray[np.uint8]
    errors: NDArray[np.float32]

    @classmethod
    def join(cls, parts: list[Judged]) -> Judged:
        """Parts one after the other."""
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def windows_after(data: Listening, positions: Integers) -> Integers:
    """The next WINDOW plays from each position on, the target first, -1 beyond the user's last: [T, WINDOW]."""
    stops = data.starts[data.owner(positions) + 1]
    index = positions[:, None] + np.arange(WINDOW)
    return np.where(index < stops[:, None], data.plays[np.minimum(index, len(data.plays) - 1)], -1)


def distinct(window: Integers) -> NDArray[np.bool_]:
    """Where each item of a window [T, W] stands for the first time (never at -1)."""
    earlier = np.tril(window[:, :, None] == window[:, None, :], -1).any(axis=2)
    return np.asarray((window >= 0) & ~earlier)


def top(scores: Scores, size: int = LIST) -> Integers:
    """Columns of the `size` best of each row, best first; of equals the lower column first: [B, size]."""
    size = min(size, scores.shape[1])
    # NumPy's partition is slow where most scores are equal, as counts are.
    given = torch.from_numpy(np.require(scores, requirements=["C", "W"]))
    least = given.topk(size, dim=1).values[:, -1:].numpy()
    ahead, equal = scores > least, scores == least
    room = size - ahead.sum(axis=1, keepdims=True)
    chosen = ahead | (equal & (np.cumsum(equal, axis=1) <= room))
    columns = np.nonzero(chosen)[1].reshape(len(scores), size)
    values = np.take_along_axis(scores, columns, axis=1)
    return np.asarray(np.take_along_axis(columns, np.argsort(-values, axis=1, kind="stable"), axis=1), dtype=np.int64)


def judge(scores: Scores, logits: bool, after: Integers, seen: NDArray[np.bool_] | None = None) -> Judged:
    """Measure B predictions: scores [B, M], `after` [B, WINDOW] (the target first).

    `seen` bool [M]: the items that may be recommended; a target outside is a miss. None: all.
    """
    target = after[:, 0]
    everywhere = metrics.ranks_of(scores, target)
    rank = everywhere
    if seen is not None:
        lowest = np.float32(-np.inf if logits else 0.0)
        order = np.where(seen, scores, np.float32(-np.inf))  # never ahead of an item that may be recommended
        rank = np.where(seen[target], metrics.ranks_of(order, target), np.inf)
        listed, chance = top(order), probabilities(np.where(seen, scores, lowest), logits)
    else:
        listed, chance = top(scores), probabilities(scores, logits)
    plays = (listed[:, :, None] == after[:, None, :]).sum(axis=2)  # of every listed item in the next window
    places = [min(cut, listed.shape[1]) - 1 for cut in CUTS]
    hits = np.cumsum(plays > 0, axis=1)[:, places]
    return Judged(
        rank.astype(np.float32),
        everywhere.astype(np.float32),
        hits.astype(np.uint8),
        _errors(chance, listed, plays, after),
    )


def _errors(chance: Floats, listed: Integers, plays: Integers, after: Integers) -> NDArray[np.float32]:
    """Mean errors of every row over the union of listed and coming items: [B, ERRORS]."""
    other = distinct(after) & ~(after[:, :, None] == listed[:, None, :]).any(axis=2)
    counts = (after[:, :, None] == after[:, None, :]).sum(axis=2)
    columns = np.concatenate([listed, np.maximum(after, 0)], axis=1)
    member = np.concatenate([np.ones(listed.shape, dtype=np.bool_), other], axis=1)
    truth = np.concatenate([plays, counts], axis=1) / WINDOW
    coming = (after >= 0).sum(axis=1, keepdims=True)  # fewer than WINDOW at a user's end
    guess = np.take_along_axis(chance, columns, axis=1) * coming / WINDOW
    off = guess - truth
    relevant = member & (truth > 0)
    share = np.divide(np.abs(off), truth, out=np.zeros_like(off), where=relevant)
    logs = np.log1p(guess) - np.log1p(truth)
    means = [
        np.where(member, off**2, 0).sum(1) / member.sum(1),
        np.where(member, np.abs(off), 0).sum(1) / member.sum(1),
        share.sum(1) / np.maximum(relevant.sum(1), 1),
        np.where(member, logs**2, 0).sum(1) / member.sum(1),
    ]
    return np.stack(means, axis=1).astype(np.float32)


def nothing(after: Integers) -> dict[str, float]:
    """Errors of predicting 0 for everything, with a list that meets nothing."""
    first = distinct(after)
    truth = np.where(first, (after[:, :, None] == after[:, None, :]).sum(axis=2), 0) / WINDOW
    union = LIST + first.sum(axis=1)
    mse = float(((truth**2).sum(axis=1) / union).mean())
    logs = float(((np.log1p(truth) ** 2).sum(axis=1) / union).mean())
    return {"mse": mse, "rmse": mse**0.5, "mae": float((truth.sum(axis=1) / union).mean()), "mape": 1.0, "msle": logs}


def nothing_of(judged: Judged, relevant: Integers, coming: Integers) -> Floats:
    """MAE of predicting 0 for every item over which a list was measured [T]; `coming` [T]: plays left, at most WINDOW.

    The true scores sum to coming / WINDOW; the items are the listed ones and the relevant ones that the list missed.
    """
    return np.asarray(coming / WINDOW / (LIST + relevant - judged.hits[:, -1].astype(np.int64)))


def values(judged: Judged, relevant: Integers) -> dict[str, Floats]:
    """Every published figure per target [T]; `relevant` [T]: distinct items of the next window.

    rmse is not among them: it is the root of the mean of mse.
    """
    rank = judged.rank.astype(np.float64)
    found: dict[str, Floats] = {}
    for n in (10, 20):
        inside = rank <= n
        found[f"hr@{n}"] = inside.astype(np.float64)
        found[f"mrr@{n}"] = np.where(inside, 1 / rank, 0.0)
        found[f"ndcg@{n}"] = np.where(inside, 1 / np.log2(1 + rank), 0.0)
    for place, n in enumerate(CUTS):
        hits = judged.hits[:, place].astype(np.float64)
        found[f"p@{n}"], found[f"r@{n}"] = hits / n, hits / relevant
        found[f"f1@{n}"] = 2 * hits / (n + relevant)  # = 2PR / (P + R)
    for place, name in enumerate(ERRORS):
        found[name] = judged.errors[:, place].astype(np.float64)
    return found
