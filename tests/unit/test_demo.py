"""The demo's plan and figures, against numbers worked out by hand."""

from __future__ import annotations

from collections import Counter

import pytest

from msam.datasets.canonical import PlayRow, TrackRow
from streams.demo.plan import make_plan
from streams.demo.summary import Seen, cold_track, counts, latency_ms, prequential
from streams.errors import MsamError
from streams.records import Item, Reasons, Recommendation, Source


def track(name: str, artist: str | None) -> TrackRow:
    return TrackRow(name, f"Title {name}", artist, artist, None, None, ("l",), 180.0, None)


KNOWN = [track("a1", "A"), track("a2", "A"), track("a3", "A"), track("b1", "B"), track("n1", None)]


def log(names: dict[int, tuple[str, str]], count: int = 200) -> list[PlayRow]:
    """b1 by "u0" except at the given places, which name user and track."""
    return [PlayRow(*names.get(place, ("u0", "b1")), float(place)) for place in range(count)]


def test_phases_are_cut_in_time_order() -> None:
    plays = log({}, 230)
    plan = make_plan(plays, KNOWN, 200)
    assert [len(part) for part in (plan.history, plan.burst, plan.swap, plan.paced)] == [60, 50, 30, 60]
    assert plan.plays == plays[:200]
    assert len(make_plan(plays, KNOWN, None).plays) == 230
    with pytest.raises(MsamError, match="at least 200 plays, there are 199"):
        make_plan(plays, KNOWN, 199)


def test_the_cold_track_is_an_unheard_one_of_an_artist_that_is_about_to_be_played() -> None:
    # History (0-59) knows two tracks of A; the new track appears at play 150 and plays 150-169 are looked at.
    names = {1: ("u1", "a1"), 2: ("u1", "a2"), 155: ("u1", "a1"), 160: ("u1", "a2"), 169: ("u2", "a1")}
    names |= {170: ("u9", "a1"), 149: ("u8", "a1"), 199: ("u1", "a3")}
    plan = make_plan(log(names), KNOWN, None)
    assert plan.cold == KNOWN[2] and plan.listeners == {"u1", "u2"}
    assert [row.track_id for row in plan.tracks] == ["b1", "a1", "a2"], "in the order of their first play, without it"


def test_without_an_unheard_track_there_is_a_new_release() -> None:
    names = {1: ("u1", "a2"), 2: ("u1", "a1"), 100: ("u1", "a3"), 155: ("u1", "a3")}
    plan = make_plan(log(names), KNOWN, None)
    assert plan.cold is not None and plan.cold.track_id == "new-release-A" and plan.cold.title == "New Release"
    assert plan.cold == KNOWN[0]._replace(track_id="new-release-A", title="New Release") and plan.listeners == {"u1"}
    assert {row.track_id for row in plan.tracks} == {"a1", "a2", "a3", "b1"}


def test_no_cold_track_where_no_artist_fits() -> None:
    plan = make_plan(log({155: ("u1", "a1"), 156: ("u1", "n1"), 157: ("u1", "unknown")}), KNOWN, None)
    assert plan.cold is None and plan.listeners == frozenset()
    assert {row.track_id for row in plan.tracks} == {"a1", "b1", "n1"}


def seen(
    offset: int,
    *,
    user: str = "u",
    played: str = "t",
    items: tuple[str, ...] = (),
    at: float = 0.0,
    partition: int = 0,
    catalogue: int = 1,
) -> Seen:
    listed = tuple(Item(name, 0.01, rank, Reasons("similar")) for rank, name in enumerate(items, 1))
    source = Source("plays", partition, offset, 1.0, played)
    return Seen(at, Recommendation(user, listed, "v", catalogue, 0, 0, source))


def test_counts_by_hand() -> None:
    plays = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    lists = [seen(0), seen(0), seen(1), seen(1, partition=1), seen(9, partition=9)]
    dead = [(1, 0), (1, 1)]
    # (0, 2) has no answer; (0, 0) has two lists, (1, 1) a list and a letter, (9, 9) answers nothing.
    assert counts(plays, lists, dead) == {"plays": 5, "recommendations": 5, "lost": 1, "duplicates": 3}
    assert counts([], [], []) == {"plays": 0, "recommendations": 0, "lost": 0, "duplicates": 0}
    assert counts(plays[:2], lists[1:3], []) == {"plays": 2, "recommendations": 2, "lost": 0, "duplicates": 0}


def test_latency_by_hand() -> None:
    sent = {(0, offset): 10.0 for offset in range(5)}
    lists = [seen(offset, at=10.0 + (offset + 1) / 100) for offset in range(5)] + [seen(77, at=99.0)]
    # 10, 20, 30, 40, 50 ms; the 99th percentile lies 0.96 of the way from 40 to 50.
    assert latency_ms(sent, lists) == {"p50": 30.0, "p99": 49.6}
    assert latency_ms({}, lists) == {"p50": 0.0, "p99": 0.0}


def test_prequential_by_hand() -> None:
    long = tuple(f"x{n}" for n in range(11))
    lists = [
        seen(5, played="b", items=(*long, "c")),  # hit at rank 12
        seen(3, played="a", items=("b",)),  # hit at rank 1
        seen(8, played="c", items=("x",)),  # miss
        seen(9, played="d", items=("e",)),  # nothing follows
        seen(4, user="other", played="q", items=("a",), partition=1),
    ]
    assert prequential(lists, {}) == {"hr@10": 0.3333, "hr@20": 0.6667, "mrr@20": round((1 + 1 / 12) / 3, 4)}
    without = {"hr@10": 0.0, "hr@20": 0.5, "mrr@20": round(1 / 12 / 2, 4)}
    assert prequential(lists, {0: 6}) == without, "the play of b at offset 5 was the first model's"
    assert prequential(lists, {0: 5, 1: 99})["hr@20"] == round(2 / 3, 4)
    assert prequential(lists, {0: 100}) == prequential([], {}) == {"hr@10": 0.0, "hr@20": 0.0, "mrr@20": 0.0}


def test_prequential_of_a_play_of_the_same_track_again() -> None:
    lists = [seen(0, played="a", items=("a", "b")), seen(1, played="a", items=("a",)), seen(2, played="b")]
    assert prequential(lists, {}) == {"hr@10": 0.5, "hr@20": 0.5, "mrr@20": 0.5}


def test_the_cold_track_by_hand() -> None:
    lists = [
        seen(0, at=99.0, catalogue=9),  # before it was published: an older process could not know it
        seen(1, at=100.2, catalogue=7),
        seen(2, at=100.5, catalogue=8, user="stranger", items=("x", "new")),
        seen(3, at=100.7, catalogue=7),  # another worker was still behind
        seen(4, at=101.5, catalogue=9, user="fan", items=("new",)),
        seen(5, at=102.5, catalogue=9, user="fan", items=("x", "y", "new")),
    ]
    assert cold_track("new", 8, 100.0, lists, frozenset({"fan"})) == {
        "track_id": "new",
        "seconds_to_scored": 0.7,
        "seconds_to_first_recommendation": 1.5,
        "lists": 3,
        "best_rank": 1,
    }
    assert cold_track("new", 8, 100.0, lists[:2], frozenset({"fan"})) == {
        "track_id": "new",
        "seconds_to_scored": None,
        "seconds_to_first_recommendation": None,
        "lists": 0,
        "best_rank": None,
    }
    assert cold_track("new", 8, 100.0, lists[:3], frozenset())["seconds_to_scored"] == 0.5


def test_the_plan_streams_every_play_once() -> None:
    plays = log({place: (f"u{place % 7}", ("a1", "a2", "b1")[place % 3]) for place in range(401)}, 401)
    plan = make_plan(plays, KNOWN, None)
    assert Counter(plan.plays) == Counter(plays) and plan.plays == plays
    assert plan.cold is not None and plan.cold.track_id not in {play.track_id for play in plays}
