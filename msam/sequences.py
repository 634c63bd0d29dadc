"""Plays of users in time order, and the windows before each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from msam.errors import MethodError
from msam.network.inputs import TrackInputs, UserInputs

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Plays [T] as indices of `track_ids`, each user's in time order, users one after the other.

    `starts` [U + 1]: where each user's plays begin. `times` [T]: Unix seconds. `artists`, `albums`: ids per track
    (None: unknown), or none at all; only the wide head reads them.
    """

    track_ids: tuple[str, ...]
    tracks: TrackInputs
    user_ids: tuple[str, ...]
    users: UserInputs
    plays: Integers
    times: NDArray[np.float64]
    starts: Integers
    artists: tuple[str | None, ...] = ()
    albums: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        if len(self.tracks) != len(self.track_ids) or len(self.users) != len(self.user_ids):
            raise MethodError("one row of content is needed for every track and every user")
        if len(self.starts) != len(self.user_ids) + 1 or self.starts[-1] != len(self.plays) != len(self.times):
            raise MethodError("plays, times and starts do not fit together")
        if any(len(column) not in (0, len(self.track_ids)) for column in (self.artists, self.albums)):
            raise MethodError("artists and albums are needed for every track, or for none")
        if len(self.plays) and not (self.plays.min() >= 0 and self.plays.max() < len(self.track_ids)):
            raise MethodError("a play names a track that is not in the catalogue")

    @classmethod
    def build(
        cls,
        tracks: Mapping[str, int] | Sequence[str],
        track_inputs: TrackInputs,
        users: Sequence[str],
        user_inputs: UserInputs,
        plays: Sequence[tuple[str, str, float]],
        artists: Sequence[str | None] = (),
        albums: Sequence[str | None] = (),
    ) -> Dataset:
        """From plays (user_id, track_id, played_at) in any order; ties keep the order given.

        `tracks` lists the ids of the rows of `track_inputs`, `users` those of `user_inputs`.
        """
        track_row = {track: row for row, track in enumerate(tracks)}
        user_row = {user: row for row, user in enumerate(users)}
        try:
            who = np.array([user_row[user] for user, _, _ in plays], dtype=np.int64)
            what = np.array([track_row[track] for _, track, _ in plays], dtype=np.int64)
        except KeyError as error:
            raise MethodError(f"a play names {error.args[0]!r}, which has no content row") from error
        when = np.array([at for _, _, at in plays], dtype=np.float64)
        order = np.lexsort((when, who))
        starts = np.searchsorted(who[order], np.arange(len(users) + 1)).astype(np.int64)
        whose = tuple(artists), tuple(albums)
        return cls(
            tuple(track_row), track_inputs, tuple(user_row), user_inputs, what[order], when[order], starts, *whose
        )

    def owner(self, positions: Integers) -> Integers:
        """User index of the plays at `positions`."""
        return np.searchsorted(self.starts, positions, side="right").astype(np.int64) - 1

    def split(self, holdout: float) -> tuple[Integers, Integers]:
        """Positions of plays with a window before them: those to train on, and the last `holdout` of each user's."""
        train, held = [], []
        for start, stop in zip(self.starts[:-1], self.starts[1:], strict=True):
            cut = stop - int((stop - start) * holdout)
            train.append(np.arange(start + 1, max(cut, start + 1)))
            held.append(np.arange(max(cut, start + 1), stop))
        none = [np.zeros(0, np.int64)]  # so that no users is no plays, not an error
        return np.concatenate(train + none).astype(np.int64), np.concatenate(held + none).astype(np.int64)

    def windows(self, positions: Integers, size: int) -> Integers:
        """The up to `size` plays before each position, oldest first, left padded with -1: [len(positions), size]."""
        first = self.starts[self.owner(positions)]
        index = positions[:, None] + np.arange(-size, 0)
        return np.where(index >= first[:, None], self.plays[np.maximum(index, 0)], -1)


def batches(positions: Integers, chunk: int, batch: int, generator: torch.Generator) -> list[Integers]:
    """Shuffled batches made of runs of `chunk` neighbouring positions, whose windows share most of their tracks."""
    runs = [positions[start : start + chunk] for start in range(0, len(positions), chunk)]
    if not runs:
        return []
    shuffled = np.concatenate([runs[place] for place in torch.randperm(len(runs), generator=generator).tolist()])
    return [shuffled[start : start + batch] for start in range(0, len(shuffled), batch)]
