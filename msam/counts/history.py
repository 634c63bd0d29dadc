"""One user's own plays in order of arrival: all that is needed to count them."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from msam.counts.keys import Keys

Times = NDArray[np.float64]


class Plays(NamedTuple):
    """Plays of one user in order of arrival."""

    tracks: Keys  # int64 [n]
    times: Times  # float64 [n] Unix seconds

    def without(self, last: int) -> Plays:
        """These plays but the last so many."""
        return Plays(self.tracks[:-last], self.times[:-last]) if last else self


NO_PLAYS = Plays(np.zeros(0, np.int64), np.zeros(0, np.float64))


class UserHistory:
    """The last `limit` plays of one user, oldest first; nothing is stored that these do not tell.

    `stop - start` plays stand at [start, stop) of the arrays. Who made a track is looked up when it is counted.
    """

    __slots__ = ("limit", "start", "stop", "times", "tracks")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.tracks: Keys = np.zeros(16, dtype=np.int64)
        self.times: Times = np.zeros(16, dtype=np.float64)
        self.start = 0
        self.stop = 0

    @classmethod
    def of(cls, limit: int, tracks: Keys, times: Times) -> Self:
        """From plays [n] in order of arrival (only the last `limit` are kept); inverse of `plays`."""
        history = cls(limit)
        kept = slice(max(len(tracks) - limit, 0), None)
        history._hold(tracks[kept], times[kept])
        return history

    def __len__(self) -> int:
        return self.stop - self.start

    def append(self, track: int, at: float) -> None:
        """Take in a play of a track (its key) at `at` (Unix seconds)."""
        if self.stop == len(self.tracks):
            self._hold(*self.plays())
        self.tracks[self.stop] = track
        self.times[self.stop] = at
        self.stop += 1
        self.start = max(self.start, self.stop - self.limit)

    def plays(self) -> Plays:
        """The plays kept, oldest first (views); what is added later does not change them."""
        kept = slice(self.start, self.stop)
        return Plays(self.tracks[kept], self.times[kept])

    def _hold(self, tracks: Keys, times: Times) -> None:
        """Move the plays to the front of arrays with as much room again."""
        count, room = len(tracks), max(16, 2 * len(tracks))
        new = np.zeros(room, np.int64), np.zeros(room, np.float64)
        new[0][:count], new[1][:count] = tracks, times
        self.tracks, self.times = new
        self.start, self.stop = 0, count
