"""Warm start: the factor of a new object, everything else fixed (paper notes, Sec. 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msam.errors import MethodError
from msam.simf.nnls import nnls_row
from msam.simf.problem import Scale
from msam.simf.state import SiMFState

F64 = NDArray[np.float64]
Links = Mapping[str, Mapping[str, float]]


class _Side(NamedTuple):
    other: str
    core: F64  # R ~ h core H_other^T
    gram: F64
    scale: Scale


def warm_start(
    state: SiMFState,
    type: str,
    links: Sequence[Links],
    neighbours: Sequence[Mapping[str, float]] | None = None,
) -> NDArray[np.float32]:
    """Factors of new objects of one type, each solved alone.

    Row a minimises, over h >= 0, sum_j ||r_aj - h B_ij H_j^T||^2 + lambda ||h||^2 + spread sum_b S_ab ||h - h_b||^2,
    the terms of O (Eq. 10) that hold the row. Every known object of a linked type counts, the zeros through the cached
    d x d gram; raw links are scaled as in the fit. O((r + k_s) d + d^3) a row.

    Args:
        state: a fitted state.
        type: the type of the new objects.
        links: per object, other type -> {id: raw value, such as 1 or log(1 + plays)}. Ids the state does not know
            and types it has no relation with are ignored; with `mask_missing` a type without known links is unknown
            rather than a row of zeros.
        neighbours: per object, id -> similarity S_ab in [0, 1] to objects of the same type.

    Returns:
        float32 [len(links), d]; the mean factor of the type where no link is known or the solution is all zero. The
        same object gives the same bits in any batch, in any order of objects, links or ids (one setting of BLAS
        threads).

    Raises:
        MethodError: for an unknown type or values that are negative or not finite.
    """
    if type not in state.types:
        raise MethodError(f"the SiMF state has no type {type!r}, only {', '.join(sorted(state.types))}")
    if neighbours is not None and len(neighbours) != len(links):
        raise MethodError(f"{len(links)} objects, but neighbours of {len(neighbours)}")
    sides = _sides(state, type)
    normals: dict[tuple[int, ...], F64] = {}
    out = np.empty((len(links), state.config.dim), dtype=np.float32)
    for n, own in enumerate(links):
        near = neighbours[n] if neighbours is not None else {}
        out[n] = _row(state, type, sides, own, near, normals)
    return out


def _sides(state: SiMFState, name: str) -> list[_Side]:
    sides = []
    for i, j in sorted(state.cores):
        core, grams, scale = state.cores[i, j], state.grams[i, j], state.scales[i, j]
        if i == name:
            sides.append(_Side(j, core, grams[0], scale))
        if j == name:
            sides.append(_Side(i, core.T, grams[1], scale.turned()))
    return sides


def _row(
    state: SiMFState,
    name: str,
    sides: Sequence[_Side],
    links: Links,
    near: Mapping[str, float],
    normals: dict[tuple[int, ...], F64],
) -> F64:
    target = np.zeros(state.config.dim)
    used = []
    for n, side in enumerate(sides):
        where, values = _known(state, side.other, links.get(side.other, {}))
        kept = side.scale.column[where] > 0
        where, values = where[kept], values[kept]
        if len(where):
            own = float(values.sum()) ** -state.config.degree_power
            scaled = values * side.scale.column[where] * (own * side.scale.factor)
            mixed = (scaled[:, None] * state.factors[side.other][where]).sum(axis=0)
            target += side.core @ mixed
        if len(where) or not state.config.mask_missing:
            used.append(n)
    where, values = _known(state, name, near)
    pull = values * state.spreads[name]
    if len(where):
        target += (pull[:, None] * state.factors[name][where]).sum(axis=0)
    if not target.any():
        return state.means[name]
    key = tuple(used)
    if key not in normals:
        grams = sum((sides[n].gram for n in key), np.zeros((len(target), len(target))))
        normals[key] = grams + state.config.ridge * np.eye(len(target))
    normal = normals[key] + float(pull.sum()) * np.eye(len(target)) if len(where) else normals[key]
    row = nnls_row(normal, target)
    return row if row.any() else state.means[name]


def _known(state: SiMFState, name: str, links: Mapping[str, float]) -> tuple[NDArray[np.int64], F64]:
    positions = state.positions.get(name, {})
    pairs = sorted((positions[key], float(value)) for key, value in links.items() if key in positions and value != 0)
    values = np.array([value for _, value in pairs], dtype=np.float64)
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise MethodError(f"links to {name} must be finite and not negative")
    return np.array([where for where, _ in pairs], dtype=np.int64), values
