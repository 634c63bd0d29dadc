"""Intervals and paired tests over plays. Neighbouring plays are alike, so whole sessions are what is independent."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from msam.listening import Integers

Floats = NDArray[np.float64]


class Estimate(NamedTuple):
    """A mean and its 95 % interval; `p`: two-sided, of the mean being 0."""

    mean: float
    low: float
    high: float
    p: float


def clustered(values: Floats, clusters: Integers) -> Estimate:
    """Mean of values [T] with an interval that allows any likeness within a cluster [T].

    Cluster-robust variance of a mean (Cameron, Miller, 2015): Σ_c (Σ_{t in c} (x_t - mean))² / T² · C / (C - 1), and
    Student's t with C - 1 degrees of freedom. One cluster, or no values: the interval is unbounded and p is 1.
    """
    if not len(values):
        return Estimate(float("nan"), float("-inf"), float("inf"), 1.0)
    mean = float(values.mean())
    _, place = np.unique(clusters, return_inverse=True)
    sums = np.bincount(place, values - mean)
    count = len(sums)
    if count < 2:
        return Estimate(mean, float("-inf"), float("inf"), 1.0)
    error = float(np.sqrt((sums**2).sum() * count / (count - 1))) / len(values)
    reach = float(stats.t.ppf(0.975, count - 1)) * error
    p = 1.0 if mean == 0 else 0.0 if error == 0 else 2 * float(stats.t.sf(abs(mean) / error, count - 1))
    return Estimate(mean, mean - reach, mean + reach, p)


def paired(mine: Floats, theirs: Floats, clusters: Integers) -> Estimate:
    """Mean difference of the same plays under two systems, `mine - theirs`, both [T]."""
    return clustered(mine - theirs, clusters)
