"""Rhythm: onset strength, tempo and a tempogram."""

import librosa
import numpy as np

from msam.features.spectrum import FRAMES_PER_SECOND, HOP, RATE, Spectrum, decibels
from msam.features.summaries import Floats, Values, rows, summary

TEMPOS = np.geomspace(40.0, 240.0, 32)
"""Beats a minute at which the tempogram is read."""
WINDOW = int(8 * FRAMES_PER_SECOND)
"""Frames (8 s) within which beats are compared."""
ONSET_FLOOR = 10.0**-4.5
"""Relative power (-45 dB) below which a rise is no onset: the side lobes of a steady tone wobble there."""
STEADY_DB = 0.12
"""Onset strength whose deviation stays below this has no beat."""


def rhythm(spectrum: Spectrum) -> Values:
    """Onset strength (1 dB a unit) and rate; tempo in octaves from 120 beats a minute; its clarity; tempogram."""
    onsets = onset_strength(spectrum)
    if onsets.std() < STEADY_DB:
        clarity, tempo, beat, count = np.zeros(1), 120.0, 0.0, 0
    else:
        clarity = autocorrelation(onsets)
        tempo, beat = find_tempo(clarity)
        count = len(librosa.onset.onset_detect(onset_envelope=onsets, sr=RATE, hop_length=HOP))
    found = summary("onset", onsets, 0.6, 1.0)
    found["onset_p99"] = (float(np.percentile(onsets, 99)) - 4) / 4
    found["onset_rate"] = (count * FRAMES_PER_SECOND / len(onsets) - 3) / 3
    found |= {"tempo": float(np.log2(tempo / 120)), "beat_clarity": 2 * beat}
    lags = 60 * FRAMES_PER_SECOND / TEMPOS
    return found | rows("tempogram", np.interp(lags, np.arange(len(clarity)), clarity, right=0.0), 0.0, 0.5)


def onset_strength(spectrum: Spectrum) -> Floats:
    """Mean rise of the mel bands from frame to frame in dB [T - 1]."""
    level = decibels(librosa.db_to_power(spectrum.mel), ONSET_FLOOR)
    return np.asarray(librosa.onset.onset_strength(S=level, sr=RATE, center=False)[1:], dtype=np.float64)


def autocorrelation(onsets: Floats) -> Floats:
    """Mean over time of the local correlation of the onset strength with itself, 1 at lag 0, up to WINDOW lags."""
    # Windows wholly inside the clip: padding would add a slow ramp, which hides the beat of a short one.
    width = min(WINDOW, len(onsets))
    tempogram = librosa.feature.tempogram(
        onset_envelope=onsets - onsets.mean(), sr=RATE, hop_length=HOP, win_length=width, center=False
    )
    return np.asarray(tempogram.mean(axis=1), dtype=np.float64)


def find_tempo(clarity: Floats) -> tuple[float, float]:
    """Beats a minute and their clarity, 0 where no lag stands out; 120 is preferred (log-normal, one octave)."""
    # Only peaks: next to lag 0 any slow change correlates with itself, which is no beat.
    peaks = np.where(librosa.util.localmax(clarity), np.maximum(clarity, 0.0), 0.0)
    tempo = float(librosa.feature.tempo(tg=peaks[:, None], sr=RATE, hop_length=HOP)[0])
    return tempo, float(peaks[round(60 * FRAMES_PER_SECOND / tempo)])
