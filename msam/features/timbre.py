"""Timbre: mel bands, MFCC, spectral contrast and shape."""

from itertools import pairwise

import numpy as np

from msam.features.spectrum import FLOOR, N_MELS, RATE, Spectrum, frequencies
from msam.features.summaries import Floats, Values, rows, summary

BANDS = 32
"""Mel bands of the summary: pairs of the spectrum's 64."""
COEFFICIENTS = 20
"""MFCC without the first, which is level."""
OCTAVES = (0.0, 200.0, 400.0, 800.0, 1600.0, 3200.0, 6400.0, RATE / 2)
"""Edges of the contrast bands in Hz."""


def timbre_mel(spectrum: Spectrum) -> Values:
    """Mean (dB below the loudest bin, -45 dB is 0, 15 dB a unit) and std (8 dB a unit) of the log mel bands."""
    bands = spectrum.mel.reshape(BANDS, N_MELS // BANDS, -1).mean(axis=1)
    return rows("mel_mean", bands.mean(axis=1), -45.0, 15.0) | rows("mel_std", bands.std(axis=1), 0.0, 8.0)


def timbre_mfcc(spectrum: Spectrum) -> Values:
    """Mean, std and mean step of MFCC 1 to 20; the unit falls with the coefficient, as their spread does."""
    from scipy import fft

    mfcc = fft.dct(spectrum.mel, axis=0, type=2, norm="ortho", workers=1)[1 : COEFFICIENTS + 1]
    unit = 40 / np.sqrt(np.arange(1, COEFFICIENTS + 1))
    found = rows("mfcc_mean", mfcc.mean(axis=1), 0.0, unit)
    found |= rows("mfcc_std", mfcc.std(axis=1), 0.0, unit / 2)
    return found | rows("mfcc_step", np.abs(np.diff(mfcc, axis=1)).mean(axis=1), 0.0, unit / 5)


def timbre_contrast(spectrum: Spectrum) -> Values:
    """Peak against valley of octave bands (20 dB is 0, 10 dB a unit); centroid, width, roll-off, flatness, flux."""
    power = spectrum.power.astype(np.float64) / spectrum.peak
    contrast = _contrast(power)
    found = rows("contrast_mean", contrast.mean(axis=1), 20.0, 10.0) | rows(
        "contrast_std", contrast.std(axis=1), 0.0, 5.0
    )
    total = power.sum(axis=0) + FLOOR
    hertz = frequencies()[:, None]
    centroid = (power * hertz).sum(axis=0) / total
    width = np.sqrt(np.maximum((power * hertz**2).sum(axis=0) / total - centroid**2, 0.0))
    rolloff = hertz[np.argmax(np.cumsum(power, axis=0) >= 0.85 * total, axis=0), 0]
    flatness = 10 * (np.log10(power + FLOOR).mean(axis=0) - np.log10((power + FLOOR).mean(axis=0)))
    found |= summary("centroid", np.log2(np.maximum(centroid, 50.0) / 1000), 0.0, 1.0)
    found |= summary("width", np.log2(np.maximum(width, 20.0) / 1000), 0.0, 1.5)
    found |= summary("rolloff", np.log2(np.maximum(rolloff, 50.0) / 1500), 0.0, 1.5)
    found |= summary("flatness", flatness, -25.0, 12.0)
    return found | summary("flux", np.abs(np.diff(spectrum.mel, axis=1)).mean(axis=0), 4.0, 4.0)


def _contrast(power: Floats) -> Floats:
    """Mean of the highest against mean of the lowest fifth of the bins of each band in dB [7, T]."""
    bands = []
    for low, high in pairwise(OCTAVES):
        inside = np.sort(power[(frequencies() >= low) & (frequencies() < high)], axis=0)
        count = max(1, len(inside) // 5)
        bands.append(10 * np.log10((inside[-count:].mean(axis=0) + FLOOR) / (inside[:count].mean(axis=0) + FLOOR)))
    return np.array(bands)
