"""Starting points of a fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from msam.errors import MethodError
from msam.simf.config import SiMFConfig
from msam.simf.relations import Relations
from msam.simf.state import SiMFState
from msam.simf.warm_start import warm_start

F64 = NDArray[np.float64]


def starting_factors(relations: Relations, config: SiMFConfig, init: SiMFState | None) -> dict[str, F64]:
    """H per type, float64 [n, d] >= 0: carried over from `init` by id, warm started where new, seeded where unknown.

    Raises:
        MethodError: when `init` has another dim.
    """
    if init is not None and init.config.dim != config.dim:
        raise MethodError(f"cannot resume: the state has dim {init.config.dim}, the settings {config.dim}")
    factors: dict[str, F64] = {}
    for number, name in enumerate(sorted(relations.types)):
        ids = relations.types[name]
        if init is None or name not in init.types:
            rng = np.random.default_rng([config.seed, number])
            factors[name] = rng.random((len(ids), config.dim)) / np.sqrt(max(len(ids), 1))
        else:
            factors[name] = _carry(relations, name, ids, init)
    return factors


def _carry(relations: Relations, name: str, ids: Sequence[str], init: SiMFState) -> F64:
    positions = init.positions[name]
    out = np.empty((len(ids), init.config.dim))
    old = [n for n, key in enumerate(ids) if key in positions]
    new = [n for n, key in enumerate(ids) if key not in positions]
    out[old] = init.factors[name][[positions[ids[n]] for n in old]]
    if new:
        out[new] = warm_start(init, name, links_of(relations, name, new))
    return out


def links_of(relations: Relations, name: str, rows: Sequence[int]) -> list[dict[str, dict[str, float]]]:
    """The relations of some objects as `warm_start` wants them, both directions of every relation."""
    out: list[dict[str, dict[str, float]]] = [{} for _ in rows]
    for (i, j), matrix in sorted(relations.relations.items()):
        for side, other, own in ((i, j, matrix), (j, i, matrix.T)):
            if side != name:
                continue
            part = csr_matrix(csr_matrix(own)[list(rows)])
            ids = relations.types[other]
            for n, links in enumerate(out):
                span = slice(part.indptr[n], part.indptr[n + 1])
                found = {ids[c]: float(v) for c, v in zip(part.indices[span], part.data[span], strict=True)}
                if found:
                    links[other] = found
    return out
