"""Rhythm: onset strength, tempo and a tempogram."""

import numpy as np

from msam.features.spectrum import FRAMES_PER_SECOND, Spectrum
from msam.features.summaries import Floats, Values, rows, summary

SLOWEST, FASTEST = 30.0, 300.0
TEMPOS = np.geomspace(40.0, 240.0, 32)
"""Beats a minute at which the tempogram is read."""
ONSET_FLOOR = 10.0**-4.5
"""Relative power (-45 dB) below which a rise is no onset: the side lobes of a steady tone wobble there."""
STEADY_DB = 0.12
"""Onset strength whose deviation stays below this has no beat."""


def rhythm(spectrum: Spectrum) -> Values:
    """Onset strength (1 dB a unit) and rate; tempo in octaves from 120 beats a minute; its clarity; tempogram."""
    onsets = onset_strength(spectrum)
    clarity = autocorrelation(onsets)
    tempo, beat = find_tempo(clarity)
    found = summary("onset", onsets, 0.6, 1.0)
    found["onset_p99"] = (float(np.percentile(onsets, 99)) - 4) / 4
    found["onset_rate"] = (_onset_rate(onsets) - 3) / 2
    found |= {"tempo": float(np.log2(tempo / 120)) if tempo else 0.0, "beat_clarity": 2 * beat}
    lags = 60 * FRAMES_PER_SECOND / TEMPOS
    return found | rows("tempogram", np.interp(lags, np.arange(len(clarity)), clarity, right=0.0), 0.0, 0.5)


def onset_strength(spectrum: Spectrum) -> Floats:
    """Mean rise of the mel bands from frame to frame in dB [T - 1]."""
    level = 10 * np.log10(10 ** (spectrum.mel / 10) + ONSET_FLOOR)
    rise: Floats = np.maximum(np.diff(level, axis=1), 0.0).mean(axis=0)
    return rise


def autocorrelation(onsets: Floats) -> Floats:
    """Correlation of the onset strength with itself at each lag, 1 at 0, for lags up to 2 s or half the clip."""
    from scipy import fft

    lags = min(int(60 * FRAMES_PER_SECOND / SLOWEST) + 2, len(onsets) // 2)
    if onsets.std() < STEADY_DB:
        return np.zeros(max(lags, 1))
    centred = onsets - onsets.mean()
    raw = fft.irfft(np.abs(fft.rfft(centred, 2 * len(centred), workers=1)) ** 2, workers=1)[:lags]
    overlap = 1 - np.arange(lags) / len(centred)
    correlation: Floats = np.clip(raw / raw[0] / overlap, -1.0, 1.0)
    return correlation


def find_tempo(clarity: Floats) -> tuple[float, float]:
    """Beats a minute and their clarity, (0, 0) where there is no beat; 120 is preferred (log-normal, one octave)."""
    first = int(60 * FRAMES_PER_SECOND / FASTEST)
    if len(clarity) < first + 3:
        return 0.0, 0.0
    lag = np.arange(first, len(clarity) - 1)
    tempo = 60 * FRAMES_PER_SECOND / lag
    is_peak = (clarity[lag] > clarity[lag - 1]) & (clarity[lag] >= clarity[lag + 1])
    score = np.where(is_peak, clarity[lag], 0.0) * np.exp(-0.5 * np.log2(tempo / 120) ** 2)
    if score.max(initial=0.0) <= 0:
        return 0.0, 0.0
    best = int(lag[np.argmax(score)])
    before, top, after = clarity[best - 1 : best + 2]
    shift = float(np.clip(0.5 * (before - after) / min(before - 2 * top + after, -1e-9), -0.5, 0.5))
    return 60 * FRAMES_PER_SECOND / (best + shift), float(top)


def _onset_rate(onsets: Floats) -> float:
    """Onsets a second: local maxima that stand a deviation above the mean."""
    middle = onsets[1:-1]
    high = middle > max(float(onsets.mean() + onsets.std()), 0.5)
    return float(np.sum(high & (middle > onsets[:-2]) & (middle >= onsets[2:]))) * FRAMES_PER_SECOND / len(onsets)
