"""Candidates of a play with the inputs of the wide head, from one history, everyone's counts and the discography."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msam.config import CountsConfig
from msam.counts.compiled import inner, unlocked
from msam.counts.describing import FEATURES, describe
from msam.counts.discography import Book, Discography
from msam.counts.folding import Tables
from msam.counts.gathering import Limits, choose_new, choose_own, choose_ruled, read_history, read_rules
from msam.counts.history import NO_PLAYS, Plays
from msam.counts.keys import Keys
from msam.counts.shared import SharedCounts
from msam.counts.work import Work, choose, entry_of, make_work

__all__ = ["FEATURES", "CandidateMaker", "Candidates"]
NO_KEYS = np.zeros(0, dtype=np.int64)


class Candidates(NamedTuple):
    """Candidates of B plays, one play's after the other's: play b has those from starts[b] to starts[b + 1].

    Keys and features have room for more behind the last one; it is filled with 0.
    """

    keys: Keys  # int64 [room]
    features: NDArray[np.float32]  # [room, F]
    starts: Keys  # int64 [B + 1]


@inner
def _gather(
    tracks: Keys,
    times: NDArray[np.float64],
    shared: Tables,
    book: Book,
    limits: Limits,
    look: int,
    extra: Keys,
    work: Work,
    keys: Keys,
    features: NDArray[np.float32],
) -> int:
    own = read_history(work, tracks, times, book, limits)
    moves = read_rules(work, shared, tracks, own.session, limits)
    choose_own(work, own, limits)
    choose_ruled(work, limits)
    choose_new(work, shared, book, limits, look)
    for key in extra:
        choose(work, entry_of(work, key))
    return describe(work, tracks, times, own, moves, shared, book, keys, features)


@unlocked
def _gather_all(
    tracks: Keys,
    times: NDArray[np.float64],
    starts: Keys,
    shared: Tables,
    book: Book,
    limits: Limits,
    look: int,
    extra: Keys,
    work: Work,
    out: Candidates,
) -> None:
    """Play b is the last of the plays from starts[b] to starts[b + 1]."""
    done = 0
    for b in range(len(starts) - 1):
        some = slice(starts[b], starts[b + 1])
        if some.start < some.stop:
            done += _gather(
                tracks[some], times[some], shared, book, limits, look, extra, work, out.keys[done:], out.features[done:]
            )
        out.starts[b + 1] = done


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
        self, plays: Plays, shared: SharedCounts, book: Discography, extra: Keys = NO_KEYS
    ) -> tuple[Keys, NDArray[np.float32]]:
        """Keys [n] and features [n, F] after the last of `plays`; none without plays."""
        found = self.batch([plays], shared, book, extra)
        count = found.starts[1]
        return found.keys[:count], found.features[:count]

    def batch(
        self, plays: Sequence[Plays], shared: SharedCounts, book: Discography, extra: Keys = NO_KEYS
    ) -> Candidates:
        """Candidates after the last of each user's plays, of which the last `history` count."""
        kept = [(p.tracks[-self.config.history :], p.times[-self.config.history :]) for p in plays]
        room = len(plays) * self.width
        out = Candidates(  # memory that is never written to costs nothing
            np.zeros(room, np.int64), np.zeros((room, len(FEATURES)), np.float32), np.zeros(len(plays) + 1, np.int64)
        )
        _gather_all(
            np.concatenate([NO_PLAYS.tracks, *(tracks for tracks, _ in kept)]),
            np.concatenate([NO_PLAYS.times, *(times for _, times in kept)]),
            np.cumsum([0, *(len(tracks) for tracks, _ in kept)]),
            shared.tables,
            book.book,
            self._limits,
            self.config.successors,
            extra,
            self._work,
            out,
        )
        return out
