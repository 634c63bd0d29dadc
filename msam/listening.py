"""A listening log as recommenders see it: the plays of every user in time order, over one catalogue."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msam.content import Content
from msam.errors import MethodError

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
SESSION_GAP = 1800.0
"""Seconds without a play after which a new session begins."""


class History(NamedTuple):
    """Everything a user has played so far, oldest first: items int64 [h] (columns of the catalogue), times [h] (s)."""

    user: int
    items: Integers
    times: Floats

    def session(self) -> Integers:
        """The items since the last gap of more than 30 minutes."""
        cuts = np.flatnonzero(np.diff(self.times) > SESSION_GAP)
        return self.items[cuts[-1] + 1 :] if len(cuts) else self.items


@dataclass(frozen=True, slots=True)
class Listening:
    """Plays [T] as columns of `items`, each user's in time order, users one after the other.

    `starts` [U + 1]: where each user's plays begin; `times` [T]: Unix seconds; `content`: of items and users.
    """

    items: tuple[str, ...]
    users: tuple[str, ...]
    plays: Integers
    times: Floats
    starts: Integers
    content: Content
    level: str = "track"

    @classmethod
    def build(
        cls, items: Sequence[str], users: Sequence[str], plays: Sequence[tuple[str, str, float]], content: Content
    ) -> Listening:
        """From plays (user, item, time) in any order; ties keep the order given. Raises MethodError."""
        column = {item: place for place, item in enumerate(items)}
        row = {user: place for place, user in enumerate(users)}
        try:
            who = np.array([row[user] for user, _, _ in plays], dtype=np.int64)
            what = np.array([column[item] for _, item, _ in plays], dtype=np.int64)
        except KeyError as error:
            raise MethodError(f"a play names {error.args[0]!r}, which the catalogue or the users lack") from error
        when = np.array([at for _, _, at in plays], dtype=np.float64)
        order = np.lexsort((when, who))
        starts = np.searchsorted(who[order], np.arange(len(users) + 1)).astype(np.int64)
        return cls(tuple(column), tuple(row), what[order], when[order], starts, content)

    def owner(self, positions: Integers) -> Integers:
        """User of the plays at `positions`."""
        return np.searchsorted(self.starts, positions, side="right").astype(np.int64) - 1

    def history(self, position: int) -> History:
        """What the user of the play at `position` had played before it (views, nothing is copied)."""
        user = int(np.searchsorted(self.starts, position, side="right")) - 1
        first = int(self.starts[user])
        return History(user, self.plays[first:position], self.times[first:position])

    def histories(self, positions: Integers) -> list[History]:
        """`history` of each position."""
        return [self.history(int(position)) for position in positions]

    def cuts(self, last: float) -> Integers:
        """For each user the position where the last share `last` of the plays begins [U]: 0.8 of 10 plays is 8."""
        counts = np.diff(self.starts)
        return self.starts[:-1] + np.floor(counts * (1 - last) + 1e-9).astype(np.int64)

    def first(self, cuts: Integers) -> Listening:
        """The plays before each user's cut, over the same catalogue and users."""
        kept = [np.arange(start, cut) for start, cut in zip(self.starts[:-1], cuts, strict=True)]
        index = np.concatenate([np.zeros(0, np.int64), *kept])
        starts = np.concatenate([[0], np.cumsum(cuts - self.starts[:-1])]).astype(np.int64)
        return replace(self, plays=self.plays[index], times=self.times[index], starts=starts)

    def targets(self, cuts: Integers | None = None) -> Integers:
        """Positions of the plays that follow at least one other, from each user's cut (default: the first play) on."""
        begin = self.starts[:-1] if cuts is None else cuts
        parts = [
            np.arange(max(start + 1, cut), stop)
            for start, cut, stop in zip(self.starts[:-1], begin, self.starts[1:], strict=True)
        ]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def session_starts(self) -> NDArray[np.bool_]:
        """Whether each play begins a session [T]: a user's first play, or one after more than 30 minutes."""
        begins = np.ones(len(self.plays), dtype=np.bool_)
        begins[1:] = np.diff(self.times) > SESSION_GAP
        begins[self.starts[:-1][self.starts[:-1] < len(self.plays)]] = True
        return begins

    def sessions(self) -> Iterator[tuple[int, Integers, float]]:
        """(user, items, time of the last play) of every session, users one after the other."""
        edges = np.append(np.flatnonzero(self.session_starts()), len(self.plays))
        for begin, end in itertools.pairwise(edges.tolist()):
            yield int(self.owner(np.array([begin]))[0]), self.plays[begin:end], float(self.times[end - 1])

    def popularity(self) -> Floats:
        """Plays of every item [M]."""
        return np.bincount(self.plays, minlength=len(self.items)).astype(np.float64)
