"""The harness against a stream that can be ranked by hand, and the two simple systems on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from msam.baselines.blend import Blend
from msam.baselines.mix import Mix
from msam.counts.keys import Keys, key_of
from msam.datasets.canonical import PlayRow, TrackRow
from msam.evaluation.prequential import Age, make_stream, run

A, B, C = (key_of(name) for name in "abc")
ALTERNATING = [PlayRow("u", "ab"[n % 2], float(n)) for n in range(10)]


class Newest:
    """Lists the user's last plays, newest first, and notes what it was told."""

    def __init__(self) -> None:
        self.own: list[int] = []
        self.shared: list[int] = []  # plays per call

    def top(self, user: int, n: int) -> Sequence[int]:
        return list(dict.fromkeys(reversed(self.own)))[:n]

    def learn(self, user: int, track: int, artist: int, at: float) -> None:
        self.own.append(track)

    def share(self, users: Keys, tracks: Keys, artists: Keys, times: NDArray[np.float64]) -> None:
        self.shared.append(len(users))


def test_the_last_fifth_is_scored_before_it_is_learned() -> None:
    outcome = run(make_stream(ALTERNATING), Newest())
    assert outcome.places.tolist() == [8, 9]
    assert outcome.ranks.tolist() == [2.0, 2.0]
    assert outcome.figures() == {"hr@10": 1.0, "hr@20": 1.0, "mrr@20": 0.5}


def test_everyones_plays_come_as_late_as_asked() -> None:
    system = Newest()
    run(make_stream(ALTERNATING), system)
    assert system.shared == [1] * 9
    late = Newest()
    run(make_stream(ALTERNATING), late, age=Age(plays=4))
    assert late.shared == [4, 4]
    slow = Newest()
    run(make_stream(ALTERNATING), slow, age=Age(plays=100, seconds=3.0))
    assert slow.shared == [3, 3, 3]


def test_a_users_only_play_is_a_miss_and_artists_replace_tracks() -> None:
    outcome = run(make_stream([PlayRow("u", "a", 0.0)]), Newest(), test=1.0)
    assert outcome.ranks.tolist() == [np.inf]
    tracks = [TrackRow("a", None, "x", None, None, None, (), None, None)]
    stream = make_stream([PlayRow("u", "a", 1.0), PlayRow("u", "b", 0.0)], tracks, "artist")
    assert stream.tracks.tolist() == [key_of("x")]  # b has no artist


def plays(system: Mix | Blend, user: int, tracks: list[int]) -> None:
    """Plays a second apart, known to all at once."""
    for at, track in enumerate(tracks):
        system.learn(user, track, 0, float(at))
    count = len(tracks)
    system.share(np.full(count, user), np.array(tracks), np.zeros(count, np.int64), np.arange(count, dtype=np.float64))


@pytest.mark.parametrize("system", [Mix(), Blend()])
def test_own_moves_come_before_everyones(system: Mix | Blend) -> None:
    plays(system, 1, [A, C, A, C])
    plays(system, 2, [A, B, A])
    assert system.top(2, 3)[0] == B  # own move
    assert set(system.top(2, 3)) == {A, B, C}
    assert system.top(3, 3) == []


def test_blend_of_a_first_play_is_everyones_rules_and_the_play_itself() -> None:
    blend = Blend((1.0, 0.0, 0.0, 0.3, 0.0, 0.0))
    plays(blend, 1, [A, B, C])
    blend.learn(2, A, 0, 0.0)
    # rules from A: B 1, C 1/4, over 1.25 + 1; A itself 0.3 at rank 0
    assert list(blend.top(2, 3)) == [B, A, C]
