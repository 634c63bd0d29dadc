"""Pitch: chroma from interpolated spectral peaks, tuning, key profiles and a cheap fundamental."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msam.features.spectrum import N_FFT, RATE, Spectrum
from msam.features.summaries import Floats, Values, rows, summary

NOTES = ("C", "Cs", "D", "Ds", "E", "F", "Fs", "G", "Gs", "A", "As", "B")
LOWEST, HIGHEST = 80.0, 4000.0
F0_LOWEST, F0_HIGHEST = 55.0, 1000.0
VOICED = 0.6
"""Autocorrelation above which a frame counts as having a fundamental."""

# Krumhansl and Kessler (1982), Tracing the dynamic changes in perceived tonal organization: probe-tone ratings.
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


@dataclass(frozen=True, slots=True)
class Peaks:
    """Spectral peaks, N of them: frame, MIDI pitch (69 = A4 = 440 Hz) and amplitude of each [N]."""

    frame: NDArray[np.intp]
    midi: Floats
    amplitude: Floats


def pitch(spectrum: Spectrum) -> Values:
    """Chroma mean and std, correlation with the 24 key profiles, tuning, and the fundamental (octaves from 220 Hz)."""
    peaks = find_peaks(spectrum)
    chroma = chromagram(peaks, spectrum.power.shape[1])
    mean = chroma.mean(axis=1)
    found = {f"chroma_{n}_mean": float(12 * v - 1) / 2 for n, v in zip(NOTES, mean, strict=True)}
    found |= {f"chroma_{n}_std": float(5 * v) for n, v in zip(NOTES, chroma.std(axis=1), strict=True)}
    found |= rows("key", _key_strengths(mean), 0.0, 0.5)
    turn = np.exp(2j * np.pi * peaks.midi)
    tuning = (turn * peaks.amplitude).sum() / max(float(peaks.amplitude.sum()), 1e-12)
    found |= {"tuning_cos": float(tuning.real), "tuning_sin": float(tuning.imag)}
    octaves, strength = fundamental(spectrum)
    found |= summary("f0", octaves[strength > VOICED], 0.0, 1.0)
    return found | {
        "voiced_share": 2 * float(np.mean(strength > VOICED)) - 1,
        "harmonicity": 2 * float(strength.mean()) - 1,
    }


def find_peaks(spectrum: Spectrum) -> Peaks:
    """Local maxima of each frame within 30 dB of its highest, between LOWEST and HIGHEST, parabola-interpolated."""
    first, last = int(LOWEST * N_FFT / RATE), int(HIGHEST * N_FFT / RATE)
    power = spectrum.power.T[:, first - 1 : last + 2]
    left, middle, right = power[:, :-2], power[:, 1:-1], power[:, 2:]
    floor = np.maximum(middle.max(axis=1, keepdims=True) * 1e-3, spectrum.peak * 1e-6)
    frame, column = np.nonzero((middle > left) & (middle >= right) & (middle > floor))
    low, top, high = (
        np.log(np.maximum(part[frame, column], 1e-30)).astype(np.float64) for part in (left, middle, right)
    )
    shift = 0.5 * (low - high) / np.minimum(low - 2 * top + high, -1e-9)
    hertz = (column + first + np.clip(shift, -0.5, 0.5)) * RATE / N_FFT
    return Peaks(frame, 69 + 12 * np.log2(hertz / 440), np.exp(top / 2))


def chromagram(peaks: Peaks, frames: int) -> Floats:
    """Share of each pitch class in each frame [12, T], 0 without peaks; a peak is split between its two notes."""
    lower = np.floor(peaks.midi)
    upper_share = peaks.midi - lower
    chroma = np.zeros(12 * frames)
    for note, share in ((lower, 1 - upper_share), (lower + 1, upper_share)):
        cell = (note.astype(np.intp) % 12) * frames + peaks.frame
        chroma += np.bincount(cell, weights=peaks.amplitude * share, minlength=12 * frames)
    grid = chroma.reshape(12, frames)
    shares: Floats = grid / np.maximum(grid.sum(axis=0), 1e-12)
    return shares


def _key_strengths(mean: Floats) -> Floats:
    """Pearson correlation of the mean chroma with each key: 12 major, then 12 minor [24]."""
    profiles = np.array([np.roll(mode, tonic) for mode in (_MAJOR, _MINOR) for tonic in range(12)])
    profiles -= profiles.mean(axis=1, keepdims=True)
    centred = mean - mean.mean()
    norms = np.sqrt(np.square(profiles).sum(axis=1)) * max(float(np.sqrt(np.square(centred).sum())), 1e-9)
    correlations: Floats = (profiles * centred).sum(axis=1) / norms
    return correlations


def fundamental(spectrum: Spectrum) -> tuple[Floats, Floats]:
    """Octaves from 220 Hz and strength (0-1) of each frame's fundamental [T], by the power spectrum's autocorrelation.

    The first lag whose peak reaches 90 % of the best one is taken, which avoids the octave below.
    """
    from scipy import fft

    low, high = int(RATE / F0_HIGHEST), int(RATE / F0_LOWEST) + 1
    window = np.hamming(N_FFT)
    taper = fft.irfft(np.abs(fft.rfft(window, 2 * N_FFT)) ** 2)[: high + 1]
    raw = fft.irfft(spectrum.power.T, axis=1, workers=1)[:, : high + 1].astype(np.float64)
    ratio = raw / np.maximum(raw[:, :1], 1e-30) / (taper / taper[0])
    middle = ratio[:, low:high]
    is_peak = (middle > ratio[:, low - 1 : high - 1]) & (middle >= ratio[:, low + 1 : high + 1])
    heights = np.where(is_peak, middle, 0.0)
    best = heights.max(axis=1)
    lag = np.argmax(is_peak & (heights >= 0.9 * best[:, None]), axis=1) + low
    frame = np.arange(len(lag))
    before, top, after = ratio[frame, lag - 1], ratio[frame, lag], ratio[frame, lag + 1]
    shift = np.clip(0.5 * (before - after) / np.minimum(before - 2 * top + after, -1e-9), -0.5, 0.5)
    return np.log2(RATE / (lag + shift) / 220), np.clip(best, 0.0, 1.0)
