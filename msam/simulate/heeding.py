"""Listeners who heed one group of audio descriptors alone, another one each."""

from typing import NamedTuple, Self

import numpy as np

from msam.features.audio import AUDIO_GROUPS
from msam.simulate.config import SimulationConfig
from msam.simulate.world import Floats, Integers

COMPONENTS = 8
"""Directions in which the tracks differ most within a group; each counts alike in a taste."""


class Heeding(NamedTuple):
    """group [U]: which group each listener heeds; liking [U, T]: how far each track is in a direction of that group."""

    group: Integers
    liking: Floats

    @classmethod
    def of(cls, config: SimulationConfig, described: Floats) -> Self:
        """described: descriptors [T, G, A] of all tracks."""
        # A generator of its own, so that the rest of the world is the same.
        rng = np.random.default_rng([config.seed, 5])
        group = rng.integers(0, len(AUDIO_GROUPS), config.users)
        taste = rng.normal(size=(config.users, COMPONENTS))
        liking = np.empty((config.users, len(described)))
        for number in range(len(AUDIO_GROUPS)):
            liking[group == number] = taste[group == number] @ components(described[:, number]).T
        return cls(group, liking)


def components(described: Floats) -> Floats:
    """The leading principal components [T, COMPONENTS] of one group's descriptors [T, A], each of variance 1 (or 0)."""
    centred = described.astype(np.float64) - described.mean(axis=0, dtype=np.float64)
    scaled = centred / np.maximum(centred.std(axis=0), 1e-9)
    left, power, right = np.linalg.svd(scaled, full_matrices=False)
    # A direction has two signs, of which the solver may return either.
    sign = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    whole = left * sign * np.where(power > 1e-6 * power[0], np.sqrt(len(left)), 0.0)
    return np.asarray(np.pad(whole, ((0, 0), (0, COMPONENTS)))[:, :COMPONENTS])
