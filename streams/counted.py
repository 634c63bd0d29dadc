"""What a model with a wide head knows beside its network: everyone's counts, and who made which track."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msam.config import CountsConfig
from msam.counts import (
    FEATURES,
    CandidateMaker,
    Discography,
    KeyIndex,
    SharedCounts,
    UserHistory,
    keys_of,
    optional_keys,
)
from streams.catalogue import Catalogue, Track

COUNTS = "counts."  # before the names of the shared counts' arrays in a model's artifact


class Plays(NamedTuple):
    """One user's plays in order of arrival, up to and with the one that is answered."""

    tracks: NDArray[np.int64]  # keys
    times: NDArray[np.float64]  # Unix seconds

    @classmethod
    def of(cls, history: UserHistory) -> "Plays":
        """The plays of a history; what is added to it later does not change them."""
        tracks, _, times = history.arrays()
        return cls(tracks, times)

    def without(self, last: int) -> "Plays":
        """These plays but the last so many."""
        return Plays(self.tracks[:-last], self.times[:-last]) if last else self


NO_PLAYS = Plays(np.zeros(0, np.int64), np.zeros(0, np.float64))


class Counted:
    """Candidates with features for the wide head of one model. One thread uses it."""

    def __init__(self, config: CountsConfig, arrays: Mapping[str, NDArray[Any]], track_ids: Sequence[str]) -> None:
        """arrays: the shared counts as they stood when the model was trained; track_ids: its rows."""
        self._maker = CandidateMaker(config)
        self._shared = SharedCounts.from_arrays(config, arrays)
        self._book = Discography()
        self._index = KeyIndex()
        self._index.add(keys_of(track_ids))

    @property
    def version(self) -> int:
        """How many plays the shared counts know."""
        return self._shared.plays

    @property
    def shape(self) -> tuple[int, int]:
        """(C, F): most candidates of a play, and inputs of each."""
        return self._maker.width, len(FEATURES)

    def take(self, tracks: Sequence[Track]) -> None:
        """Take in tracks as they are now; a new one gets the next row."""
        keys = keys_of(track.track_id for track in tracks)
        self._index.add(keys)
        albums = [None if track.metadata is None else track.metadata.album_id for track in tracks]
        self._book.update(keys, optional_keys([track.artist_id for track in tracks]), optional_keys(albums))
        gone = np.array([track.withdrawn for track in tracks], dtype=np.bool_)
        if gone.any():
            self._book.withdraw(keys[gone])

    def fill(self, plays: Plays, rows: NDArray[np.int64], features: NDArray[np.float32]) -> None:
        """Candidates after the last of `plays` into rows [C], prepared with -1, and features [C, F], with 0."""
        if not len(plays.tracks):
            return
        keys = np.zeros(len(rows), np.int64)
        artists, _ = self._book.look_up(plays.tracks)
        count = self._maker.fill_plays(plays.tracks, artists, plays.times, self._shared, self._book, keys, features)
        rows[:count] = self._index.rows(keys[:count])


def counts_of(
    config: CountsConfig, plays: Sequence[tuple[str, str, float, int, int]], catalogue: Catalogue
) -> dict[str, NDArray[Any]]:
    """Everyone's counts after plays (user, track, time, partition, offset), as a model's artifact holds them."""
    counts, ordered = SharedCounts(config), sorted(plays, key=lambda play: play[2:])
    counts.fold(
        keys_of(user for user, *_ in ordered),
        keys_of(track for _, track, *_ in ordered),
        optional_keys([catalogue.get(track).artist_id for _, track, *_ in ordered]),
        np.array([at for _, _, at, *_ in ordered], dtype=np.float64),
    )
    return {f"{COUNTS}{name}": array for name, array in counts.to_arrays().items()}
