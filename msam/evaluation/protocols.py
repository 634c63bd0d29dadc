"""The two protocols: a static split, and the stream's way (predict, score, then learn)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from msam.baselines.contract import Recommender
from msam.evaluation.measures import Judged, judge, windows_after
from msam.listening import Integers, Listening

Protocol = Literal["split", "prequential"]
SHARE = 0.2
"""The last part of each user's plays is scored."""
_BATCH = 256


def targets(data: Listening) -> Integers:
    """Positions of the scored plays; a user's very first play has nothing before it and is not one."""
    return data.targets(data.cuts(SHARE))


def run_split(system: Recommender, data: Listening, seed: int) -> Judged:
    """Fit on the first part of every user's plays, rank what was met there after each true history of the rest.

    Histories grow with the test plays; what the system learned does not. A target unseen in training is a miss.
    """
    train = data.first(data.cuts(SHARE))
    system.fit(train, seed)
    seen = train.popularity() > 0
    places = targets(data)
    after = windows_after(data, places)
    parts = []
    for start in range(0, len(places), _BATCH):
        part = slice(start, start + _BATCH)
        parts.append(judge(system.score(data.histories(places[part])), system.logits, after[part], seen))
    return Judged.join(parts)


def run_prequential(system: Recommender, data: Listening, seed: int, *, age: int = 1) -> Judged:
    """Fit on the first part, then in time order over all users: score a play, then learn from it. All targets count.

    age: plays that come together before the system is told of them; a user's own are in the histories at once.
    """
    system.fit(data.first(data.cuts(SHARE)), seed)
    places = targets(data)
    after = windows_after(data, places)
    order = np.argsort(data.times[places], kind="stable")
    parts = []
    for begin in range(0, len(order), age):
        late = order[begin : begin + age]
        histories = data.histories(places[late])
        for start in range(0, len(late), _BATCH):  # nothing is told between these plays: they may be scored together
            part = slice(start, start + _BATCH)
            parts.append(judge(system.score(histories[part]), system.logits, after[late[part]]))
        for place, history in zip(places[late].tolist(), histories, strict=True):
            system.update(history, int(data.plays[place]), float(data.times[place]))
    back = np.argsort(order)
    return Judged._make(in_time[back] for in_time in Judged.join(parts))


class Slices:
    """Which scored plays belong to each slice.

    seen: the user played the item before; new: not the user, but somebody before the play; cold: nobody (under split:
    nobody in training, and not the user since); few: users with fewer than 5 plays.
    """

    def __init__(self, data: Listening, protocol: Protocol) -> None:
        places = targets(data)
        self.of_user = _met_by_user(data)[places]
        if protocol == "split":
            met = data.first(data.cuts(SHARE)).popularity()[data.plays[places]] > 0
        else:
            met = _met_by_anybody(data)[places]
        owners = data.owner(places)
        self.masks = {
            "all": np.ones(len(places), dtype=np.bool_),
            "seen": self.of_user,
            "new": ~self.of_user & met,
            "cold": ~self.of_user & ~met,
            "few": np.diff(data.starts)[owners] < 5,
        }
        self.users = owners
        self.sessions = (np.cumsum(data.session_starts()) - 1)[places]


def _first_of(keys: Integers, order: Integers) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether each key stands for the first time when gone through in `order`."""
    first = np.zeros(len(keys), dtype=np.bool_)
    _, index = np.unique(keys[order], return_index=True)
    first[order[index]] = True
    return first


def _met_by_user(data: Listening) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    everything = np.arange(len(data.plays))
    return ~_first_of(data.owner(everything) * len(data.items) + data.plays, everything)


def _met_by_anybody(data: Listening) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return ~_first_of(data.plays, np.argsort(data.times, kind="stable").astype(np.int64))
