"""SiMF on HetRec 2011 Last.fm 2K: a held-out fifth of user-artist, cold artists, and what its solver promises.

    python benchmarks/simf_hetrec.py --data DIR/hetrec_lastfm2k [--fifths 5] [--out results.json]

Every system gets the same number of settings to try, on a fifth of the training links; the best by NDCG@20 is fitted
on all of them and tested once. What SiMF and DFMF share (BASE) was found by hand before, on the fifth of
seed 0: they had more tries than ALS, which takes part where `implicit` is installed (`pip install ".[compare]"`).
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from telling import say, tell

from msam.datasets.hetrec import load_hetrec
from msam.evaluation.completion import Completion, hold_out, judge, scores
from msam.evaluation.statistics import clustered
from msam.simf import Relations, SiMF, SiMFConfig, SiMFState, links_of, warm_start
from msam.simf.alternation import Alternation
from msam.simf.objective import objective
from msam.simf.problem import prepare

PAIR = ("user", "artist")
BASE = SiMFConfig(dim=100, degree_power=0.25, relation_weights={"user-artist": 3.0}, max_sweeps=15)
"""What SiMF and DFMF share. Found on the fifth of the training links of seed 0."""
DFMF = [
    SiMFConfig.dfmf(**{**BASE.to_dict(), **own, "beta": 0.0, "learn_weights": False, "similarity": {}})
    for own in ({"ridge": 1e-4}, {"ridge": 3e-4}, {"ridge": 1e-3}, {"ridge": 3e-3}, {"dim": 50})
]
SIMF = [
    replace(BASE, similarity={"relations": 1.0}, beta=beta, ridge=ridge)
    for beta, ridge in ((0.3, 3e-4), (1.0, 3e-4), (0.1, 1e-3), (0.3, 1e-3), (1.0, 1e-3))
]
ALS = [
    {"factors": factors, "regularization": ridge, "alpha": alpha}
    for factors, ridge, alpha in ((32, 10, 1), (32, 30, 1), (64, 30, 1), (64, 100, 1), (128, 100, 1))
]
Score = Callable[[np.ndarray], np.ndarray]
Fit = Callable[[Relations, Any], Score]


def told(relations: Relations, folder: Path, held: csr_matrix) -> Relations:
    """The relations as they are when the links of `held` are not known."""
    users, artists = relations.types["user"], relations.types["artist"]
    pairs = [(users[u], artists[a]) for u, a in zip(*held.nonzero(), strict=True)]
    return load_hetrec(folder, pairs)


def fit_simf(relations: Relations, config: SiMFConfig) -> Score:
    """Scores of a fit."""
    state = SiMF(config).fit(relations)
    return lambda rows: scores(state, *PAIR, rows)


def fit_als(relations: Relations, settings: Mapping[str, float]) -> Score:
    """Scores of `implicit` ALS on the same log counts."""
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(**settings, iterations=15, num_threads=1, random_state=0)
    model.fit(csr_matrix(relations.relations[PAIR], dtype=np.float32), show_progress=False)
    return lambda rows: model.user_factors[rows] @ model.item_factors.T


def tuned(name: str, fit: Fit, grid: Sequence[Any], relations: Relations, known: csr_matrix, held: csr_matrix) -> Any:
    """The settings of `grid` with the best NDCG@20 on `held`."""
    found = []
    for settings in grid:
        figure = float(judge(fit(relations, settings), known, held).ndcg.mean())
        found.append(figure)
        say(f"{name}: {figure:.4f} with {settings}")
    return grid[int(np.argmax(found))]


def figures(found: Completion) -> dict[str, Any]:
    """NDCG@20 and recall@20 with their 95 % intervals over users."""
    return {
        "ndcg@20": clustered(found.ndcg, found.rows)._asdict(),
        "recall@20": clustered(found.recall, found.rows)._asdict(),
    }


def held_fifth(folder: Path, whole: Relations, seed: int) -> tuple[dict[str, Completion], dict[str, Any]]:
    """Each system tuned, fitted, tested on one fifth; and the settings that were chosen."""
    known, test = hold_out(whole.relations[PAIR], 0.2, seed)
    inner, tune = hold_out(known, 0.2, seed + 1)
    after, before = told(whole, folder, test), told(whole, folder, test + tune)
    systems: dict[str, tuple[Fit, Sequence[Any]]] = {"simf": (fit_simf, SIMF), "dfmf": (fit_simf, DFMF)}
    if find_spec("implicit"):
        systems["als"] = (fit_als, ALS)
    popular = np.asarray((known > 0).sum(axis=0), dtype=float).ravel()
    found = {"popularity": judge(lambda rows: np.tile(popular, (len(rows), 1)), known, test)}
    chosen = {}
    for name, (fit, grid) in systems.items():
        chosen[name] = tuned(name, fit, grid, before, inner, tune)
        found[name] = judge(fit(after, chosen[name]), known, test)
    return found, chosen


def compared(fifths: Sequence[dict[str, Completion]]) -> dict[str, Any]:
    """The table: each system over all fifths, and SiMF against each of the others; a user of several fifths is one."""
    found = {
        name: Completion(*(np.concatenate(field) for field in zip(*(one[name] for one in fifths), strict=True)))
        for name in fifths[0]
    }
    mine = found["simf"]
    return {
        "users": len(np.unique(mine.rows)),
        "figures": {name: figures(one) for name, one in found.items()},
        "simf minus": {
            name: figures(Completion(mine.rows, mine.ndcg - other.ndcg, mine.recall - other.recall))
            for name, other in found.items()
            if name != "simf"
        },
    }


def cold_artists(folder: Path, whole: Relations, config: SiMFConfig, seed: int, share: float = 0.1) -> dict[str, Any]:
    """Artists that the fit has never met, warm started from their tags alone, ranked among themselves for every user.

    "popularity" knows no plays of them either, so it ranks by chance; "most tagged" by how often an artist was tagged.
    """
    matrix, tags = whole.relations[PAIR], whole.relations["artist", "tag"]
    tagged = np.flatnonzero((np.diff(tags.indptr) > 0) & (np.bincount(matrix.indices, minlength=tags.shape[0]) > 0))
    cold = np.sort(np.random.default_rng(seed).permutation(tagged)[: int(len(tagged) * share)])
    kept = np.setdiff1d(np.arange(tags.shape[0]), cold)
    held = csr_matrix(matrix[:, cold])
    column = csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape, copy=True)
    column.data = np.where(np.isin(column.indices, cold), column.data, 0.0)
    column.eliminate_zeros()
    clean = told(whole, folder, column)
    artists = [clean.types["artist"][row] for row in kept]
    relations = {
        PAIR: csr_matrix(clean.relations[PAIR][:, kept]),
        ("artist", "tag"): csr_matrix(clean.relations["artist", "tag"][kept]),
        ("user", "tag"): clean.relations["user", "tag"],
    }
    state = SiMF(config).fit(Relations({**clean.types, "artist": artists}, relations, clean.networks))
    links = [{"tag": row["tag"]} for row in links_of(clean, "artist", cold.tolist())]
    rows = warm_start(state, "artist", links).astype(np.float64)
    turned = warm_start(state, "artist", links[::-1])[::-1]
    one_by_one = np.concatenate([warm_start(state, "artist", [link]) for link in links])
    left = state.factors["user"] @ state.cores[PAIR]
    nothing = csr_matrix(held.shape)
    popular = np.expm1(tags[cold].data)
    times = np.bincount(np.repeat(np.arange(len(cold)), np.diff(tags[cold].indptr)), popular, minlength=len(cold))
    rng = np.random.default_rng(seed)
    found = {
        "simf": judge(lambda users: left[users] @ rows.T, nothing, held),
        "most tagged": judge(lambda users: np.tile(times, (len(users), 1)), nothing, held),
        "popularity": judge(lambda users: rng.random((len(users), len(cold))), nothing, held),
    }
    return {
        "artists": len(cold),
        "users": len(found["simf"].rows),
        "order of arrival": float(max(np.abs(rows - turned).max(), np.abs(rows - one_by_one).max())),
        "figures": {name: figures(one) for name, one in found.items()},
        "simf over": {
            name: {
                "ndcg@20": float(found["simf"].ndcg.mean() / found[name].ndcg.mean()),
                "recall@20": float(found["simf"].recall.mean() / found[name].recall.mean()),
            }
            for name in ("most tagged", "popularity")
        },
    }


def without(relations: Relations, at: int) -> Relations:
    """The relations without the artist in row `at`."""
    kept = np.delete(np.arange(len(relations.types["artist"])), at)
    return Relations(
        {**relations.types, "artist": [relations.types["artist"][row] for row in kept]},
        {
            PAIR: csr_matrix(relations.relations[PAIR][:, kept]),
            ("artist", "tag"): csr_matrix(relations.relations["artist", "tag"][kept]),
            ("user", "tag"): relations.relations["user", "tag"],
        },
        relations.networks,
    )


def rises(state: SiMFState) -> int:
    """Sweeps after which O stood higher than before, S being the same."""
    steps = np.diff(state.history)
    return int(sum(step > 1e-11 for n, step in enumerate(steps, 1) if n not in state.refreshes))


def solver(
    whole: Relations,
    config: SiMFConfig,
) -> dict[str, Any]:
    """Whether O falls; and O with one artist's row warm started, all else fixed, over O of a joint refit."""
    popular = np.asarray((whole.relations[PAIR] > 0).sum(axis=0)).ravel()
    order = np.argsort(-popular, kind="stable")
    excess: dict[str, float] = {}
    fits = []
    for at in (int(order[n]) for n in (10, 2000)):
        alone = SiMF(config).fit(without(whole, at))
        row = warm_start(alone, "artist", links_of(whole, "artist", [at]))[0].astype(np.float64)
        factors = {**alone.factors, "artist": np.insert(alone.factors["artist"], at, row, axis=0)}
        run = Alternation(prepare(whole, config), config, factors, {})
        if config.beta:
            run.refresh(with_factors=True)
        value = objective(run.problem, factors, alone.cores, alone.weights, run.similarity, config).total
        joint = SiMF(config).fit(whole, init=alone)
        excess[f"an artist of {popular[at]} listeners"] = value / joint.history[-1] - 1
        fits += [alone, joint]
    return {"rises": sum(map(rises, fits)), "sweeps": sum(len(fit.history) for fit in fits), "excess": excess}


def main() -> int:
    """Run the parts and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fifths", type=int, default=1, help="how many random fifths are held out, one after another")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    whole = load_hetrec(args.data)
    fifths, settings = [], []
    for place in range(args.fifths):
        found, chosen = held_fifth(args.data, whole, args.seed + 2 * place)  # each takes two seeds
        fifths.append(found)
        settings.append(chosen)
        say(json.dumps(compared(fifths)))
    config: SiMFConfig = settings[0]["simf"]
    result = {
        "held-out fifth": {
            **compared(fifths),
            "chosen": [
                {name: c.to_dict() if isinstance(c, SiMFConfig) else c for name, c in chosen.items()}
                for chosen in settings
            ],
        },
        "cold artists": cold_artists(args.data, whole, config, args.seed),
        "solver": solver(whole, replace(config, dim=32)),
    }
    tell(result, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
