"""The objective O of SiMF (Eq. 9-10) by trace expansion; pure functions, nothing dense of size n x n."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from msam.simf.config import SiMFConfig
from msam.simf.problem import Link, Problem

F64 = NDArray[np.float64]


class Objective(NamedTuple):
    """Terms of O = O_3 + beta O_2 + ridge + tau sum w log w; O_3 = data + networks (Eq. 9)."""

    data: float
    networks: float
    similarity: float
    ridge: float
    entropy: float

    @property
    def total(self) -> float:
        """O (Eq. 10), the sum that falls."""
        return self.data + self.networks + self.similarity + self.ridge + self.entropy


def relation_loss(norm2: float, cross: F64, gram_i: F64, core: F64, gram_j: F64) -> float:
    """||R - H_i B H_j^T||_F^2 (Eq. 9, data).

    Args:
        norm2: ||R||_F^2.
        cross: C = H_i^T R H_j, [d, d]; tr(B^T C) = sum over the non-zeros of R of R * (H_i B H_j^T).
        gram_i: H_i^T H_i, [d, d].
        core: B, [d, d].
        gram_j: H_j^T H_j, [d, d].
    """
    return norm2 - 2.0 * float(np.sum(core * cross)) + float(np.sum((gram_i @ core) * (core @ gram_j)))


def trace(matrix: csr_matrix, factor: F64) -> float:
    """tr(H^T L H) of a sparse symmetric L [n, n] and H [n, d] (Eq. 6 and 9)."""
    return float(np.sum(factor * (matrix @ factor)))


def network_weights(traces: F64, tau: float) -> F64:
    """argmin over the simplex of sum w * traces + tau sum w log w, that is w ~ exp(-traces / tau)."""
    shifted = np.exp(-(traces - traces.min()) / tau)
    return np.asarray(shifted / shifted.sum())


def entropy(weights: F64) -> float:
    """sum w log w, 0 log 0 = 0."""
    positive = weights[weights > 0]
    return float(np.sum(positive * np.log(positive)))


def take(factor: F64, rows: NDArray[np.int64]) -> F64:
    """Rows of H at ascending positions; H itself, not a copy, when that is all of them."""
    return factor if len(rows) == len(factor) else factor[rows]


def cross_moment(link: Link, factors: Mapping[str, F64]) -> F64:
    """C = H_i^T R H_j over the objects of the link, [d, d]."""
    left, right = take(factors[link.i], link.rows), take(factors[link.j], link.columns)
    return np.asarray(left.T @ (link.matrix @ right))


def gram(factor: F64, rows: NDArray[np.int64]) -> F64:
    """H^T H over `rows`, [d, d]."""
    part = take(factor, rows)
    return part.T @ part


def objective(
    problem: Problem,
    factors: Mapping[str, F64],
    cores: Mapping[tuple[str, str], F64],
    weights: Mapping[str, F64],
    similarity: Mapping[str, csr_matrix],
    config: SiMFConfig,
    data: float | None = None,
) -> Objective:
    """O (Eq. 10) and its terms. `similarity` holds beta L* per type, already scaled; `data` the data term if known."""
    if data is None:
        data = sum(relation_loss(m.norm2, *_parts(m, factors, cores)) for m in problem.links)
    networks = sum(
        float(w) * trace(source, factors[name])
        for name, sources in problem.networks.items()
        for w, source in zip(weights[name], sources, strict=True)
    )
    smooth = sum(trace(matrix, factors[name]) for name, matrix in similarity.items())
    norms = sum(float(np.sum(m * m)) for m in (*factors.values(), *cores.values()))
    disorder = config.tau * sum(entropy(w) for w in weights.values())
    return Objective(data, networks, smooth, config.ridge * norms, disorder)


def _parts(link: Link, factors: Mapping[str, F64], cores: Mapping[tuple[str, str], F64]) -> tuple[F64, F64, F64, F64]:
    gram_i, gram_j = gram(factors[link.i], link.rows), gram(factors[link.j], link.columns)
    return cross_moment(link, factors), gram_i, cores[link.i, link.j], gram_j
