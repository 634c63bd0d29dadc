"""Sparse nearest-neighbour similarity graphs and their Laplacians (Eq. 6-8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags, hstack

from msam.errors import MethodError

F64 = NDArray[np.float64]
_GROUP = 128  # columns whose largest cosine is looked at first


def laplacian(adjacency: csr_matrix) -> csr_matrix:
    """L = D - A with D = diag(row sums); the diagonal of A cancels."""
    off = csr_matrix(adjacency - diags(adjacency.diagonal()))
    return csr_matrix(diags(np.asarray(off.sum(axis=1)).ravel()) - off)


def frobenius(matrix: csr_matrix) -> float:
    """Frobenius norm of a sparse matrix."""
    return float(np.sqrt(np.dot(matrix.data, matrix.data)))


def _keep(rows: Any, columns: Any, values: Any, k: int) -> tuple[Any, Any, Any]:
    """The k largest values of each row; equal values go to the smaller column, so ties are reproducible."""
    order = np.lexsort((columns, -values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    first = np.r_[True, rows[1:] != rows[:-1]] if len(rows) else np.zeros(0, dtype=bool)
    start = np.maximum.accumulate(np.where(first, np.arange(len(rows)), 0))
    kept = np.arange(len(rows)) - start < k
    return rows[kept], columns[kept], values[kept]


def _graph(parts: Sequence[tuple[Any, Any, Any]], n: int) -> csr_matrix:
    """Symmetric graph of S_ab = (1 + cos) / 2 over kept neighbours (Eq. 7-8)."""
    rows, columns, cosines = (np.concatenate([p[m] for p in parts]) for m in range(3))
    values = 0.5 * (1.0 + np.minimum(cosines.astype(np.float64), 1.0))
    graph = csr_matrix((values, (rows, columns)), shape=(n, n))
    return csr_matrix(graph.maximum(graph.T))


def dense_graph(features: Any, k: int, chunk: int = 1024) -> csr_matrix:
    """k-nearest-neighbour cosine graph of dense rows [n, m]: H itself, audio descriptors, text vectors.

    Rows of zeros (or with a NaN: no such modality) have no neighbours, nor do pairs with cosine <= 0. Peak memory is
    chunk x n; values are compared in float32.
    """
    matrix = np.asarray(features, dtype=np.float32)
    if matrix.ndim != 2:
        raise MethodError(f"similarity features must be a matrix, not of shape {matrix.shape}")
    matrix = np.where(np.isfinite(matrix).all(axis=1, keepdims=True), matrix, np.float32(0))
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    n, groups = len(matrix), -(-len(matrix) // _GROUP)
    unit = np.zeros((groups * _GROUP, matrix.shape[1]), dtype=np.float32)
    np.divide(matrix, norms, out=unit[:n], where=norms > 0)
    parts = []
    for begin in range(0, n, chunk):
        cosines = unit[begin : min(begin + chunk, n)] @ unit.T
        at = np.arange(len(cosines))
        cosines[at, begin + at] = -1.0  # never one's own neighbour
        rows, columns, values = _candidates(cosines.reshape(len(cosines), groups, _GROUP), k)
        parts.append(_keep(rows + begin, columns, values, k))
    return _graph(parts, n)


def _candidates(cosines: Any, k: int) -> tuple[Any, Any, Any]:
    """Positive entries that hold the k largest of each row of [rows, groups, _GROUP], as (row, column, value).

    The k-th largest group maximum bounds the k-th largest entry from below, so only few groups are looked into.
    """
    best = cosines.max(axis=2)
    count = best.shape[1]
    bound = np.full(len(best), np.float32(1e-6))
    if k < count:
        bound = np.maximum(bound, np.partition(best, count - k, axis=1)[:, count - k])
    rows, groups = np.nonzero(best >= bound[:, None])
    inside = cosines[rows, groups]
    at, offset = np.nonzero(inside >= bound[rows][:, None])
    return rows[at], groups[at] * _GROUP + offset, inside[at, offset]


def profile_graph(blocks: Sequence[csr_matrix], k: int, max_degree: int = 500, chunk: int = 1024) -> csr_matrix:
    """k-nearest-neighbour cosine graph of relation profiles.

    Args:
        blocks: sparse [n, n_j], the object's (scaled) row in each of its relations. Rows of each block get unit
            length before they are joined, so every relation has one voice.
        k: neighbours kept.
        max_degree: columns with more links are left out (cost grows with their square).
    """
    kept = []
    for block in blocks:
        degree = np.bincount(block.indices, minlength=block.shape[1])
        kept.append(unit_rows(csr_matrix(block[:, np.flatnonzero(degree <= max_degree)])))
    profile = unit_rows(csr_matrix(hstack(kept, format="csr")))
    n, turned = profile.shape[0], csr_matrix(profile.T)
    parts = []
    for begin in range(0, n, chunk):
        product = (profile[begin : begin + chunk] @ turned).tocoo()
        rows, columns = product.row.astype(np.int64) + begin, product.col.astype(np.int64)
        other = rows != columns
        parts.append(_keep(rows[other], columns[other], product.data[other], k))
    return _graph(parts, n)


def unit_rows(matrix: csr_matrix) -> csr_matrix:
    """Rows scaled to unit length; empty rows stay empty."""
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    return csr_matrix(diags(scale) @ matrix)


def combine(graphs: Sequence[tuple[float, csr_matrix]]) -> csr_matrix:
    """Linear combination of similarity graphs, each scaled to a largest value of 1, weights summing to 1."""
    usable = [(weight, graph) for weight, graph in graphs if weight > 0 and graph.nnz]
    if not usable:
        return csr_matrix(graphs[0][1].shape) if graphs else csr_matrix((0, 0))
    total = sum(weight for weight, _ in usable)
    return csr_matrix(sum(graph * (weight / total / graph.data.max()) for weight, graph in usable))
