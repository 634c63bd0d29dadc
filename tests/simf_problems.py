"""Small random relations for the tests of SiMF."""

import numpy as np
from scipy.sparse import csr_matrix

from msam.simf import Relations

SIZES = {"user": 9, "track": 30, "artist": 12, "tag": 7}
PAIRS = [("user", "track"), ("user", "artist"), ("track", "artist"), ("track", "tag"), ("artist", "tag")]
TRACK_ARTIST = ("track", "artist")


def sparse_matrix(rng: np.random.Generator, rows: int, columns: int, density: float = 0.25) -> csr_matrix:
    """Non-negative, about `density` full, never empty."""
    values = rng.exponential(size=(rows, columns)) * (rng.random((rows, columns)) < density)
    values[rng.integers(rows), rng.integers(columns)] = 1.0
    return csr_matrix(values)


def network(rng: np.random.Generator, n: int) -> csr_matrix:
    """A symmetric adjacency matrix."""
    half = sparse_matrix(rng, n, n, 0.2)
    return csr_matrix(half + half.T)


def random_relations(seed: int, pairs: list[tuple[str, str]] | None = None, networks: int = 2) -> Relations:
    """Every type of SIZES, the given relations and `networks` graphs of users and of tracks."""
    rng = np.random.default_rng(seed)
    types = {name: [f"{name}{n}" for n in range(size)] for name, size in SIZES.items()}
    matrices = {(i, j): sparse_matrix(rng, SIZES[i], SIZES[j]) for i, j in (PAIRS if pairs is None else pairs)}
    graphs = {name: [network(rng, SIZES[name]) for _ in range(networks)] for name in ("user", "track") if networks}
    return Relations(types, matrices, graphs)


def planted_relations(seed: int, tracks: int = 60) -> Relations:
    """Four tastes behind every relation: counts around the likeness of two objects, one artist a track."""
    rng = np.random.default_rng(seed)
    sizes = {"user": 20, "track": tracks, "artist": 15, "tag": 8}
    taste = {name: rng.dirichlet(np.full(4, 0.2), size=size) for name, size in sizes.items()}
    matrices = {
        (i, j): csr_matrix(np.log1p(rng.poisson(3 * taste[i] @ taste[j].T))) for i, j in PAIRS if (i, j) != TRACK_ARTIST
    }
    nearest = (taste["track"] @ taste["artist"].T).argmax(axis=1)
    matrices[TRACK_ARTIST] = csr_matrix(np.eye(sizes["artist"])[nearest])
    return Relations({name: [f"{name}{n}" for n in range(size)] for name, size in sizes.items()}, matrices)


def without(relations: Relations, name: str, lost: str) -> Relations:
    """The same relations without one object of type `name`."""
    at = list(relations.types[name]).index(lost)
    kept = np.delete(np.arange(len(relations.types[name])), at)
    types = {**relations.types, name: [relations.types[name][n] for n in kept]}
    matrices = {}
    for (i, j), matrix in relations.relations.items():
        cut = matrix[kept] if i == name else matrix
        matrices[i, j] = cut[:, kept] if j == name else cut
    graphs = {
        key: [graph[kept][:, kept] if key == name else graph for graph in sources]
        for key, sources in relations.networks.items()
    }
    return Relations(types, matrices, graphs)
