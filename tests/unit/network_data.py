"""Small real-shaped inputs for the tests of the network: random content, and plays that follow a known chain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from msam.config import MSAMConfig
from msam.network import MSAM, TrackContent, TrackInputs, UserInputs
from msam.sequences import Dataset

torch.set_num_threads(1)  # as a worker pins it; small models on many threads mostly wait for each other

SMALL = MSAMConfig(dim=12, window=6, hidden=10, text_dim=16, max_words=5, audio_groups=3, audio_width=8)
PUBLISHED = MSAMConfig(
    dim=12, window=6, hidden=10, text_dim=16, max_words=5, audio_groups=3, audio_width=8, published=True
)


def content(rng: np.random.Generator, config: MSAMConfig, *, text: bool = True, audio: bool = True) -> TrackContent:
    """One track with random words (title, artist, label), audio and factors."""
    words = rng.standard_normal((4, config.text_dim)).astype(np.float16) if text else None
    sound = rng.standard_normal((config.audio_groups, config.audio_width)).astype(np.float32) if audio else None
    factor = rng.standard_normal(config.dim).astype(np.float32)
    return TrackContent(words, (0, 0, 1, 2) if text else (), sound, factor, rng.random(config.dim).astype(np.float32))


def tracks(count: int, config: MSAMConfig = SMALL, seed: int = 0) -> TrackInputs:
    """Tracks of which every third has no audio and every fourth no text."""
    rng = np.random.default_rng(seed)
    return TrackInputs.build(
        [content(rng, config, text=row % 4 != 3, audio=row % 3 != 2) for row in range(count)], config
    )


def users(count: int, config: MSAMConfig = SMALL, seed: int = 1) -> UserInputs:
    """Users of which every other one has no profile."""
    rng = np.random.default_rng(seed)
    rows = [
        rng.standard_normal((3, config.text_dim)).astype(np.float32) if row % 2 == 0 else None for row in range(count)
    ]
    return UserInputs.build(rows, config)


def model(config: MSAMConfig = SMALL, rows: int = 20, seed: int = 0) -> MSAM:
    """An untrained model in inference mode, with scales fitted on `tracks(rows)`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MSAM(config, rows)
    inputs = tracks(rows, config)
    network.fit_scales(inputs)
    network.eval()
    network.finish(inputs)
    return network


def chain(config: MSAMConfig, count: int = 30, plays: int = 120, people: int = 4, seed: int = 0) -> Dataset:
    """Users who go from a track to a fixed next one nine times out of ten, else anywhere."""
    rng = np.random.default_rng(seed)
    following = rng.permutation(count)
    log: list[tuple[str, str, float]] = []
    for person in range(people):
        at = int(rng.integers(count))
        for step in range(plays):
            log.append((f"u{person}", f"t{at}", float(step)))
            at = int(following[at]) if rng.random() < 0.9 else int(rng.integers(count))
    ids: Sequence[str] = [f"t{row}" for row in range(count)]
    return Dataset.build(ids, tracks(count, config), [f"u{row}" for row in range(people)], users(people, config), log)
