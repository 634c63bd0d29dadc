"""VLHM: variable-length hidden Markov model of listening.

A hidden state stands for a kind of music; what comes next depends on as many past states as the data supports, which is
what "variable length" means: a context tree over decoded states (Ron, Singer, Tishby: The power of amnesia, 1996;
Wang, Zhou, Feng, Wang, Liu: Mining complex time-series data by learning Markovian models, ICDM 2006).

1. Baum-Welch (Rabiner 1989) fits S states, their transitions and emissions on the users' plays, cut into pieces.
2. Every play is decoded to its most probable state given the plays before it, in training as when scoring.
3. Contexts of up to DEPTH states are kept where they were met often enough to be trusted.
4. P(item) = Σ_s P(s | longest kept context) · P(item | s).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from msam.baselines.contract import Arrays, BaselineError, Recommender, Scores
from msam.listening import History, Integers, Listening

STATES = 60
DEPTH = 4
LEAST = 10
"""A context met fewer times is not kept; its parent speaks for it."""
SWEEPS = 25
PIECE = 50
"""Plays of one sequence of training; as many past plays are decoded when scoring."""
_SMOOTH = 1e-3
Floats = NDArray[np.float64]
Context = tuple[int, ...]


class VLHM(Recommender):
    """States `start` [S], `move` [S, S], `emit` [S, M]; `tree`: context (newest state last) -> P(next state) [S]."""

    name: ClassVar[str] = "vlhm"
    seeded: ClassVar[bool] = True

    def __init__(self) -> None:
        self.start: Floats = np.zeros(0)
        self.move: Floats = np.zeros((0, 0))
        self.emit: Floats = np.zeros((0, 0))
        self.tree: dict[Context, Floats] = {}

    def fit(self, train: Listening, seed: int) -> None:
        if not len(train.plays):
            raise BaselineError("vlhm: there are no plays to learn from")
        rng = np.random.default_rng(seed)
        popular = (train.popularity() + _SMOOTH) / (train.popularity() + _SMOOTH).sum()
        self.emit = _rows(popular * rng.gamma(1.0, size=(STATES, len(train.items))))
        self.move = _rows(rng.uniform(0.5, 1.5, (STATES, STATES)) + STATES * np.eye(STATES))
        self.start = np.full(STATES, 1 / STATES)
        pieces = _pieces(train)
        for _ in range(SWEEPS):
            self._sweep(pieces, popular)
        self.tree = self._contexts(self._decode(pieces), pieces >= 0)

    def _sweep(self, pieces: Integers, popular: Floats) -> None:
        """One step of Baum-Welch over pieces [n, L] (right padded with -1)."""
        n, length = pieces.shape
        seen = (pieces >= 0)[:, :, None]
        chance = np.where(seen, self.emit.T[np.maximum(pieces, 0)], 1.0)  # [n, L, S]
        ahead, scale = np.empty_like(chance), np.empty((n, length, 1))
        for t in range(length):
            now = (self.start if t == 0 else ahead[:, t - 1] @ self.move) * chance[:, t]
            scale[:, t] = now.sum(axis=1, keepdims=True)
            ahead[:, t] = now / scale[:, t]
        back = np.ones((n, STATES))
        moves, emits = np.zeros_like(self.move), np.zeros_like(self.emit)
        flat = np.zeros((pieces.size, STATES))
        for t in range(length - 1, -1, -1):
            flat[t * n : (t + 1) * n] = ahead[:, t] * back * seen[:, t]
            if t:
                onward = chance[:, t] * back / scale[:, t]
                moves += self.move * ((ahead[:, t - 1] * seen[:, t]).T @ onward)
                back = onward @ self.move.T
        columns = np.maximum(pieces.T.ravel(), 0)
        for state in range(STATES):
            emits[state] = np.bincount(columns, flat[:, state], minlength=emits.shape[1])
        self.start = _rows(flat[:n].sum(axis=0)[None] + _SMOOTH)[0]
        self.move = _rows(moves + _SMOOTH)
        self.emit = _rows(emits + popular)  # a play's worth of popularity in every state

    def _decode(self, pieces: Integers) -> Integers:
        """Most probable state of every play given those before it: int64 like pieces, anything at a pad."""
        states = np.zeros(pieces.shape, dtype=np.int64)
        belief = np.tile(self.start, (len(pieces), 1))
        for t in range(pieces.shape[1]):
            seen = (pieces[:, t] >= 0)[:, None]
            belief = _rows(np.where(seen, belief * self.emit.T[np.maximum(pieces[:, t], 0)], belief))
            states[:, t] = belief.argmax(axis=1)
            belief = np.where(seen, belief @ self.move, belief)
        return states

    def _contexts(self, states: Integers, seen: NDArray[np.bool_]) -> dict[Context, Floats]:
        """P(next state) after every context met LEAST times, each smoothed towards its parent's."""
        counts: dict[Context, Counter[int]] = {}
        for row, kept in zip(states, seen, strict=True):
            line = row[kept].tolist()
            for place in range(1, len(line)):
                for depth in range(min(DEPTH, place) + 1):
                    counts.setdefault(tuple(line[place - depth : place]), Counter())[line[place]] += 1
        tree: dict[Context, Floats] = {(): np.full(STATES, 1 / STATES)}
        for context in sorted(counts, key=len):
            total = sum(counts[context].values())
            if total < LEAST and context:
                continue
            parent = tree[context[1:]] if context[1:] in tree else tree[()]
            dense = np.bincount(list(counts[context]), list(counts[context].values()), minlength=STATES)
            tree[context] = (dense + LEAST * parent) / (total + LEAST)
        return tree

    def score(self, histories: Sequence[History]) -> Scores:
        pieces = np.full((len(histories), PIECE), -1, dtype=np.int64)
        for row, history in enumerate(histories):
            last = history.items[-PIECE:]
            pieces[row, : len(last)] = last
        states = self._decode(pieces)
        following = np.empty((len(histories), STATES))
        for row, history in enumerate(histories):
            length = min(len(history.items), PIECE)
            context: Context = tuple(states[row, max(length - DEPTH, 0) : length].tolist())
            while context not in self.tree:
                context = context[1:]
            following[row] = self.tree[context]
        return (following @ self.emit).astype(np.float32)

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        contexts = [list(context) for context in self.tree]
        rows = np.stack(list(self.tree.values()))
        return {"start": self.start, "move": self.move, "emit": self.emit, "tree": rows}, {"contexts": contexts}

    @classmethod
    def restore(cls, arrays: Arrays, values: Mapping[str, Any]) -> Self:
        system = cls()
        system.start, system.move, system.emit = (arrays[name].copy() for name in ("start", "move", "emit"))
        contexts = [tuple(int(state) for state in context) for context in values["contexts"]]
        system.tree = dict(zip(contexts, arrays["tree"].copy(), strict=True))
        return system


def _rows(values: Floats) -> Floats:
    return np.asarray(values / values.sum(axis=1, keepdims=True))


def _pieces(train: Listening) -> Integers:
    """Plays of each user in pieces of at most PIECE, right padded with -1."""
    spans = [
        (begin, min(begin + PIECE, int(stop)))
        for start, stop in zip(train.starts[:-1], train.starts[1:], strict=True)
        for begin in range(int(start), int(stop), PIECE)
    ]
    out = np.full((len(spans), PIECE), -1, dtype=np.int64)
    for row, (begin, end) in enumerate(spans):
        out[row, : end - begin] = train.plays[begin:end]
    return out
