"""Figures by RecTools for the same lists as ours, kept in `figures/rectools.json`.

    python tests/rectools_figures.py > tests/figures/rectools.json

RecTools wants a numpy before 2 on the Pythons of this project, so it cannot be one of its dependencies: run this in an
environment of its own (`pip install rectools==0.19.0`). `tests/unit/test_measures.py` holds ours against the figures.
"""

import json
from typing import Any

import numpy as np

PLAYS, ITEMS, LIST, WINDOW = 60, 50, 20, 20


def made() -> tuple[Any, Any]:
    """Scores [PLAYS, ITEMS], all different in a row, and the coming plays [PLAYS, WINDOW], -1 behind a user's last."""
    rng = np.random.RandomState(7)  # the same numbers in every version of numpy
    scores = np.array([rng.permutation(ITEMS) for _ in range(PLAYS)], dtype=np.float32)
    after = rng.randint(0, ITEMS, (PLAYS, WINDOW))
    repeats = rng.rand(PLAYS, WINDOW) < 0.5
    for column in range(1, WINDOW):
        after[:, column] = np.where(repeats[:, column], after[:, column - 1], after[:, column])
    after[np.arange(WINDOW) >= rng.randint(1, WINDOW + 1, (PLAYS, 1))] = -1
    return scores, after


def main() -> None:
    """Print the figures."""
    import pandas as pd
    import rectools
    from rectools import metrics as m

    scores, after = made()
    best = np.argsort(-scores, axis=1)[:, :LIST]
    lists = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(PLAYS), LIST),
            "item_id": best.ravel(),
            "rank": np.tile(np.arange(1, 21), PLAYS),
        }
    )
    following = pd.DataFrame({"user_id": np.arange(PLAYS), "item_id": after[:, 0]})
    pairs = sorted({(row, int(item)) for row, items in enumerate(after) for item in items if item >= 0})
    window = pd.DataFrame(pairs, columns=["user_id", "item_id"])
    found = {"rectools": rectools.__version__}
    for n in (10, 20):
        kinds = {f"hr@{n}": m.HitRate(n), f"mrr@{n}": m.MRR(n), f"ndcg@{n}": m.NDCG(n, divide_by_achievable=True)}
        found |= {name: float(kind.calc(lists, following)) for name, kind in kinds.items()}
        kinds = {f"p@{n}": m.Precision(n), f"r@{n}": m.Recall(n), f"f1@{n}": m.F1Beta(n)}
        found |= {name: float(kind.calc(lists, window)) for name, kind in kinds.items()}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
