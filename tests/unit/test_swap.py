"""What the measure of swaps makes of its figures."""

from __future__ import annotations

import pytest

from tests.chaos.swap import Place, judge


def figures(slow: float, rate: int = 100) -> tuple[dict[Place, float], dict[Place, float]]:
    """Ten seconds of plays that take 20 ms each; from second 4 to 5, `slow` ms."""
    appended = {(n % 4, n): n / rate for n in range(10 * rate)}
    return appended, {p: at + (slow if 4 <= at < 5 else 20.0) / 1000 for p, at in appended.items()}


@pytest.mark.parametrize(("slow", "ok"), [(20.0, True), (29.9, True), (31.0, False)])
def test_the_plays_of_swaps_are_held_against_the_others(slow: float, ok: bool) -> None:
    appended, arrived = figures(slow)
    found = judge(appended, arrived, dict.fromkeys(appended, 1), [(4.0, 5.0)])
    assert found["ok"] == ok and found["p99_ratio"] == pytest.approx(slow / 20, abs=0.01)
    assert (found["delay_ms"]["during"]["plays"], found["delay_ms"]["without"]["plays"]) == (100, 900)


def test_a_dropped_and_a_doubled_play_are_seen() -> None:
    appended, arrived = figures(20.0)
    answers = dict.fromkeys(appended, 1)
    first, second, *_ = answers
    del answers[first], arrived[first]
    found = judge(appended, arrived, answers | {second: 2}, [(4.0, 5.0)])
    assert (found["ok"], found["dropped"], found["duplicates"]) == (False, 1, 1)
    assert not judge(appended, arrived, dict.fromkeys(appended, 1), [])["ok"], "without a swap nothing is shown"


def test_delays_of_a_queue_say_nothing() -> None:
    appended, _ = figures(20.0)
    late = {place: at + 2.0 for place, at in appended.items()}
    found = judge(appended, late, dict.fromkeys(appended, 1), [(4.0, 5.0)])
    assert (found["ok"], found["kept_up"], found["p99_ratio"], found["dropped"]) == (False, False, 1.0, 0)
