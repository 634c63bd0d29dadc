"""Candidates of a play with the inputs of the wide head, from one history, everyone's counts and the discography."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msam.config import CountsConfig
from msam.counts.compiled import compiled
from msam.counts.describing import FEATURES, describe
from msam.counts.discography import Book, Discography
from msam.counts.folding import Tables
from msam.counts.gathering import Limits, choose_new, choose_own, choose_ruled, read_history, read_rules
from msam.counts.history import UserHistory
from msam.counts.keys import Keys
from msam.counts.shared import SharedCounts
from msam.counts.work import Work, choose, entry_of, make_work

__all__ = ["FEATURES", "CandidateMaker", "Candidates"]
NO_KEYS = np.zeros(0, dtype=np.int64)


class Candidates(NamedTuple):
    """Candidates of B plays, C of them at most: features are 0 and keys 0 behind the first `counts` of a row."""

    keys: Keys  # int64 [B, C]
    features: NDArray[np.float32]  # [B, C, F]
    counts: NDArray[np.int64]  # [B]


@compiled
def _gather(
    tracks: Keys,
    artists: Keys,
    times: NDArray[np.float64],
    start: int,
    stop: int,
    shared: Tables,
    book: Book,
    limits: Limits,
    look: int,
    extra: Keys,
    work: Work,
    keys: Keys,
    features: NDArray[np.float32],
) -> int:
    tracks, artists, times = tracks[start:stop], artists[start:stop], times[start:stop]
    own = read_history(work, tracks, artists, times, limits)
    moves = read_rules(work, shared, tracks, own.session, limits)
    choose_own(work, own, limits)
    choose_ruled(work, limits)
    choose_new(work, shared, book, limits, look)
    for key in extra:
        choose(work, entry_of(work, key))
    return describe(work, tracks, artists, times, own, moves, shared, book, keys, features)


class CandidateMaker:
    """Makes candidates with features; owns the scratch memory, so one thread uses it."""

    def __init__(self, config: CountsConfig, extra: int = 0) -> None:
        """extra: most tracks that a call may ask for beside those that the counts propose."""
        self.config = config
        self.width = config.most + extra
        names = Limits._fields
        self._limits = Limits(**{name: getattr(config, name) for name in names})
        self._work = make_work(config, extra)

    def make(
        self, history: UserHistory, shared: SharedCounts, book: Discography, extra: Keys = NO_KEYS
    ) -> tuple[Keys, NDArray[np.float32]]:
        """Keys [n] and features [n, F] after the last play of `history`; none without plays."""
        keys, features = np.zeros(self.width, np.int64), np.zeros((self.width, len(FEATURES)), np.float32)
        count = self.fill(history, shared, book, keys, features, extra)
        return keys[:count], features[:count]

    def fill(
        self,
        history: UserHistory,
        shared: SharedCounts,
        book: Discography,
        keys: Keys,
        features: NDArray[np.float32],
        extra: Keys = NO_KEYS,
    ) -> int:
        """`make` into zeroed arrays [width] and [width, F]; returns n."""
        return self.fill_plays(*history.arrays(), shared, book, keys, features, extra)

    def fill_plays(
        self,
        tracks: Keys,
        artists: Keys,
        times: NDArray[np.float64],
        shared: SharedCounts,
        book: Discography,
        keys: Keys,
        features: NDArray[np.float32],
        extra: Keys = NO_KEYS,
    ) -> int:
        """`fill` for plays [n] in order of arrival, of which the last `history` count."""
        if not len(tracks):
            return 0
        return int(
            _gather(
                tracks,
                artists,
                times,
                max(len(tracks) - self.config.history, 0),
                len(tracks),
                shared.tables,
                book.book,
                self._limits,
                self.config.successors,
                extra,
                self._work,
                keys,
                features,
            )
        )

    def batch(self, histories: Sequence[UserHistory], shared: SharedCounts, book: Discography) -> Candidates:
        """Candidates after the last play of each history."""
        out = Candidates(
            np.zeros((len(histories), self.width), np.int64),
            np.zeros((len(histories), self.width, len(FEATURES)), np.float32),
            np.zeros(len(histories), np.int64),
        )
        for row, history in enumerate(histories):
            out.counts[row] = self.fill(history, shared, book, out.keys[row], out.features[row])
        return out
