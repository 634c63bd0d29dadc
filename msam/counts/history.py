"""One user's own plays in order of arrival: all that is needed to count them."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from msam.counts.keys import Keys

Times = NDArray[np.float64]


class UserHistory:
    """The last `limit` plays of one user, oldest first; nothing is stored that these do not tell.

    `stop - start` plays stand at [start, stop) of the arrays.
    """

    __slots__ = ("artists", "limit", "start", "stop", "times", "tracks")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.tracks: Keys = np.zeros(16, dtype=np.int64)
        self.artists: Keys = np.zeros(16, dtype=np.int64)
        self.times: Times = np.zeros(16, dtype=np.float64)
        self.start = 0
        self.stop = 0

    @classmethod
    def of(cls, limit: int, tracks: Keys, artists: Keys, times: Times) -> Self:
        """From plays [n] in order of arrival (only the last `limit` are kept); inverse of `arrays`."""
        history = cls(limit)
        kept = slice(max(len(tracks) - limit, 0), None)
        history._hold(tracks[kept], artists[kept], times[kept])
        return history

    def __len__(self) -> int:
        return self.stop - self.start

    def append(self, track: int, artist: int, at: float) -> None:
        """Take in a play: keys of track and artist (0: unknown), played at `at` (Unix seconds)."""
        if self.stop == len(self.tracks):
            self._hold(*self.arrays())
        self.tracks[self.stop] = track
        self.artists[self.stop] = artist
        self.times[self.stop] = at
        self.stop += 1
        self.start = max(self.start, self.stop - self.limit)

    def arrays(self) -> tuple[Keys, Keys, Times]:
        """Tracks, artists and times of the plays kept, oldest first (views)."""
        kept = slice(self.start, self.stop)
        return self.tracks[kept], self.artists[kept], self.times[kept]

    def _hold(self, tracks: Keys, artists: Keys, times: Times) -> None:
        """Move the plays to the front of arrays with as much room again."""
        count, room = len(tracks), max(16, 2 * len(tracks))
        new = np.zeros(room, np.int64), np.zeros(room, np.int64), np.zeros(room, np.float64)
        new[0][:count], new[1][:count], new[2][:count] = tracks, artists, times
        self.tracks, self.artists, self.times = new
        self.start, self.stop = 0, count
