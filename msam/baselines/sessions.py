"""Past sessions, found by the items they hold: what the session nearest-neighbour systems share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from msam.baselines.contract import Arrays, Recommender, Scores
from msam.listening import SESSION_GAP, History, Integers, Listening

Floats = NDArray[np.float64]


class Found(NamedTuple):
    """How the S past sessions meet the current one: similarity [S], step back of the newest shared item [S] (1 = the
    last play), its place in the past session [S], and the last place there of any shared item [S]."""

    similarity: Floats
    step: Integers
    place: Integers
    last: Integers


class Sessions(Recommender):
    """Stores sessions as item -> place of its last play, oldest session first, and grows with `update`."""

    def __init__(self) -> None:
        self.items = 0
        self.sessions: list[dict[int, int]] = []
        self.lengths: list[int] = []  # plays
        self.ends: list[float] = []  # time of the last play
        self.of_user: dict[int, int] = {}  # the user's newest session
        self.holders: dict[int, dict[int, int]] = {}  # item -> session -> place of its last play there

    def fit(self, train: Listening, seed: int) -> None:
        self.items = len(train.items)
        for user, items, end in sorted(train.sessions(), key=lambda session: session[2]):
            self._begin(user)
            for item in items.tolist():
                self._append(self.of_user[user], item, end)

    def _begin(self, user: int) -> None:
        self.of_user[user] = len(self.sessions)
        self.sessions.append({})
        self.lengths.append(0)
        self.ends.append(0.0)

    def _append(self, session: int, item: int, time: float) -> None:
        place = self.lengths[session]
        self.sessions[session][item] = place
        self.holders.setdefault(item, {})[session] = place
        self.lengths[session] += 1
        self.ends[session] = time

    def update(self, history: History, item: int, time: float) -> None:
        if history.user not in self.of_user or not len(history.times) or time - history.times[-1] > SESSION_GAP:
            self._begin(history.user)
        self._append(self.of_user[history.user], item, time)

    def meet(self, history: History, weights: Floats) -> Found:
        """Past sessions against the current one, whose last plays have the `weights` (newest last)."""
        count = len(self.sessions)
        found = Found(np.zeros(count), *(np.zeros(count, np.int64) for _ in range(3)))
        current = history.session()[-len(weights) :].tolist()
        newest = {item: place for place, item in enumerate(current)}
        for place, item in sorted((place, item) for item, place in newest.items()):  # the newest shared one stays
            holders = self.holders.get(item, {})
            ids, places = (np.fromiter(of, np.int64, len(holders)) for of in (holders, holders.values()))
            found.similarity[ids] += weights[len(weights) - len(current) + place]
            found.step[ids] = np.maximum(len(current) - place, 1)
            found.place[ids] = places
            found.last[ids] = np.maximum(found.last[ids], places)
        own = self.of_user.get(history.user)
        if own is not None and self.ends[own] >= history.times[len(history.times) - len(history.session())]:
            found.similarity[own] = 0.0  # the current session is no neighbour of itself
        return found

    def gather(self, chosen: Integers) -> tuple[Integers, Integers, Integers]:
        """Distinct items of the chosen sessions, the place of each, and how many each session has."""
        counts = np.array([len(self.sessions[session]) for session in chosen.tolist()], dtype=np.int64)
        items = [item for session in chosen.tolist() for item in self.sessions[session]]
        places = [place for session in chosen.tolist() for place in self.sessions[session].values()]
        return np.array(items, np.int64), np.array(places, np.int64), counts

    def around(self, chosen: Integers, weights: Floats, centres: Integers, reach: float) -> tuple[Integers, Floats]:
        """Distinct items of the n chosen sessions: each with its session's weight [n], a factor e less for every
        `reach` places between it and the session's centre [n]."""
        items, places, counts = self.gather(chosen)
        away = np.abs(places - np.repeat(centres, counts))
        return items, np.repeat(weights, counts) * np.exp(-away / reach)

    def idf(self, items: Integers) -> Floats:
        """log(sessions / sessions that hold the item) of each item, all of them met in some session."""
        held = np.array([len(self.holders[item]) for item in items.tolist()], dtype=np.float64)
        return np.asarray(np.log(len(self.sessions) / held))

    def score(self, histories: Sequence[History]) -> Scores:
        scores = np.zeros((len(histories), self.items), dtype=np.float32)
        for row, history in enumerate(histories):
            if len(history.items):
                scores[row] = self.score_one(history)
        return scores

    def score_one(self, history: History) -> Floats:
        """Scores [M] after one history that is not empty."""
        raise NotImplementedError

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        flat = [(s, item, place) for s, session in enumerate(self.sessions) for item, place in session.items()]
        arrays = {
            "plays": np.array(flat, dtype=np.int64).reshape(-1, 3),
            "lengths": np.array(self.lengths, dtype=np.int64),
            "ends": np.array(self.ends, dtype=np.float64),
            "of_user": np.array(list(self.of_user.items()), dtype=np.int64).reshape(-1, 2),
        }
        return arrays, {"items": self.items}

    @classmethod
    def restore(cls, arrays: Arrays, values: Mapping[str, Any]) -> Self:
        system = cls()
        system.items = int(values["items"])
        system.lengths, system.ends = arrays["lengths"].tolist(), arrays["ends"].tolist()
        system.of_user = {int(user): int(session) for user, session in arrays["of_user"].tolist()}
        system.sessions = [{} for _ in system.lengths]
        for session, item, place in arrays["plays"].tolist():
            system.sessions[session][item] = place
            system.holders.setdefault(item, {})[session] = place
        return system


def best(values: Floats, count: int) -> Integers:
    """Places of the `count` greatest values above 0; of equals the later one (the more recent session)."""
    positive = np.flatnonzero(values > 0)
    order = np.lexsort((-positive, -values[positive]))
    return np.asarray(positive[order[:count]], dtype=np.int64)
