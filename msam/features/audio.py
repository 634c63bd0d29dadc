"""Audio descriptors of a clip (Eq. 11): G groups x A columns, from one short-time Fourier transform.

Every value is brought to about unit scale by constants fixed in the code, never by statistics of data, so that the same
clip gives the same row for ever under one AUDIO_VERSION. Pitch, rhythm and timbre do not depend on gain.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msam.features.audio_errors import AudioError, NonFinite, NotAudio, Silence, TooLong, TooShort, Truncated
from msam.features.audio_io import DEFAULT_LIMITS, AudioLimits, check_samples, load
from msam.features.dynamics import intensity, loudness
from msam.features.pitch import pitch
from msam.features.rhythm import rhythm
from msam.features.spectrum import RATE, Spectrum, analyse, resample
from msam.features.summaries import Values
from msam.features.timbre import timbre_contrast, timbre_mel, timbre_mfcc

__all__ = [
    "AUDIO_GROUPS", "AUDIO_VERSION", "AUDIO_WIDTH", "AudioError", "AudioLimits", "NonFinite", "NotAudio", "Silence",
    "TooLong", "TooShort", "Truncated", "describe", "describe_bytes", "describe_file", "describe_named",
    "feature_names", "load",
]  # fmt: skip

_GROUPS: dict[str, Callable[[Spectrum], Values]] = {
    "intensity": intensity,
    "loudness": loudness,
    "pitch": pitch,
    "rhythm": rhythm,
    "timbre_mel": timbre_mel,
    "timbre_mfcc": timbre_mfcc,
    "timbre_contrast": timbre_contrast,
}
AUDIO_GROUPS = tuple(_GROUPS)
AUDIO_WIDTH = 64
"""A: columns of a group; those that a group does not use are 0."""
AUDIO_VERSION = "audio-2"
"""Changes whenever any value of any clip does."""
LIMIT = 10.0
"""Values are clipped to this; only pathological signals reach it."""


def describe(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """Descriptors float32 [G, A] of mono samples [n] at any rate.

    Raises TooShort (under 0.5 s), Silence, NonFinite. The caller cuts long clips (`load` keeps the middle 60 s).
    """
    table = np.zeros((len(AUDIO_GROUPS), AUDIO_WIDTH), dtype=np.float32)
    for row, values in enumerate(describe_named(samples, sample_rate).values()):
        table[row, : len(values)] = list(values.values())
    if not np.isfinite(table).all():
        raise NonFinite("descriptors of this clip are not finite")
    return np.clip(table, -LIMIT, LIMIT)


def describe_named(samples: NDArray[np.float32], sample_rate: int) -> dict[str, Values]:
    """The same descriptors by group and name, before padding and clipping."""
    if len(samples) < DEFAULT_LIMITS.min_seconds * sample_rate:
        raise TooShort(
            f"too short: {len(samples) / sample_rate:.2f} s, at least {DEFAULT_LIMITS.min_seconds} s are needed"
        )
    mono = np.ascontiguousarray(samples, dtype=np.float32)
    check_samples(mono)
    # A constant offset is not sound, yet it would fill the lowest bins.
    mono = resample(mono - np.float32(mono.mean(dtype=np.float64)), sample_rate)
    spectrum = analyse(mono)
    return {name: group(spectrum) for name, group in _GROUPS.items()}


@lru_cache(maxsize=1)
def feature_names() -> dict[str, tuple[str, ...]]:
    """The name of each used column, by group."""
    probe = np.sin(np.arange(RATE, dtype=np.float64)).astype(np.float32)
    return {group: tuple(values) for group, values in describe_named(probe, RATE).items()}


def describe_bytes(data: bytes, limits: AudioLimits = DEFAULT_LIMITS) -> NDArray[np.float32]:
    """Descriptors of an encoded clip (WAV, FLAC, Ogg, MP3, AIFF); raises AudioError."""
    return describe(*load(data, limits))


def describe_file(path: Path | str, limits: AudioLimits = DEFAULT_LIMITS) -> NDArray[np.float32]:
    """Descriptors of an audio file; raises AudioError, or OSError where it cannot be read."""
    return describe(*load(path, limits))
