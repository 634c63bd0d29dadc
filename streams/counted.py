"""What a model with a wide head knows beside its network: everyone's counts, and who made which track."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.config import CountsConfig
from msam.counts import (
    CandidateMaker,
    Discography,
    KeyIndex,
    Plays,
    SharedCounts,
    keys_of,
    optional_keys,
)
from msam.network.wide import WideInputs
from msam.wide_candidates import inputs_of
from streams.catalogue import Catalogue, Track

COUNTS = "counts."  # before the names of the shared counts' arrays in a model's artifact


class Counted:
    """Candidates with features for the wide head of one model. One thread at a time uses it."""

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

    def take(self, tracks: Sequence[Track]) -> None:
        """Take in tracks as they are now; a new one gets the next row."""
        keys = keys_of(track.track_id for track in tracks)
        self._index.add(keys)
        albums = [None if track.metadata is None else track.metadata.album_id for track in tracks]
        self._book.update(keys, optional_keys([track.artist_id for track in tracks]), optional_keys(albums))
        gone = np.array([track.withdrawn for track in tracks], dtype=np.bool_)
        if gone.any():
            self._book.withdraw(keys[gone])

    def candidates(self, plays: Sequence[Plays]) -> WideInputs:
        """Candidates after the last of each user's plays, by row of the catalogue."""
        found = self._maker.batch(plays, self._shared, self._book)
        return inputs_of(found, self._index)


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
