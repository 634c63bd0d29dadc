"""Counts do not depend on how plays come in pieces, on stores and restores, or on what was interned first."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from msam.config import CountsConfig
from msam.counts import CandidateMaker, Discography, SharedCounts, UserHistory, keys_of

CONFIG = CountsConfig(
    history=12, successors=3, newest=4, favourites=2, followed=2, ruled=4, unheard=3, fresh=3, pairs=6
)
TRACKS = keys_of(f"t{n}" for n in range(12))
ARTISTS = keys_of(f"a{n}" for n in range(4))
USERS = keys_of(f"u{n}" for n in range(3))
plays = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 11), st.floats(-10.0, 4000.0)), min_size=1, max_size=60)
Play = tuple[int, int, float]


def columns(log: list[Play]) -> tuple[np.ndarray, ...]:
    """Users, tracks, artists and times of plays whose clock moves by the third entry."""
    users = USERS[[user for user, _, _ in log]]
    tracks = TRACKS[[track for _, track, _ in log]]
    return users, tracks, ARTISTS[[track % 4 for _, track, _ in log]], 1e9 + np.cumsum([step for *_, step in log])


def shared_of(log: list[Play], cuts: list[int]) -> SharedCounts:
    """Counts of the plays, folded in pieces that end at `cuts`."""
    counts = SharedCounts(CONFIG)
    ends = sorted({min(cut, len(log)) for cut in cuts} | {0, len(log)})
    for start, stop in pairwise(ends):
        counts.fold(*(column[start:stop] for column in columns(log)))
    return counts


def book(order: list[int]) -> Discography:
    """Three of four artists' tracks, described in this order."""
    made = Discography()
    some = np.array([track for track in order if track % 4 < 3], dtype=np.int64)
    made.update(TRACKS[some], ARTISTS[some % 4], np.zeros(len(some), np.int64))
    return made


def history_of(log: list[Play], user: int) -> UserHistory:
    """A user's plays, one by one."""
    made = UserHistory(CONFIG.history)
    for who, track, _, at in zip(*(column.tolist() for column in columns(log)), strict=True):
        if who == USERS[user]:
            made.append(track, at)
    return made


def same(one: SharedCounts, other: SharedCounts) -> bool:
    """Bit for bit."""
    mine, theirs = one.to_arrays(), other.to_arrays()
    return mine.keys() == theirs.keys() and all(mine[k].tobytes() == theirs[k].tobytes() for k in mine)


@settings(deadline=None)
@given(plays, st.lists(st.integers(0, 60), max_size=8))
def test_pieces_and_whole_give_the_same_bits(log: list[Play], cuts: list[int]) -> None:
    assert same(shared_of(log, cuts), shared_of(log, []))


@settings(deadline=None)
@given(plays, st.integers(0, 60))
def test_a_restored_state_goes_on_as_the_first(log: list[Play], cut: int) -> None:
    counts = SharedCounts.from_arrays(CONFIG, shared_of(log[:cut], []).to_arrays())
    counts.fold(*(column[cut:] for column in columns(log)))
    assert same(counts, shared_of(log, []))


@settings(deadline=None)
@given(plays)
def test_lists_are_bounded_and_hold_what_was_played(log: list[Play]) -> None:
    counts = shared_of(log, [])
    for track in TRACKS.tolist():
        followers = counts.followers(track)
        assert len(followers) <= CONFIG.successors
        assert all(weight >= 0 and moves >= 0 for weight, moves in followers.values())
    assert sum(counts.plays_of(track) for track in TRACKS.tolist()) == len(log)


@settings(deadline=None)
@given(plays, st.integers(0, 2))
def test_a_history_made_of_arrays_tells_the_same(log: list[Play], user: int) -> None:
    grown, shared, known = history_of(log, user), shared_of(log, []), book(list(range(12)))
    whole = [column[columns(log)[0] == USERS[user]] for column in columns(log)]
    rebuilt = UserHistory.of(CONFIG.history, whole[1], whole[3])
    assert [column.tolist() for column in rebuilt.plays()] == [column.tolist() for column in grown.plays()]
    assert len(grown) == min(len(whole[0]), CONFIG.history)
    maker = CandidateMaker(CONFIG)
    first, second = (
        maker.make(grown.plays(), shared, known),
        CandidateMaker(CONFIG).make(rebuilt.plays(), shared, known),
    )
    again = maker.make(grown.plays(), shared, known)  # its scratch memory is used before
    for one in (second, again):
        assert first[0].tobytes() == one[0].tobytes()
        assert first[1].tobytes() == one[1].tobytes()


@settings(deadline=None)
@given(plays, st.integers(0, 2))
def test_candidates_contain_the_newest_tracks_and_are_distinct(log: list[Play], user: int) -> None:
    history = history_of(log, user)
    keys, features = CandidateMaker(CONFIG).make(history.plays(), shared_of(log, []), book(list(range(12))))
    newest = list(dict.fromkeys(reversed(history.plays().tracks.tolist())))[: CONFIG.newest]
    assert set(newest) <= set(keys.tolist())
    assert len(set(keys.tolist())) == len(keys) <= CONFIG.most
    assert np.isfinite(features).all()


@settings(deadline=None)
@given(plays, st.permutations(range(12)), st.integers(0, 2))
def test_which_metadata_came_first_does_not_matter(log: list[Play], order: list[int], user: int) -> None:
    """While there is room for all of an artist's tracks."""
    history, shared = history_of(log, user), shared_of(log, [])
    maker = CandidateMaker(replace(CONFIG, fresh=12, each=12))
    first = dict(
        zip(*(part.tolist() for part in maker.make(history.plays(), shared, book(list(range(12))))), strict=True)
    )
    other = dict(zip(*(part.tolist() for part in maker.make(history.plays(), shared, book(list(order)))), strict=True))
    assert first == other
