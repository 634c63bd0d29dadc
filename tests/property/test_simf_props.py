"""Laws of SiMF on random problems: O falls, O is what Eq. 10 says, solves are optimal, bits do not wander."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from scipy.sparse import csr_matrix

from msam.simf import SiMF, SiMFConfig, SiMFState, links_of, warm_start
from msam.simf.alternation import Alternation
from msam.simf.nnls import nnls_row
from msam.simf.objective import network_weights, objective, relation_loss
from msam.simf.problem import Problem, prepare
from msam.simf.similarity import dense_graph, laplacian
from msam.simf.start import starting_factors
from tests.simf_problems import PAIRS, random_relations

seeds = st.integers(0, 2**32 - 1)
subsets = st.lists(st.sampled_from(PAIRS), min_size=1, max_size=len(PAIRS), unique=True)
configs = st.builds(
    SiMFConfig,
    dim=st.integers(1, 9),
    beta=st.sampled_from([0.0, 0.01, 1.0]),
    ridge=st.sampled_from([1e-5, 1e-3, 0.1]),
    tau=st.sampled_from([0.01, 0.1, 10.0]),
    learn_weights=st.booleans(),
    neighbours=st.integers(1, 5),
    degree_power=st.sampled_from([0.0, 0.5, 1.0]),
    mask_missing=st.booleans(),
    refresh_every=st.just(4),
    tol=st.just(1e-12),
    max_sweeps=st.just(11),
    seed=st.integers(0, 9),
)
few = settings(max_examples=25, deadline=None, derandomize=True)


def alternation(seed: int, config: SiMFConfig, pairs: list[tuple[str, str]] | None = None) -> Alternation:
    relations = random_relations(seed, pairs)
    run = Alternation(prepare(relations, config), config, starting_factors(relations, config, None), {})
    run.update_cores()
    return run


def dense_objective(problem: Problem, run: Alternation, config: SiMFConfig) -> float:
    """Eq. 10 with every matrix dense."""
    total = 0.0
    for link in problem.links:
        left, right = run.factors[link.i][link.rows], run.factors[link.j][link.columns]
        total += float(np.sum((link.matrix.toarray() - left @ run.cores[link.i, link.j] @ right.T) ** 2))
    for name, sources in problem.networks.items():
        for w, source in zip(run.weights[name], sources, strict=True):
            total += w * np.trace(run.factors[name].T @ source.toarray() @ run.factors[name])
        total += config.tau * float(np.sum(run.weights[name] * np.log(run.weights[name])))
    for name, graph in run.similarity.items():
        total += np.trace(run.factors[name].T @ graph.toarray() @ run.factors[name])
    return total + config.ridge * sum(float(np.sum(m**2)) for m in (*run.factors.values(), *run.cores.values()))


@few
@given(seeds, configs, subsets)
def test_objective_by_trace_expansion_equals_the_dense_sum(
    seed: int, config: SiMFConfig, pairs: list[tuple[str, str]]
) -> None:
    run = alternation(seed, config, pairs)
    if config.beta:
        run.refresh(with_factors=True)
    expected = dense_objective(run.problem, run, config)
    assert run.objective() == pytest.approx(expected, rel=1e-9)
    alone = objective(run.problem, run.factors, run.cores, run.weights, run.similarity, config)
    assert alone.total == pytest.approx(expected, rel=1e-9)


@few
@given(seeds, configs, subsets)
def test_no_step_between_refreshes_raises_the_objective(
    seed: int, config: SiMFConfig, pairs: list[tuple[str, str]]
) -> None:
    run = alternation(seed, config, pairs)
    if config.beta:
        run.refresh(with_factors=True)

    def value() -> float:
        return objective(run.problem, run.factors, run.cores, run.weights, run.similarity, config).total

    before = value()
    for _ in range(3):
        steps = [lambda n=name: run.update_factor(n) for name in run.problem.sizes]
        for step in (*steps, run.update_cores, run.update_weights):
            step()
            after = value()
            assert after <= before + 1e-11 * abs(before)
            before = after
        assert all((h >= 0).all() for h in run.factors.values())


@few
@given(seeds, configs, subsets)
def test_history_falls_between_refreshes(seed: int, config: SiMFConfig, pairs: list[tuple[str, str]]) -> None:
    state = SiMF(config).fit(random_relations(seed, pairs))
    assert len(state.history) > 2
    assert (len(state.refreshes) > 1) == (config.beta > 0 and len(state.history) > config.refresh_every)
    for sweep in range(1, len(state.history)):
        if sweep not in state.refreshes:
            assert state.history[sweep] <= state.history[sweep - 1] + 1e-11 * abs(state.history[sweep - 1])


@few
@given(seeds, configs)
def test_cores_are_the_minimisers(seed: int, config: SiMFConfig) -> None:
    run = alternation(seed, config)
    rng = np.random.default_rng(seed)
    for link in run.problem.links:
        left, right = run.factors[link.i][link.rows], run.factors[link.j][link.columns]
        given_moments = link.norm2, left.T @ (link.matrix @ right), left.T @ left

        def value(core: np.ndarray, parts=given_moments, gram=right.T @ right) -> float:
            return relation_loss(*parts, core, gram) + config.ridge * float(np.sum(core**2))

        best = run.cores[link.i, link.j]
        for _ in range(5):
            other = best + rng.normal(size=best.shape) * 10.0 ** -rng.integers(1, 4)
            assert value(other) >= value(best) - 1e-12


@few
@given(st.lists(st.floats(0, 50), min_size=1, max_size=6), st.floats(0.01, 10), seeds)
def test_network_weights_minimise_on_the_simplex(traces: list[float], tau: float, seed: int) -> None:
    costs = np.array(traces)

    def value(w: np.ndarray) -> float:
        return float(w @ costs + tau * np.sum(w[w > 0] * np.log(w[w > 0])))

    best = network_weights(costs, tau)
    assert best.sum() == pytest.approx(1.0) and (best >= 0).all()
    others = np.random.default_rng(seed).dirichlet(np.ones(len(costs)), size=50)
    for other in (*others, *np.eye(len(costs)), *(0.99 * best + 0.01 * others)):
        assert value(best) <= value(other) + 1e-9 * (1 + abs(value(other)))


@few
@given(seeds, st.integers(1, 40))
def test_row_solve_equals_lawson_hanson(seed: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(d + 5, d)), rng.normal(size=d + 5)
    expected, _ = nnls(a, b)
    np.testing.assert_allclose(nnls_row(a.T @ a, a.T @ b), expected, atol=1e-7 * (1 + np.abs(expected).max()))


@few
@given(seeds, st.integers(1, 8), st.integers(1, 300))
def test_dense_graph_holds_the_nearest(seed: int, k: int, n: int) -> None:
    x = np.random.default_rng(seed).normal(size=(n, 4))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -1)
    near = np.zeros((n, n))
    for row in range(n):
        best = [c for c in np.argsort(-cosines[row], kind="stable")[:k] if cosines[row, c] > 1e-6]
        near[row, best] = 0.5 * (1 + cosines[row, best])
    graph = dense_graph(x, k, chunk=64)
    np.testing.assert_allclose(graph.toarray(), np.maximum(near, near.T), atol=1e-5)
    shape = laplacian(graph).toarray()
    assert np.linalg.eigvalsh(shape).min() > -1e-9 and np.abs(shape.sum(axis=0)).max() < 1e-9


@pytest.fixture(scope="module")
def fitted() -> SiMFState:
    return SiMF(SiMFConfig(dim=12, max_sweeps=15, seed=3)).fit(random_relations(5))


@few
@given(seed=seeds)
def test_warm_start_bits_do_not_depend_on_batch_or_order(fitted: SiMFState, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pool = links_of(random_relations(seed, networks=0), "track", range(30)) * 3
    links = [pool[n] for n in rng.integers(len(pool), size=64)]
    near = [{f"track{n}": 0.5 + n / 60 for n in rng.choice(30, size=rng.integers(0, 4), replace=False)} for _ in links]
    whole = warm_start(fitted, "track", links, near)
    for size in (1, 7):
        parts = [warm_start(fitted, "track", links[b : b + size], near[b : b + size]) for b in range(0, 64, size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
    turn = rng.permutation(64)
    shuffled = [{j: dict(reversed(row[j].items())) for j in reversed(row)} for row in (links[n] for n in turn)]
    assert warm_start(fitted, "track", shuffled, [near[n] for n in turn]).tobytes() == whole[turn].tobytes()
    assert whole.dtype == np.float32 and (whole >= 0).all() and len(np.unique(whole, axis=0)) > 10


def test_graph_of_nothing_is_empty() -> None:
    assert dense_graph(np.zeros((5, 3)), 2).nnz == 0
    assert laplacian(csr_matrix((4, 4))).nnz == 0
