"""Relations as the solver sees them: scaled, without unknown rows, networks as Laplacians."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags

from msam.simf.config import SiMFConfig
from msam.simf.relations import Relations
from msam.simf.similarity import frobenius, laplacian

F64 = NDArray[np.float64]


class Scale(NamedTuple):
    """R-hat = factor * diag(row) R diag(column), so that ||R-hat||_F^2 is the relation's weight.

    row and column are (sum of the row or column)^-a, 0 for an empty one. The same numbers scale a new object's row in a
    warm start, with the sum of its own links.
    """

    row: F64
    column: F64
    factor: float

    def turned(self) -> Scale:
        """The scale of the transposed relation."""
        return Scale(self.column, self.row, self.factor)


@dataclass(frozen=True)
class Link:
    """One relation R_ij, scaled, restricted to the objects it knows.

    matrix [len(rows), len(columns)] and turned, its transpose, are CSR; rows and columns are positions in H_i and H_j.
    """

    i: str
    j: str
    matrix: csr_matrix
    turned: csr_matrix
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    scale: Scale
    norm2: float


class Side(NamedTuple):
    """A link seen from one of its types: rows of `matrix` are objects `own` of that type."""

    link: Link
    side: int
    other: str
    matrix: csr_matrix
    own: NDArray[np.int64]
    others: NDArray[np.int64]


@dataclass(frozen=True)
class Problem:
    """All that is fixed during a fit, save S."""

    sizes: dict[str, int]
    links: tuple[Link, ...]
    networks: dict[str, tuple[csr_matrix, ...]]
    network_scales: dict[str, F64]

    def sides(self, name: str) -> Iterator[Side]:
        """Every link of type `name`, from its side."""
        for link in self.links:
            if link.i == name:
                yield Side(link, 0, link.j, link.matrix, link.rows, link.columns)
            if link.j == name:
                yield Side(link, 1, link.i, link.turned, link.columns, link.rows)

    def profile(self, name: str) -> list[csr_matrix]:
        """Scaled rows of type `name` in each of its relations, [n, other] each (for the profile similarity)."""
        blocks = []
        for side in self.sides(name):
            place = csr_matrix(
                (np.ones(len(side.own)), (side.own, np.arange(len(side.own)))),
                shape=(self.sizes[name], len(side.own)),
            )
            blocks.append(csr_matrix(place @ side.matrix))
        return blocks


def _power(sums: F64, a: float) -> F64:
    return np.power(sums, -a, out=np.zeros_like(sums), where=sums > 0)


def _link(i: str, j: str, matrix: Any, config: SiMFConfig) -> Link | None:
    given = csr_matrix(matrix, dtype=np.float64, copy=True)
    given.sum_duplicates()
    given.eliminate_zeros()
    weight = config.relation_weights.get(f"{i}-{j}", 1.0)
    if not given.nnz or weight == 0:
        return None
    row_sums = np.asarray(given.sum(axis=1)).ravel()
    column_sums = np.asarray(given.sum(axis=0)).ravel()
    row, column = _power(row_sums, config.degree_power), _power(column_sums, config.degree_power)
    scaled = csr_matrix(diags(row) @ given @ diags(column))
    factor = float(np.sqrt(weight)) / frobenius(scaled)
    scaled = csr_matrix(scaled * factor)
    rows, columns = np.arange(len(row_sums)), np.arange(len(column_sums))
    if config.mask_missing:
        rows, columns = np.flatnonzero(row_sums), np.flatnonzero(column_sums)
        scaled = csr_matrix(scaled[rows][:, columns])
    scaled.sort_indices()
    norm2 = frobenius(scaled) ** 2
    return Link(i, j, scaled, csr_matrix(scaled.T), rows, columns, Scale(row, column, factor), norm2)


def prepare(relations: Relations, config: SiMFConfig) -> Problem:
    """Scale relations and networks.

    Every relation is first divided by (row sum * column sum)^a, which keeps popular objects from drowning the rest of
    their relation, then by its Frobenius norm, which keeps large relations from drowning small ones, and multiplied by
    the root of its weight: the data term of a relation starts at its weight, whatever its size. Every network enters
    as its Laplacian of unit Frobenius norm.
    """
    links = [_link(i, j, relations.relations[i, j], config) for i, j in sorted(relations.relations)]
    networks: dict[str, tuple[csr_matrix, ...]] = {}
    scales: dict[str, F64] = {}
    for name in sorted(relations.networks):
        sources = [laplacian(csr_matrix(a, dtype=np.float64)) for a in relations.networks[name]]
        norms = [frobenius(source) for source in sources]
        scales[name] = np.array([1.0 / norm if norm > 0 else 0.0 for norm in norms])
        networks[name] = tuple(csr_matrix(m * s) for m, s in zip(sources, scales[name], strict=True))
    sizes = {name: len(ids) for name, ids in sorted(relations.types.items())}
    kept = tuple(link for link in links if link is not None)
    return Problem(sizes, kept, {n: s for n, s in networks.items() if s}, {n: s for n, s in scales.items() if len(s)})
