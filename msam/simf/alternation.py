"""The steps of the alternating solve of SiMF: each lowers O (Eq. 10), all else fixed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from msam.errors import MethodError
from msam.simf.config import SiMFConfig
from msam.simf.nnls import hals
from msam.simf.objective import cross_moment, gram, network_weights, objective, relation_loss, take, trace
from msam.simf.problem import Link, Problem, Side
from msam.simf.similarity import combine, dense_graph, frobenius, laplacian, profile_graph

F64 = NDArray[np.float64]
Progress = Callable[[int, float], None]
Features = Mapping[str, Sequence[Any]]


class Alternation:
    """The variables of O during one fit, and the steps that lower it.

    `factors`, `cores`, `weights`, `similarity` (beta L*, per type) and `spreads` are the current values.
    """

    def __init__(self, problem: Problem, config: SiMFConfig, factors: dict[str, F64], features: Features) -> None:
        self.problem, self.config, self.factors = problem, config, factors
        self.cores: dict[tuple[str, str], F64] = {}
        self.data = 0.0
        self._kept: dict[str, dict[tuple[str, str], F64]] = {}
        self.weights = {name: np.full(len(s), 1.0 / len(s)) for name, s in problem.networks.items()}
        self.similarity: dict[str, csr_matrix] = {}
        self.spreads: dict[str, float] = {}
        self.groups = {name: _groups(problem, name) for name in problem.sizes}
        self.fixed = self._fixed_graphs(features) if config.beta > 0 else {}

    def sweep_all(
        self, progress: Progress | None, history: Sequence[float] = (), refreshes: Sequence[int] = ()
    ) -> tuple[list[float], list[int]]:
        """Sweep until O stops falling; O after each sweep, and the sweeps before which S was rebuilt.

        `history` and `refreshes` are those of the sweeps that the factors have already had.
        """
        self.update_cores()
        self.update_weights()
        history, refreshes = list(history), list(refreshes)
        first = len(history)
        for sweep in range(first, self.config.max_sweeps):
            if converged(history, refreshes, self.config.tol):
                break
            if self._due(sweep, first):
                # H is noise before the first sweeps of a fit, so its neighbours join S only at the second refresh.
                self.refresh(with_factors=sweep > 0)
                if sweep == 0 or self._near():
                    refreshes.append(sweep)  # else S is what it was
            for name in self.problem.sizes:
                self.update_factor(name)
            self.update_cores()
            self.update_weights()
            history.append(self.objective())
            if progress is not None:
                progress(sweep + 1, history[-1])
        return history, refreshes

    def objective(self) -> float:
        """O (Eq. 10) as it stands."""
        given = (self.problem, self.factors, self.cores, self.weights, self.similarity, self.config)
        return objective(*given, data=self.data).total

    def _due(self, sweep: int, first: int) -> bool:
        if self.config.beta == 0 or sweep == first:
            return self.config.beta > 0
        return bool(self._near()) and sweep % self.config.refresh_every == 0

    def _near(self) -> dict[str, float]:
        """Weight of the neighbours by factors of every type that has them."""
        weight, most = self.config.similarity.get("factors", 0.0), self.config.most_compared
        return {name: weight for name, size in self.problem.sizes.items() if weight > 0 and size <= most}

    def _fixed_graphs(self, features: Features) -> dict[str, list[tuple[float, csr_matrix]]]:
        config, sources = self.config, self.config.similarity
        graphs: dict[str, list[tuple[float, csr_matrix]]] = {name: [] for name in self.problem.sizes}
        for name, size in self.problem.sizes.items():
            blocks = self.problem.profile(name)
            if blocks and sources.get("relations", 0.0) > 0:
                graph = profile_graph(blocks, config.neighbours, config.max_degree)
                graphs[name].append((sources["relations"], graph))
            for matrix in features.get(name, ()) if sources.get("features", 0.0) > 0 else ():
                if len(matrix) != size:
                    raise MethodError(f"features of {name} have {len(matrix)} rows, expected {size}")
                graphs[name].append((sources["features"], dense_graph(matrix, config.neighbours)))
        return graphs

    def refresh(self, with_factors: bool) -> None:
        """Rebuild S and beta L* (Eq. 6-8); L* is scaled to unit Frobenius norm, its constant absorbed into beta."""
        near = self._near() if with_factors else {}
        for name, graphs in self.fixed.items():
            sources = list(graphs)
            if name in near:
                sources.append((near[name], dense_graph(self.factors[name], self.config.neighbours)))
            matrix = laplacian(combine(sources)) if sources else csr_matrix((0, 0))
            if not matrix.nnz:
                continue
            self.spreads[name] = self.config.beta / frobenius(matrix)
            self.similarity[name] = csr_matrix(matrix * self.spreads[name])

    def update_factor(self, name: str) -> None:
        """Lower O over H_i >= 0: HALS on rows, the graph terms replaced by a majoriser that parts them.

        A Laplacian M satisfies M <= 2 diag(M), so tr(H^T M H) lies below its linearisation at H0 plus
        sum_r 2 M_rr ||h_r - h0_r||^2, and meets it at H0.
        """
        factor, config = self.factors[name], self.config
        target = np.zeros_like(factor)
        grams: list[F64] = []
        for side in self.problem.sides(name):
            projected, zeros = self._project(side)
            if len(side.own) == len(target):
                target += side.matrix @ projected
            else:
                target[side.own] += side.matrix @ projected
            grams.append(zeros)
        graph = self._graph(name)
        extra = 2.0 * graph.diagonal() if graph is not None else np.zeros(len(factor))
        for _ in range(config.inner):
            # One pass per linearisation where there is a graph: its majoriser ages with every pass.
            linear = target if graph is None else target - graph @ factor + extra[:, None] * factor
            for rows, used in self.groups[name]:
                normal = config.ridge * np.eye(config.dim) + sum((grams[n] for n in used), np.zeros(()))
                hals(factor, rows, normal, linear[rows], extra[rows], 1)
        self._kept.pop(name, None)

    def _project(self, side: Side) -> tuple[F64, F64]:
        core = self.cores[side.link.i, side.link.j]
        core = core if side.side == 0 else core.T
        projected = take(self.factors[side.other], side.others) @ core.T
        return projected, core @ self._gram(side.link, 1 - side.side) @ core.T

    def _gram(self, link: Link, side: int) -> F64:
        """H^T H over the objects of one side of a link, kept until that factor changes."""
        name, rows = (link.i, link.rows) if side == 0 else (link.j, link.columns)
        kept = self._kept.setdefault(name, {})
        key = (link.i, link.j)
        if key not in kept:
            kept[key] = gram(self.factors[name], rows)
        return kept[key]

    def _graph(self, name: str) -> csr_matrix | None:
        parts = [w * m for w, m in zip(self.weights.get(name, ()), self.problem.networks.get(name, ()), strict=True)]
        if name in self.similarity:
            parts.append(self.similarity[name])
        return csr_matrix(sum(parts)) if parts else None

    def update_cores(self) -> None:
        """B_ij by ridge least squares, in closed form: G_i B G_j + lambda B = H_i^T R H_j in the eigenbases of G."""
        self.data = 0.0
        for link in self.problem.links:
            cross = cross_moment(link, self.factors)
            gram_i, gram_j = self._gram(link, 0), self._gram(link, 1)
            a, u = np.linalg.eigh(gram_i)
            b, v = np.linalg.eigh(gram_j)
            scale = np.maximum(a, 0.0)[:, None] * np.maximum(b, 0.0) + self.config.ridge
            core = u @ ((u.T @ cross @ v) / scale) @ v.T
            self.cores[link.i, link.j] = core
            self.data += relation_loss(link.norm2, cross, gram_i, core, gram_j)

    def update_weights(self) -> None:
        """Network weights in closed form (Eq. 9)."""
        if not self.config.learn_weights:
            return
        for name, sources in self.problem.networks.items():
            traces = np.array([trace(source, self.factors[name]) for source in sources])
            self.weights[name] = network_weights(traces, self.config.tau)

    def grams(self) -> dict[tuple[str, str], F64]:
        """(i, j) -> [2, d, d], what the zeros of a new row of i, or of j, cost (see `SiMFState.grams`)."""
        out: dict[tuple[str, str], F64] = {}
        for link in self.problem.links:
            gram_i, gram_j = self._gram(link, 0), self._gram(link, 1)
            core = self.cores[link.i, link.j]
            out[link.i, link.j] = np.stack([core @ gram_j @ core.T, core.T @ gram_i @ core])
        return out


def converged(history: Sequence[float], refreshes: Sequence[int], tol: float) -> bool:
    """Whether the last sweep lowered O by less than `tol` of it; a sweep right after a refresh of S has another O."""
    if len(history) < 2 or len(history) - 1 in refreshes:
        return False
    return history[-2] - history[-1] < tol * abs(history[-2])


def _groups(problem: Problem, name: str) -> list[tuple[NDArray[np.int64], tuple[int, ...]]]:
    """Rows of a type by the sides they take part in: rows of one group share one normal matrix."""
    size = problem.sizes[name]
    member = [np.isin(np.arange(size), side.own) for side in problem.sides(name)]
    if not member:
        return [(np.arange(size), ())] if size else []
    patterns, of = np.unique(np.stack(member, axis=1), axis=0, return_inverse=True)
    return [(np.flatnonzero(of == n), tuple(np.flatnonzero(p).tolist())) for n, p in enumerate(patterns)]
