"""Pitch: chroma of spectral peaks, tuning, key profiles and the fundamental."""

import librosa
import numpy as np

from msam.features.spectrum import HOP, N_FFT, RATE, Spectrum, chroma_bank
from msam.features.summaries import Floats, Values, rows, summary

NOTES = ("C", "Cs", "D", "Ds", "E", "F", "Fs", "G", "Gs", "A", "As", "B")
LOWEST, HIGHEST = 80.0, 4000.0
PEAK_RANGE = 10**-1.5
"""Amplitude (-30 dB) of the weakest peak counted, relative to the highest bin of its frame."""
QUIET = 10**-1.5
"""Amplitude (-30 dB of the clip's highest) that the highest bin of a quieter frame is taken to have."""
F0_LOWEST, F0_HIGHEST = 55.0, 1000.0
VOICED = 0.6
"""Autocorrelation above which a frame counts as having a fundamental."""

# Krumhansl and Kessler (1982), Tracing the dynamic changes in perceived tonal organization: probe-tone ratings.
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
_PROFILES = np.array([np.roll(mode, tonic) for mode in (_MAJOR, _MINOR) for tonic in range(12)])


def pitch(spectrum: Spectrum) -> Values:
    """Chroma mean and std, correlation with the 24 key profiles, tuning, and the fundamental (octaves from 220 Hz)."""
    hertz, amplitude = find_peaks(spectrum)
    chroma = chromagram(amplitude)
    mean = chroma.mean(axis=1)
    found = {f"chroma_{n}_mean": float(12 * v - 1) / 1.6 for n, v in zip(NOTES, mean, strict=True)}
    found |= {f"chroma_{n}_std": float(6 * v) for n, v in zip(NOTES, chroma.std(axis=1), strict=True)}
    found |= rows("key", _key_strengths(mean), 0.0, 0.5)
    tuning = _tuning(hertz[hertz > 0], amplitude[hertz > 0])
    found |= {"tuning_cos": tuning.real, "tuning_sin": tuning.imag}
    octaves, strength = fundamental(spectrum)
    found |= summary("f0", octaves[strength > VOICED], 0.0, 1.0)
    return found | {
        "voiced_share": 2 * float(np.mean(strength > VOICED)) - 1,
        "harmonicity": 2 * float(strength.mean()) - 1,
    }


def find_peaks(spectrum: Spectrum) -> tuple[Floats, Floats]:
    """Interpolated frequency in Hz and amplitude of each spectral peak at its bin [F, T], 0 elsewhere."""
    hertz, amplitude = librosa.piptrack(
        S=np.sqrt(spectrum.power),
        sr=RATE,
        fmin=LOWEST,
        fmax=HIGHEST,
        threshold=PEAK_RANGE,
        ref=lambda amplitudes, axis: np.maximum(amplitudes.max(axis=axis), QUIET),
    )
    return hertz.astype(np.float64), amplitude.astype(np.float64)


def chromagram(amplitude: Floats) -> Floats:
    """Share of each pitch class in each frame [12, T], 0 without peaks (amplitude [F, T])."""
    return np.asarray(librosa.util.normalize(chroma_bank() @ amplitude, norm=1, axis=0), dtype=np.float64)


def _tuning(hertz: Floats, amplitude: Floats) -> complex:
    """Mean deviation from the semitones of A = 440 Hz as a point in the unit circle, once around for a semitone."""
    turn = np.exp(2j * np.pi * librosa.hz_to_midi(hertz))
    return complex((turn * amplitude).sum() / max(float(amplitude.sum()), 1e-12))


def _key_strengths(mean: Floats) -> Floats:
    """Pearson correlation of the mean chroma with each key: 12 major, then 12 minor [24]; 0 for a flat one."""
    if mean.std() < 1e-9:
        return np.zeros(len(_PROFILES))
    correlations: Floats = np.corrcoef(_PROFILES, mean)[-1, :-1]
    return correlations


def fundamental(spectrum: Spectrum) -> tuple[Floats, Floats]:
    """Octaves from 220 Hz (YIN) and strength (0-1) of each frame's fundamental [T].

    The strength is the autocorrelation at the fundamental's period, read from the power spectrum.
    """
    from scipy import fft

    f0 = librosa.yin(
        spectrum.samples, fmin=F0_LOWEST, fmax=F0_HIGHEST, sr=RATE, frame_length=N_FFT, hop_length=HOP, center=False
    ).astype(np.float64)
    lag = np.rint(RATE / f0).astype(np.intp)
    window = librosa.filters.get_window("hamming", N_FFT)
    taper = librosa.autocorrelate(window)
    raw = fft.irfft(spectrum.power, axis=0, workers=1).astype(np.float64)
    at_lag = np.take_along_axis(raw, lag[None, :], axis=0)[0]
    strength = at_lag / np.maximum(raw[0], 1e-30) * taper[0] / taper[lag]
    return np.log2(f0 / 220), np.clip(strength, 0.0, 1.0)
