"""Intensity (RMS) and loudness (ITU-R BS.1770)."""

from typing import Any

import librosa
import numpy as np

from msam.features.audio_errors import Silence
from msam.features.spectrum import HOP, N_FFT, RATE, Spectrum
from msam.features.summaries import Floats, Values, summary

SILENCE_DB = -80.0
"""A clip whose loudest frame is below this (dB of full scale) is silence."""
SHORT_TERM_BLOCKS = 27
"""Momentary blocks (0.4 s, every 0.1 s) that cover the 3 s of a short-term value."""


def intensity(spectrum: Spectrum) -> Values:
    """RMS of each frame in dB of full scale, centred at -30 dB, 15 dB a unit; Silence where nothing is above -80 dB."""
    level = frame_levels(spectrum)
    if level.max() < SILENCE_DB:
        raise Silence(f"silence: the loudest moment is at {level.max():.0f} dB of full scale")
    power = np.maximum(np.abs(spectrum.samples.astype(np.float64)).max(), 1e-9)
    steps = np.abs(np.diff(level))
    found = summary("rms", level, -30.0, 15.0) | summary("rms_step", steps, 2.0, 3.0)
    found["peak"] = (20 * float(np.log10(power)) + 12) / 12
    found["crest"] = (20 * float(np.log10(power)) - 10 * float(np.log10(np.mean(10 ** (level / 10)))) - 16) / 6
    found["quiet_share"] = 2 * float(np.mean(level < level.max() - 20))
    found["active_range"] = (float(level.max() - np.percentile(level, 10)) - 20) / 15
    return found


def frame_levels(spectrum: Spectrum) -> Floats:
    """RMS of each frame [T] in dB of full scale, floored at -100 dB."""
    rms = librosa.feature.rms(y=spectrum.samples, frame_length=N_FFT, hop_length=HOP, center=False)[0]
    return np.asarray(librosa.amplitude_to_db(rms, amin=1e-5, top_db=None), dtype=np.float64)


def loudness(spectrum: Spectrum) -> Values:
    """Integrated, momentary and short-term loudness in LUFS, floored at -70, centred at -23, 8 LU a unit."""
    meter = _meter()
    integrated = float(meter.integrated_loudness(spectrum.samples.astype(np.float64)))
    momentary = np.maximum(np.array(meter.blockwise_loudness, dtype=np.float64), -70.0)
    found = {"integrated": (max(integrated, -70.0) + 23) / 8}
    found |= summary("momentary", momentary, -23.0, 8.0)
    # Mean power of as many blocks as 3 s hold, or of the whole clip where it is shorter.
    power = np.cumsum(np.concatenate([[0.0], 10 ** (momentary / 10)]))
    width = min(SHORT_TERM_BLOCKS, len(momentary))
    short_term = 10 * np.log10(np.maximum((power[width:] - power[:-width]) / width, 1e-7))
    found |= summary("short_term", short_term, -23.0, 8.0)
    found["max_momentary"] = (float(momentary.max()) + 23) / 8
    found["range"] = (float(np.ptp(np.percentile(momentary, (10, 95)))) - 8) / 8
    return found


def _meter() -> Any:
    # A new meter every time: it remembers its last clip, and two threads must not share that.
    import pyloudnorm

    return pyloudnorm.Meter(RATE)
