"""Predict, score, then learn: play by play in time order, as a stream would (evaluation.md, "Prequential")."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from msam import metrics
from msam.counts.keys import ABSENT, Keys, key_of
from msam.datasets.canonical import PlayRow, TrackRow

TOP = 20


class Stream(NamedTuple):
    """T plays in time order, as keys; `part` is where each stands among its user's plays, from 0 to below 1."""

    users: Keys
    tracks: Keys
    artists: Keys  # 0: unknown
    times: NDArray[np.float64]  # Unix seconds
    part: NDArray[np.float64]


def make_stream(plays: Sequence[PlayRow], tracks: Iterable[TrackRow] = (), level: str = "track") -> Stream:
    """Plays of tracks, or of their artists at level "artist", in time order; ties keep the order given."""
    artist_of = {row.track_id: row.artist_id for row in tracks}
    keys: dict[str, int] = {}

    def key(identifier: str | None) -> int:
        if not identifier:
            return ABSENT
        if identifier not in keys:
            keys[identifier] = key_of(identifier)
        return keys[identifier]

    times = np.array([play.timestamp for play in plays], dtype=np.float64)
    order = np.argsort(times, kind="stable")
    users = np.array([key(play.user_id) for play in plays], dtype=np.int64)[order]
    artists = np.array([key(artist_of.get(play.track_id)) for play in plays], dtype=np.int64)[order]
    items = np.array([key(play.track_id) for play in plays], dtype=np.int64)[order]
    if level == "artist":
        items, artists = artists, np.zeros_like(artists)
        known = items != ABSENT
        users, items, artists, times = users[known], items[known], artists[known], times[order][known]
    else:
        times = times[order]
    return Stream(users, items, artists, times, _parts(users))


def _parts(users: Keys) -> NDArray[np.float64]:
    """Place of each play among its user's, over their number."""
    order = np.argsort(users, kind="stable")
    _, starts, counts = np.unique(users[order], return_index=True, return_counts=True)
    place = np.arange(len(users)) - np.repeat(starts, counts)
    out = np.empty(len(users), dtype=np.float64)
    out[order] = place / np.repeat(counts, counts)
    return out


class Online(Protocol):
    """A system under test. The user's own plays reach it at once, everyone's as late as the run says."""

    def top(self, user: int, n: int) -> Sequence[int]:
        """Keys of the best n for the user's next play, best first."""

    def learn(self, user: int, track: int, artist: int, at: float) -> None:
        """The user's own play happened."""

    def share(self, users: Keys, tracks: Keys, artists: Keys, times: NDArray[np.float64]) -> None:
        """What everyone played since the last call, in order."""


@dataclass(frozen=True, slots=True)
class Age:
    """How old everyone's counts may get before a refresh: in plays of the stream, and in seconds of its clock."""

    plays: int = 1
    seconds: float = float("inf")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Ranks [S] of the scored plays (inf beyond the list) and their places [S] in the stream."""

    ranks: NDArray[np.float64]
    places: Keys

    def figures(self) -> dict[str, float]:
        """HR@10, HR@20 and MRR@20."""
        return {
            "hr@10": metrics.hit_rate(self.ranks, 10),
            "hr@20": metrics.hit_rate(self.ranks, 20),
            "mrr@20": metrics.mrr(self.ranks, 20),
        }


def run(
    stream: Stream,
    system: Online,
    *,
    age: Age | None = None,
    test: float = 0.2,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Let `system` live through the stream and score its lists on the last `test` of each user's plays.

    A user's first play has no list, and is a miss if it is
    scored. progress(done, all) is called every 1,000 plays.
    """
    age = age or Age()
    users, tracks, artists, times = (column.tolist() for column in stream[:4])
    scored = stream.part >= 1.0 - test - 1e-9
    ranks: list[float] = []
    places: list[int] = []
    met: set[int] = set()
    shared, since = 0, -float("inf")
    for place, (user, track) in enumerate(zip(users, tracks, strict=True)):
        if place - shared >= age.plays or times[place] - since >= age.seconds:
            some = slice(shared, place)
            if place > shared:
                system.share(stream.users[some], stream.tracks[some], stream.artists[some], stream.times[some])
            shared, since = place, times[place]
        if scored[place]:
            ranks.append(_rank(system.top(user, TOP), track) if user in met else float("inf"))
            places.append(place)
        system.learn(user, track, artists[place], times[place])
        met.add(user)
        if progress is not None and place % 1000 == 0:
            progress(place, len(users))
    return Outcome(np.array(ranks, dtype=np.float64), np.array(places, dtype=np.int64))


def _rank(best: Sequence[int], track: int) -> float:
    for rank, key in enumerate(best, 1):
        if key == track:
            return float(rank)
    return float("inf")
