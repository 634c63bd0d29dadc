"""Non-negative least squares: one row exactly, or all rows of a factor by one monotone step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from msam.errors import MethodError

F64 = NDArray[np.float64]
_BLOCK = 512  # rows a block: d x 512 doubles stay in the second-level cache


def nnls_row(normal: F64, target: F64) -> F64:
    """argmin over h >= 0 of h^T P h - 2 h^T q, exactly, by block principal pivoting (Kim & Park 2011).

    Args:
        normal: P, [d, d], positive definite.
        target: q, [d].

    Returns:
        h [d]. The same P and q give the same bits: nothing else is read.

    Raises:
        MethodError: when P is not positive definite.
    """
    d = len(target)
    slack = 1e-13 * float(np.abs(target).max(initial=0.0))
    passive = _solve(normal, target) > 0
    best, patience = d + 1, 3
    for _ in range(100 * d):
        x = np.zeros(d)
        chosen = np.flatnonzero(passive)
        if len(chosen):
            x[chosen] = _solve(normal[np.ix_(chosen, chosen)], target[chosen])
        gradient = normal @ x - target
        wrong = np.flatnonzero(np.where(passive, x < 0, gradient < -slack))
        if not len(wrong):
            return x
        if len(wrong) < best:
            best, patience = len(wrong), 3
        elif patience > 0:
            patience -= 1
        else:  # Murty's rule: one exchange at a time cannot cycle
            wrong = wrong[-1:]
        passive[wrong] ^= True
    return np.maximum(x, 0.0)


def _solve(normal: F64, target: F64) -> F64:
    _, x, info = lapack.dposv(normal, target)
    if info:
        raise MethodError("the normal matrix of a non-negative solve is not positive definite")
    return np.asarray(x, dtype=np.float64)


def hals(factor: F64, rows: NDArray[np.int64], normal: F64, target: F64, extra: F64, passes: int) -> None:
    """Lower sum_r h_r^T (P + e_r I) h_r - 2 h_r^T q_r over h >= 0 in place, column by column (HALS).

    Each column's solve is exact, the others fixed, so the sum never rises.

    Args:
        factor: H, [n, d]; only `rows` are written.
        rows: positions of the rows that share P.
        normal: P, [d, d], positive diagonal.
        target: q, [len(rows), d].
        extra: e, [len(rows)], non-negative.
        passes: rounds over the columns.
    """
    diagonal = np.ascontiguousarray(np.diag(normal))
    for begin in range(0, len(rows), _BLOCK):
        part = rows[begin : begin + _BLOCK]
        x = np.ascontiguousarray(factor[part].T)
        q = np.ascontiguousarray(target[begin : begin + _BLOCK].T)
        e = extra[begin : begin + _BLOCK]
        inverse = 1.0 / (diagonal[:, None] + e)
        for _ in range(passes):
            for c in range(len(x)):
                step = q[c] - normal[c] @ x - e * x[c]
                x[c] = np.maximum(x[c] + step * inverse[c], 0.0)
        factor[part] = x.T
