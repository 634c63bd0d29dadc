"""Held-out links of a relation: how they are scored, and where they stand among all that a row could be linked to."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from msam.evaluation.measures import top
from msam.simf.state import SiMFState

F64 = NDArray[np.float64]
Integers = NDArray[np.int64]
Score = Callable[[Integers], NDArray[np.floating]]
_ROWS = 256


class Completion(NamedTuple):
    """Per row with held-out links: its number [U], NDCG@n and recall@n [U]."""

    rows: Integers
    ndcg: F64
    recall: F64


def hold_out(matrix: csr_matrix, share: float, seed: int) -> tuple[csr_matrix, csr_matrix]:
    """Known and held-out links: of each row's n links int(n * share), at random. Same shapes; nothing is in both."""
    whole = csr_matrix(matrix, copy=True)
    rng = np.random.default_rng(seed)
    held = np.zeros(whole.nnz, dtype=np.bool_)
    for start, stop in zip(whole.indptr, whole.indptr[1:], strict=False):
        held[start + rng.permutation(stop - start)[: int((stop - start) * share)]] = True
    parts = []
    for kept in (~held, held):
        part = csr_matrix((whole.data * kept, whole.indices, whole.indptr), shape=whole.shape, copy=True)
        part.eliminate_zeros()
        parts.append(part)
    return parts[0], parts[1]


def scores(state: SiMFState, i: str, j: str, rows: Integers) -> F64:
    """Predicted relation of objects `rows` of type i with every object of type j, H_i B_ij H_j^T: [len(rows), n_j].

    In the scale of the fit, where a link counts less the more links its two objects have (`degree_power`).
    """
    return np.asarray(state.factors[i][rows] @ state.cores[i, j] @ state.factors[j].T)


def judge(score: Score, known: csr_matrix, held: csr_matrix, n: int = 20) -> Completion:
    """Rank for every row of `held` [n_i, n_j] all columns without a link in `known`; `score(rows)` gives [B, n_j].

    NDCG@n of binary relevance, the ideal list holding min(n, held-out links) of them; recall@n over all held-out links.
    Equal scores: the lower column first.

    >>> one, two = csr_matrix([[1.0, 0, 0, 0]]), csr_matrix([[0, 1.0, 0, 1.0]])
    >>> judge(lambda rows: np.array([[9.0, 3, 2, 1]]), one, two, n=2)[1:]
    (array([0.61314719]), array([0.5]))
    """
    wanted = np.flatnonzero(np.diff(held.indptr))
    gain = 1 / np.log2(np.arange(2, n + 2))
    ndcg, recall = [], []
    for part in (wanted[start : start + _ROWS] for start in range(0, len(wanted), _ROWS)):
        values = score(part).astype(np.float32)  # as every list is made
        values[known[part].toarray() > 0] = -np.inf
        hit = np.take_along_axis(held[part].toarray() > 0, top(values, n), axis=1)
        count = np.diff(held.indptr)[part]
        ndcg.append(hit @ gain[: hit.shape[1]] / np.cumsum(gain)[np.minimum(count, n) - 1])
        recall.append(hit.sum(axis=1) / count)
    empty = [np.zeros(0)]
    return Completion(wanted, np.concatenate(empty + ndcg), np.concatenate(empty + recall))
