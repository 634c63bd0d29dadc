"""The wide head as a system of its own, without MSAM: learns everyone's and the user's counts play by play."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from msam.config import CountsConfig
from msam.counts import FEATURES, CandidateMaker, Discography, SharedCounts, UserHistory
from msam.counts.keys import Keys
from msam.evaluation.prequential import Stream
from msam.network.wide import WideHead
from msam.wide_training import Say, WideConfig, collect, fit_wide, spread


class WideAlone:
    """Ranks candidates by their scores; a track that is no candidate is never listed. See `prequential.Online`."""

    def __init__(self, head: WideHead, config: CountsConfig, book: Discography) -> None:
        self._head, self._book, self._limit = head.eval(), book, config.history
        self._maker, self._shared = CandidateMaker(config), SharedCounts(config)
        self._histories: dict[int, UserHistory] = {}

    @torch.inference_mode()
    def top(self, user: int, n: int) -> Sequence[int]:
        """Keys of the best n candidates; of equal scores the smaller key first."""
        history = self._histories.get(user)
        if history is None:
            return []
        keys, features = self._maker.make(history.plays(), self._shared, self._book)
        scores = self._head(torch.from_numpy(features)).numpy()
        best: list[int] = keys[np.lexsort((keys, -scores))[:n]].tolist()
        return best

    def learn(self, user: int, track: int, artist: int, at: float) -> None:
        """The user's own play."""
        history = self._histories.get(user)
        if history is None:
            history = self._histories[user] = UserHistory(self._limit)
        history.append(track, at)

    def share(self, users: Keys, tracks: Keys, artists: Keys, times: NDArray[np.float64]) -> None:
        """Everyone's plays."""
        self._shared.fold(users, tracks, artists, times)


def train_alone(
    stream: Stream,
    book: Discography,
    config: CountsConfig,
    settings: WideConfig,
    *,
    test: float = 0.2,
    say: Say = lambda _: None,
) -> tuple[WideHead, float]:
    """A head trained on the plays before the last `test` of each user's, and its loss on the last of these."""
    learn = (stream.part >= settings.start) & (stream.part < 1.0 - test - 1e-9)
    examples = collect(stream, book, config, spread(learn, settings.most))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        head = WideHead(len(FEATURES))
    return head, fit_wide(head, examples, settings, say)
