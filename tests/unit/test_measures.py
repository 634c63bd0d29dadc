"""What is measured on a play, against fractions worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from msam.baselines.contract import probabilities
from msam.content import Content
from msam.evaluation.measures import (
    CUTS,
    WINDOW,
    Judged,
    distinct,
    judge,
    nothing,
    nothing_of,
    top,
    values,
    windows_after,
)
from msam.listening import Listening
from tests.rectools_figures import made

# 30 items; the list is 0, 1, 2, ... because scores fall. The coming plays: 3, 1, 3, 29 and the end.
SCORES = np.arange(30, 0, -1, dtype=np.float32)[None]
AFTER = np.full((1, WINDOW), -1, dtype=np.int64)
AFTER[0, :4] = [3, 1, 3, 29]
TOTAL = 465.0  # 30 + 29 + ... + 1


def judged(seen: list[int] | None = None) -> Judged:
    mask = None if seen is None else np.isin(np.arange(30), seen)
    return judge(SCORES, False, AFTER, mask)


def figures(of: Judged) -> dict[str, float]:
    return {name: float(column[0]) for name, column in values(of, distinct(AFTER).sum(axis=1)).items()}


def test_the_next_play_is_what_hit_rate_mrr_and_ndcg_are_about() -> None:
    found = figures(judged())
    assert found["hr@10"] == found["hr@20"] == 1.0
    assert found["mrr@20"] == pytest.approx(1 / 4)
    assert found["ndcg@20"] == pytest.approx(1 / math.log2(5))


def test_precision_recall_and_f1_count_the_distinct_items_of_the_next_window() -> None:
    found = figures(judged())  # relevant: 3, 1, 29; in the list: 1 (2nd), 3 (4th)
    assert (found["p@2"], found["r@2"]) == (1 / 2, pytest.approx(1 / 3))
    assert (found["p@4"], found["r@4"]) == (2 / 4, pytest.approx(2 / 3))
    assert (found["p@20"], found["r@20"]) == (2 / 20, pytest.approx(2 / 3))
    assert found["f1@4"] == pytest.approx(2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3))
    assert found["f1@20"] == pytest.approx(2 * (1 / 10) * (2 / 3) / (1 / 10 + 2 / 3))
    assert judged().hits[0].tolist() == [1, *[2] * (len(CUTS) - 1)]


def test_errors_are_over_the_union_of_list_and_window() -> None:
    truth = {3: 2 / 20, 1: 1 / 20, 29: 1 / 20}
    union = [*range(20), 29]
    guess = {item: (30 - item) / TOTAL * 4 / 20 for item in union}  # four plays are left
    off = [guess[item] - truth.get(item, 0.0) for item in union]
    logs = [math.log1p(guess[item]) - math.log1p(truth.get(item, 0.0)) for item in union]
    found = figures(judged())
    assert found["mse"] == pytest.approx(sum(x * x for x in off) / 21, rel=1e-5)
    assert found["mae"] == pytest.approx(sum(map(abs, off)) / 21, rel=1e-5)
    assert found["msle"] == pytest.approx(sum(x * x for x in logs) / 21, rel=1e-5)
    assert found["mape"] == pytest.approx(sum(abs(guess[i] - y) / y for i, y in truth.items()) / 3, rel=1e-5)


def test_what_is_right_beats_zero_everywhere() -> None:
    after = np.array([[3, 1, 3, 29, *[2] * 16]])
    right = np.zeros((1, 30), dtype=np.float32)
    right[0, [3, 1, 29, 2]] = 3, 1, 1, 15
    mine, zero = values(judge(right, False, after), np.array([4])), nothing(after)
    assert all(float(mine[name][0]) < zero[name] for name in ("mse", "mae", "mape", "msle"))
    assert zero["mae"] == pytest.approx(1 / 24) and zero["mse"] == pytest.approx((16**2 + 2**2 + 1 + 1) / 400 / 24)


def test_zero_over_the_same_items() -> None:
    """The true scores 2/20, 1/20 and 1/20 over the 20 listed items and the one that was missed."""
    assert nothing_of(judged(), distinct(AFTER).sum(axis=1), np.array([4])).tolist() == [4 / 20 / 21]


def test_figures_are_those_of_rectools() -> None:
    """The same lists measured by RecTools (see tests/rectools_figures.py): every figure that both have."""
    expected = json.loads((Path(__file__).parent.parent / "figures" / "rectools.json").read_text())
    scores, after = made()
    found = values(judge(scores, False, after), distinct(after).sum(axis=1))
    assert expected.pop("rectools") and len(expected) == 12
    for name, figure in expected.items():
        assert found[name].mean() == pytest.approx(figure, rel=1e-12), name


def test_an_unseen_target_is_a_miss_and_unseen_items_are_not_listed() -> None:
    found = judged(seen=[1, 4, 5, 29])
    assert found.rank[0] == math.inf and found.open_rank[0] == 4
    assert figures(found)["p@2"] == 1 / 2  # 1, 4 | 5, 29
    assert figures(found)["p@4"] == 2 / 4
    assert judged(seen=[3, 1, 20]).rank[0] == 2


def test_top_lists_the_lower_column_first_among_equals() -> None:
    scores = np.array([[1, 2, 2, 0, 2, 1], [0, 0, 0, 0, 0, 0]], dtype=np.float32)
    assert top(scores, 4).tolist() == [[1, 2, 4, 0], [0, 1, 2, 3]]
    assert top(scores, 9).tolist() == [[1, 2, 4, 0, 5, 3], [0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_top_is_the_begin_of_a_stable_sort(levels: int) -> None:
    scores = np.random.default_rng(levels).integers(levels, size=(50, 300)).astype(np.float32)
    scores[:, ::7] = -np.inf
    scores.setflags(write=False)
    assert np.array_equal(top(scores, 20), np.argsort(-scores, axis=1, kind="stable")[:, :20])


def test_probabilities_of_logits_and_weights() -> None:
    logits = np.log(np.array([[1.0, 3.0]], dtype=np.float32))
    np.testing.assert_allclose(probabilities(logits, True), [[0.25, 0.75]], rtol=1e-6)
    assert probabilities(np.zeros((1, 3), dtype=np.float32), False).tolist() == [[0, 0, 0]]
    hidden = np.array([[0.0, -np.inf]], dtype=np.float32)
    assert probabilities(hidden, True).tolist() == [[1, 0]]


def log() -> Listening:
    """Two users; b's third play is the first after a gap, and comes before a's."""
    plays = [("a", "x", 10.0), ("a", "y", 20.0), ("a", "x", 30.0), ("a", "z", 99999.0)]
    plays += [("b", "y", 11.0), ("b", "z", 5000.0)]
    return Listening.build(["x", "y", "z"], ["a", "b"], plays, Content.empty(3, 2))


def test_a_log_is_cut_by_user_and_by_session() -> None:
    data = log()
    assert data.cuts(0.5).tolist() == [2, 5]
    assert data.first(data.cuts(0.5)).plays.tolist() == [0, 1, 1]
    assert data.targets(data.cuts(0.5)).tolist() == [2, 3, 5] and data.targets().tolist() == [1, 2, 3, 5]
    assert [(user, items.tolist()) for user, items, _ in data.sessions()] == [
        (0, [0, 1, 0]),
        (0, [2]),
        (1, [1]),
        (1, [2]),
    ]
    assert data.history(3).items.tolist() == [0, 1, 0] and data.history(3).session().tolist() == [0, 1, 0]
    assert windows_after(data, np.array([2]))[0, :3].tolist() == [0, 2, -1]


def test_cuts_are_whole_plays_whatever_the_rounding() -> None:
    for count in range(1, 60):
        plays = [("u", "x", float(step)) for step in range(count)]
        data = Listening.build(["x"], ["u"], plays, Content.empty(1, 1))
        assert int(data.cuts(0.2)[0]) == count * 4 // 5
