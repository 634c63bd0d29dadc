"""Ranking metrics against fractions worked out by hand."""

import math

import numpy as np
import pytest

from msam import metrics
from msam.errors import MethodError

RANKS = [1, 2, 4, 20, 21, math.inf]


def test_hit_rate_counts_ranks_up_to_n() -> None:
    assert metrics.hit_rate(RANKS, 1) == pytest.approx(1 / 6)
    assert metrics.hit_rate(RANKS, 10) == pytest.approx(3 / 6)
    assert metrics.hit_rate(RANKS, 20) == pytest.approx(4 / 6)


def test_mrr_is_the_mean_reciprocal_rank_within_n() -> None:
    assert metrics.mrr(RANKS, 20) == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 20) / 6)
    assert metrics.mrr(RANKS, 2) == pytest.approx((1 + 1 / 2) / 6)


def test_ndcg_discounts_by_the_logarithm() -> None:
    expected = (1 + 1 / math.log2(3) + 1 / math.log2(5) + 1 / math.log2(21)) / 6
    assert metrics.ndcg(RANKS, 20) == pytest.approx(expected)


@pytest.mark.parametrize("metric", [metrics.hit_rate, metrics.mrr, metrics.ndcg])
def test_no_targets_is_zero_and_bad_arguments_are_refused(metric) -> None:  # type: ignore[no-untyped-def]
    assert metric([], 5) == 0.0
    assert metric([math.inf], 5) == 0.0
    with pytest.raises(MethodError, match="N must be"):
        metric([1], 0)
    with pytest.raises(MethodError, match="start at 1"):
        metric([0], 5)
    with pytest.raises(MethodError, match="start at 1"):
        metric([math.nan], 5)


def test_ranks_break_ties_by_column_and_miss_unknown_targets() -> None:
    scores = np.array([[0.5, 2.0, 0.5, 1.0], [1.0, 1.0, 1.0, 1.0], [3.0, 2.0, 1.0, 0.0]])
    assert metrics.ranks_of(scores, np.array([2, 0, -1])).tolist() == [4.0, 1.0, math.inf]
    assert metrics.ranks_of(scores, np.array([0, 3, 3])).tolist() == [3.0, 4.0, 4.0]
