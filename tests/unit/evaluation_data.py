"""A small listening log with all content, for the tests of recommenders and of the evaluation."""

from __future__ import annotations

import numpy as np

from msam.config import MSAMConfig
from msam.content import MEL_BANDS, MEL_FRAMES, Content
from msam.listening import Listening
from msam.network import UserInputs
from tests.unit.network_data import tracks, users

SMALL = MSAMConfig(dim=12, window=6, hidden=10, text_dim=16, max_words=5, audio_groups=3, audio_width=8)


def content(items: int, people: int) -> Content:
    """Random words, sound and factors of the items, and profiles of every other user."""
    rng = np.random.default_rng(7)
    inputs = tracks(items, SMALL)
    profiles: UserInputs = users(people, SMALL)
    mel = rng.standard_normal((items, MEL_BANDS, MEL_FRAMES)).astype(np.float16)
    return Content(SMALL, inputs, profiles, mel, inputs.audio_mask.numpy(), np.arange(items) % 5, np.arange(items) % 9)


def listening(items: int = 24, people: int = 5, plays: int = 60, seed: int = 0) -> Listening:
    """Users who go from an item to a fixed next one four times out of five, in sessions of twelve plays."""
    rng = np.random.default_rng(seed)
    following = rng.permutation(items - 2)  # the last two items are never played
    log: list[tuple[str, str, float]] = []
    for person in range(people):
        at, time = int(rng.integers(items - 2)), 1e9 + person
        for step in range(plays):
            log.append((f"u{person}", f"t{at:02d}", time))
            at = int(following[at]) if rng.random() < 0.8 else int(rng.integers(items - 2))
            time += 7200.0 if step % 12 == 11 else 200.0
    names = [f"t{row:02d}" for row in range(items)]
    return Listening.build(names, [f"u{row}" for row in range(people)], log, content(items, people))
