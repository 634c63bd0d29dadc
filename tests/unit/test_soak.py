"""What the soak makes of its samples: planted leaks are found, and noise, steps and a warm-up are not."""

from __future__ import annotations

import os
import random

import pytest

from tests.chaos.soak import Sample, judge, sample, slope

HOUR = 3600.0


def run(leak: float = 0.0, descriptors: float = 0.0, noise: float = 2.0) -> list[Sample]:
    """An hour: memory climbs by 80 MB in the first ten minutes, then by `leak` MB an hour under noise."""
    chance = random.Random(1)
    found = []
    for n in range(720):
        at = 5.0 * n
        climb = 80 * min(at / 500, 1.0)
        rss = 400 + climb + leak * at / HOUR + chance.gauss(0, noise)
        found.append(Sample(at, rss, 90 + round(descriptors * at / HOUR) + chance.randrange(3)))
    return found


def test_level_is_level() -> None:
    found = judge(run(), HOUR)
    assert found["ok"] and not found["descriptors"]["grow"]
    assert found["rss_mb_per_hour"]["low"] < 0 < found["rss_mb_per_hour"]["high"]


def test_a_leak_is_found() -> None:
    found = judge(run(leak=8.0), HOUR)
    assert not found["ok"] and found["rss_mb_per_hour"]["low"] < 8 < found["rss_mb_per_hour"]["high"]
    assert judge(run(leak=2.0), HOUR)["ok"], "below the limit"


def test_descriptors_that_grow_are_found() -> None:
    found = judge(run(descriptors=6.0), HOUR)
    assert not found["ok"] and found["descriptors"]["grow"]


def test_too_few_samples_prove_nothing() -> None:
    assert "samples" in judge(run()[:30], 150.0)["reason"]


def test_a_slope_by_hand() -> None:
    times = [5.0 * n for n in range(720)]
    found = slope(times, [3.0 * at / HOUR + 7 for at in times])
    assert (found.per_hour, found.low, found.high) == pytest.approx((3.0, 3.0, 3.0))


def test_this_process_can_be_sampled() -> None:
    before = sample(os.getpid(), 0.0)
    with open(os.devnull):
        after = sample(os.getpid(), 1.0)
    assert after.descriptors == before.descriptors + 1 and 10 < before.rss < 10_000
