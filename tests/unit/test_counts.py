"""Counts: tiny cases worked out by hand, and the candidates that must be there."""

from __future__ import annotations

import numpy as np
import pytest

from msam.config import ConfigError, CountsConfig
from msam.counts import (
    FEATURES,
    NO_PLAYS,
    CandidateMaker,
    Discography,
    KeyIndex,
    Plays,
    SharedCounts,
    UserHistory,
    key_of,
    keys_of,
)

U, V = key_of("u"), key_of("v")
A, B, C, D = (key_of(name) for name in "abcd")
CONFIG = CountsConfig(history=50)


def fold(counts: SharedCounts, user: int, tracks: list[int], times: list[float], artist: int = 0) -> None:
    """Plays of one user."""
    count = len(tracks)
    counts.fold(np.full(count, user), np.array(tracks), np.full(count, artist), np.array(times, dtype=np.float64))


def history(plays: list[tuple[int, float]], limit: int = 50) -> Plays:
    """Plays as (track, time)."""
    made = UserHistory(limit)
    for play in plays:
        made.append(*play)
    return made.plays()


def described(
    own: Plays, shared: SharedCounts, book: Discography, config: CountsConfig = CONFIG
) -> dict[int, dict[str, float]]:
    """Inputs by name of every candidate."""
    keys, features = CandidateMaker(config).make(own, shared, book)
    return {
        key: dict(zip(FEATURES, row, strict=True)) for key, row in zip(keys.tolist(), features.tolist(), strict=True)
    }


def test_rules_weigh_a_play_by_its_distance_and_stop_at_a_gap() -> None:
    counts = SharedCounts(CONFIG)
    fold(counts, U, [A, B, C, D], [0.0, 60.0, 120.0, 120.0 + 1801.0])
    assert counts.followers(A) == {B: (1.0, 1), C: (0.25, 0)}
    assert counts.followers(B) == {C: (1.0, 1)}
    assert counts.followers(C) == {D: (0.0, 1)}  # a move over a break, but no rule


def test_users_do_not_follow_one_another() -> None:
    counts = SharedCounts(CONFIG)
    counts.fold(np.array([U, V, U]), np.array([A, B, C]), np.zeros(3, np.int64), np.array([0.0, 1.0, 2.0]))
    assert counts.followers(A) == {C: (1.0, 1)}
    assert counts.followers(B) == {}
    assert (counts.plays, counts.plays_of(A), counts.plays_of(D)) == (3, 1, 0)


def test_a_full_list_lets_a_newcomer_in_once_newcomers_outweigh_the_lightest() -> None:
    counts = SharedCounts(CountsConfig(successors=2, back=1))
    x = key_of("x")
    for track in [B, B, C, C]:
        fold(counts, U, [x, track], [0.0, 1.0])
    heavy = {B: (2.0, 2), C: (2.0, 2)}
    assert counts.followers(x) == heavy
    lightest, other = min(B, C), max(B, C)
    fold(counts, U, [x, D], [0.0, 1.0])
    assert counts.followers(x) == {**heavy, lightest: (1.0, 2)}
    fold(counts, U, [x, D], [0.0, 1.0])
    assert counts.followers(x) == {other: (2.0, 2), D: (1.0, 1)}


def test_artists_keep_their_tracks_with_plays() -> None:
    counts = SharedCounts(CONFIG)
    fold(counts, U, [A, B, A], [0.0, 1.0, 2.0], artist=key_of("artist"))
    assert counts.tracks_of(key_of("artist")) == {A: (2.0, 2), B: (1.0, 1)}
    assert counts.tracks_of(key_of("other")) == {}


def test_inputs_of_a_small_history() -> None:
    artist, album = key_of("artist"), key_of("album")
    book = Discography()
    book.update(np.array([A, B, C]), np.array([artist, artist, artist]), np.array([album, album, 0]))
    shared = SharedCounts(CONFIG)
    fold(shared, V, [A, D], [0.0, 60.0])  # someone else went from A to D
    own = history([(A, 0.0), (B, 3600.0), (A, 3660.0), (B, 3720.0), (A, 3780.0)])
    found = described(own, shared, book)
    assert set(found) == {A, B, C, D}
    b = found[B]
    assert b["own moves from the last play"] == pytest.approx(2 / 3)  # A→B twice, over 2 + 1
    assert b["own moves from the last two plays"] == pytest.approx(1 / 2)  # B→A→B once, over 1 + 1
    assert b["1 / (1 + rank)"] == 0.5
    assert b["share of own plays"] == pytest.approx(2 / 5)
    assert b["log time since the own last play"] == pytest.approx(np.log1p(60 / 3600))
    assert (b["same artist"], b["same album"], b["same track"], b["in this session"]) == (1, 1, 0, 1)
    assert (found[A]["same track"], found[C]["same album"]) == (1, 0)
    d = found[D]
    assert d["rules from the last play"] == pytest.approx(1 / 2)  # weight 1, over 1 + 1
    assert (d["new to this user"], d["never played by anyone"], d["same artist"]) == (1, 0, 0)
    c = found[C]
    assert (c["new to this user"], c["never played by anyone"], c["same artist"]) == (1, 1, 1)
    assert c["log own plays of the artist"] == pytest.approx(np.log(6))
    assert c["log tracks of the artist not played"] == pytest.approx(np.log(2))
    assert c["log position in the session"] == pytest.approx(np.log(5))  # B at 3600 began it
    assert all(np.isfinite(value) for row in found.values() for value in row.values())


def test_a_cold_track_of_a_much_played_artist_is_a_candidate_long_after_the_artist_was_played() -> None:
    artist = key_of("artist")
    others = [key_of(f"o{n}") for n in range(30)]
    book = Discography()
    book.update(np.array([A, B]), np.array([artist, artist]), np.zeros(2, np.int64))
    book.update(np.array(others), keys_of(f"artist of {track}" for track in others), np.zeros(30, np.int64))
    plays = [(A, float(n)) for n in range(5)] + [(track, 10.0 + n) for n, track in enumerate(others)]
    found = described(history(plays), SharedCounts(CONFIG), book)
    assert found[B]["never played by anyone"] == 1
    none = CountsConfig(history=50, fresh=0)
    assert B not in described(history(plays), SharedCounts(none), book, none)


def test_a_withdrawn_track_is_no_candidate_until_it_comes_back() -> None:
    book = Discography()
    book.update(np.array([A, B]), np.array([C, C]), np.array([0, 0]))
    own, shared = history([(A, 0.0), (B, 1.0)]), SharedCounts(CONFIG)
    book.withdraw(np.array([A]))
    assert set(described(own, shared, book)) == {B}
    book.update(np.array([A]), np.array([C]), np.array([0]))
    assert set(described(own, shared, book)) == {A, B}


def test_a_track_that_changes_its_artist_leaves_the_old_one() -> None:
    book, old, new = Discography(), key_of("old"), key_of("new")
    book.update(np.array([A, B, C]), np.array([old, old, old]), np.zeros(3, np.int64))
    book.update(np.array([B]), np.array([new]), np.zeros(1, np.int64))
    assert book.artist_of(B) == new
    found = described(history([(A, 0.0)]), SharedCounts(CONFIG), book)
    assert set(found) == {A, C}
    assert found[C]["log tracks of the artist not played"] == pytest.approx(np.log(2))


def test_most_played_tracks_that_are_not_new_are_candidates() -> None:
    config = CountsConfig(history=50, newest=2, favourites=1, followed=0, ruled=0, unheard=0, fresh=0)
    own = history([(A, 0.0), (B, 1.0), (A, 2.0), (C, 3.0), (D, 4.0)])
    assert set(described(own, SharedCounts(config), Discography(), config)) == {C, D, A}


def test_tracks_asked_for_are_described_and_no_plays_have_no_candidates() -> None:
    maker = CandidateMaker(CONFIG, extra=1)
    shared, book = SharedCounts(CONFIG), Discography()
    keys, _ = maker.make(history([(A, 0.0)]), shared, book, extra=np.array([D]))
    assert set(keys.tolist()) == {A, D}
    assert len(maker.make(NO_PLAYS, shared, book)[0]) == 0
    batch = maker.batch([history([(A, 0.0)]), NO_PLAYS], shared, book)
    assert batch.starts.tolist() == [0, 1, 1]
    assert (batch.keys[1:] == 0).all()


def test_key_index_finds_rows_in_order_of_addition() -> None:
    index = KeyIndex()
    names = [f"t{n}" for n in range(100)]
    index.add(keys_of(names))
    index.add(keys_of(["t5", "t100"]))
    assert index.rows(keys_of(["t0", "t99", "t100", "none"])).tolist() == [0, 99, 100, -1]
    assert index.rows(np.zeros((2, 3), np.int64)).tolist() == [[-1] * 3] * 2
    assert len(index) == 101


def test_limits_are_checked() -> None:
    with pytest.raises(ConfigError, match="history must be at least 1"):
        CountsConfig(history=0)
    with pytest.raises(ConfigError, match="back must be at most 8"):
        CountsConfig(back=9)
