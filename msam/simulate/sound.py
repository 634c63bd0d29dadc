"""A short clip of a simulated track: bass, chords and melody by wavetable, and drums, at its tempo and level."""

import numpy as np
from numpy.typing import NDArray

from msam.simulate.world import Floats, World

RATE = 22_050
TABLE = 2_048
MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
CHORDS = (0, 3, 4, 0, 5, 3, 4, 4)
"""Degrees of the scale on which the chords of successive bars stand."""
QUIETEST_DB, LOUDEST_DB = -34.0, -12.0


def clip(world: World, track: int, seconds: float, seed: int) -> NDArray[np.int16]:
    """Mono samples [seconds * RATE] of a track; a track sounds the same whichever others are rendered."""
    rng = np.random.default_rng([seed, 3, track])
    tempo, brightness, level, drums, minor = world.sound[track]
    beat = 60 / (120 * 2.0**tempo)
    scale = MINOR if minor > 0.5 else MAJOR
    mix = np.zeros(int(seconds * RATE))
    _play_notes(rng, mix, int(world.key[track]), scale, beat, _wavetable(float(brightness)))
    _play_drums(rng, mix, beat, float(drums), float(brightness))
    mix += rng.normal(0, 0.002 + 0.02 * brightness**2, len(mix))
    target = 10 ** ((QUIETEST_DB + (LOUDEST_DB - QUIETEST_DB) * level) / 20)
    scaled = mix * (target / np.sqrt(np.mean(mix**2)))
    # Soft limiting: a hard clip would add brightness that the track does not have.
    samples: NDArray[np.int16] = np.round(np.tanh(scaled) * 32_000).astype(np.int16)
    return samples


def _wavetable(brightness: float) -> Floats:
    """One period of ten harmonics, whose amplitudes fall slowly in a bright sound and fast in a dark one."""
    harmonic = np.arange(1, 11)[:, None]
    amplitude = harmonic ** -(3.0 - 2.3 * brightness)
    phase = 2 * np.pi * np.arange(TABLE) / TABLE
    return np.asarray((amplitude * np.sin(harmonic * phase)).sum(axis=0) / np.sqrt((amplitude**2).sum()))


def _play_notes(
    rng: np.random.Generator, mix: Floats, key: int, scale: tuple[int, ...], beat: float, table: Floats
) -> None:
    beats = int(np.ceil(len(mix) / (beat * RATE)))
    for index in range(beats):
        root = CHORDS[index // 4 % len(CHORDS)]
        if index % 4 == 0:
            for degree in (root, root + 2, root + 4):
                _note(mix, table, _hertz(key, scale, degree, 48), index * beat, 4 * beat, 0.25)
        if index % 2 == 0:
            _note(mix, table, _hertz(key, scale, root, 36), index * beat, 2 * beat, 0.4)
        step = root + int(rng.choice([0, 2, 4, 7, 1]))
        _note(mix, table, _hertz(key, scale, step, 60), index * beat, beat * 0.9, 0.35)


def _hertz(key: int, scale: tuple[int, ...], degree: int, base: int) -> float:
    octave, place = divmod(degree, len(scale))
    return float(440 * 2 ** ((base + key + 12 * octave + scale[place] - 69) / 12))


def _note(mix: Floats, table: Floats, hertz: float, start: float, seconds: float, gain: float) -> None:
    """Add one decaying note, cut at the end of the clip."""
    first = int(start * RATE)
    time = np.arange(min(int(seconds * RATE), len(mix) - first)) / RATE
    if len(time) == 0:
        return
    envelope = np.minimum(time / 0.01, 1.0) * np.exp(-2.5 * time / seconds) * np.minimum((seconds - time) / 0.02, 1.0)
    wave = table[(time * (hertz * TABLE)).astype(np.int64) % TABLE]
    mix[first : first + len(time)] += gain * envelope * wave


def _play_drums(rng: np.random.Generator, mix: Floats, beat: float, drums: float, brightness: float) -> None:
    """Kick on every beat, snare on every second, hats between."""
    if drums < 0.05:
        return
    time = np.arange(int(0.18 * RATE)) / RATE
    kick = np.sin(2 * np.pi * (50 * time - 6 * np.exp(-25 * time))) * np.exp(-18 * time)
    snare = rng.normal(size=len(time)) * np.exp(-28 * time)
    hat = np.diff(rng.normal(size=len(time) + 1)) * np.exp(-70 * time)
    for half in range(int(np.ceil(2 * len(mix) / (beat * RATE)))):
        parts = [(hat, 0.25 * (0.4 + brightness))]
        if half % 2 == 0:
            parts.append((kick, 1.1))
        if half % 4 == 2:
            parts.append((snare, 0.5))
        first = int(half * beat / 2 * RATE)
        length = min(len(time), len(mix) - first)
        for sound, gain in parts:
            mix[first : first + length] += drums * gain * sound[:length]
