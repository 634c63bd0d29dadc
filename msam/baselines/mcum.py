"""MCUM: hierarchical LSTM over tracks within sessions within a user.

A lower LSTM reads the plays of one session; an upper LSTM reads the sessions of a user, one state a session; its state
starts the lower LSTM on the current session (Quadrana, Karatzoglou, Hidasi, Cremonesi: Personalizing session-based
recommendations with hierarchical recurrent neural networks, RecSys 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from msam.baselines.neural import NeuralRecommender
from msam.listening import SESSION_GAP, History, Integers, Listening
from msam.network.encoders import WindowLSTM

SESSIONS = 4
"""Past sessions that the upper level reads, and plays that the lower level reads of each, the newest."""
PLAYS = 10
DIM = 64


class Network(nn.Module):
    """items M -> logits [B, M]."""

    def __init__(self, items: int) -> None:
        super().__init__()
        self.item = nn.Parameter(torch.randn(items, DIM) * 0.1)
        self.within = WindowLSTM(DIM, DIM)
        self.across = WindowLSTM(DIM, DIM)
        self.dropout = nn.Dropout(0.2)
        self.start = nn.Linear(DIM, DIM)
        self.current = nn.LSTM(DIM, DIM, batch_first=True)
        self.out = nn.Linear(2 * DIM, items)

    def _embed(self, items: Tensor) -> Tensor:
        vectors: Tensor = self.dropout(functional.embedding(items.clamp(min=0), self.item))
        return vectors * (items >= 0).unsqueeze(-1)

    def forward(self, sessions: Tensor, past: Tensor, now: Tensor) -> Tensor:
        """sessions int64 [S, PLAYS]: the distinct ones of the batch; past int64 [B, SESSIONS]: rows of sessions;
        now int64 [B, PLAYS]: items. All oldest first, left padded with -1.
        """
        _, ends = self.within(self._embed(sessions), (sessions >= 0).sum(1))  # [S, DIM]
        there = past >= 0
        _, user = self.across(functional.embedding(past.clamp(min=0), ends) * there.unsqueeze(-1), there.sum(1))
        begin = torch.tanh(self.start(user)).unsqueeze(0)
        # Padding comes first and is 0 throughout, so the state still knows the user when the first play arrives.
        _, (state, _) = self.current(self._embed(now), (begin.contiguous(), torch.zeros_like(begin)))
        logits: Tensor = self.out(self.dropout(torch.cat([state[0], user], 1)))
        return logits


class MCUM(NeuralRecommender):
    """Hierarchical LSTM over plays, sessions and the user."""

    name: ClassVar[str] = "mcum"

    def measure(self, train: Listening) -> dict[str, Any]:
        return {"items": len(train.items)}

    def build(self, **sizes: Any) -> Network:
        return Network(**sizes)

    def features(self, histories: Sequence[History]) -> tuple[Tensor, ...]:
        rows: dict[tuple[int, int], int] = {}  # (user, plays before the session) -> row
        sessions: list[Integers] = [np.zeros(0, np.int64)]
        past = np.full((len(histories), SESSIONS), -1, dtype=np.int64)
        current = []
        for row, history in enumerate(histories):
            *before, now = _last_sessions(history)
            current.append(history.items[now])
            for place, span in enumerate(reversed(before)):
                key = history.user, span.start
                if key not in rows:
                    rows[key] = len(sessions)
                    sessions.append(history.items[span])
                past[row, SESSIONS - 1 - place] = rows[key]
        return _padded(sessions), torch.from_numpy(past), _padded(current)


def _last_sessions(history: History) -> list[slice]:
    """The current session and up to SESSIONS before it, oldest first; one empty session without plays."""
    count = len(history.items)
    first = max(count - 40 * SESSIONS, 0)  # of very long sessions fewer are read
    cuts = (np.flatnonzero(np.diff(history.times[first:]) > SESSION_GAP) + first + 1).tolist()
    return [slice(begin, end) for begin, end in zip([first, *cuts], [*cuts, count], strict=True)][-SESSIONS - 1 :]


def _padded(parts: Sequence[Integers]) -> Tensor:
    """The last PLAYS items of each, left padded with -1."""
    out = np.full((len(parts), PLAYS), -1, dtype=np.int64)
    for row, items in enumerate(parts):
        last = items[-PLAYS:]
        out[row, PLAYS - len(last) :] = last
    return torch.from_numpy(out)
