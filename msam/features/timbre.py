"""Timbre: mel bands, MFCC, spectral contrast and shape."""

import librosa
import numpy as np

from msam.features.spectrum import FLOOR, N_MELS, RATE, Spectrum, decibels
from msam.features.summaries import Values, rows, summary

BANDS = 32
"""Mel bands of the summary: pairs of the spectrum's 64."""
COEFFICIENTS = 20
"""MFCC without the first, which is level."""


def timbre_mel(spectrum: Spectrum) -> Values:
    """Mean (dB below the loudest bin, -45 dB is 0, 15 dB a unit) and std (8 dB a unit) of the log mel bands."""
    bands = spectrum.mel.reshape(BANDS, N_MELS // BANDS, -1).mean(axis=1)
    return rows("mel_mean", bands.mean(axis=1), -45.0, 15.0) | rows("mel_std", bands.std(axis=1), 0.0, 8.0)


def timbre_mfcc(spectrum: Spectrum) -> Values:
    """Mean, std and mean step of MFCC 1 to 20; the unit falls with the coefficient, as their spread does."""
    mfcc = librosa.feature.mfcc(S=spectrum.mel, n_mfcc=COEFFICIENTS + 1)[1:]
    unit = 40 / np.sqrt(np.arange(1, COEFFICIENTS + 1))
    found = rows("mfcc_mean", mfcc.mean(axis=1), 0.0, unit)
    found |= rows("mfcc_std", mfcc.std(axis=1), 0.0, unit / 2)
    return found | rows("mfcc_step", np.abs(np.diff(mfcc, axis=1)).mean(axis=1), 0.0, unit / 5)


def timbre_contrast(spectrum: Spectrum) -> Values:
    """Peak against valley of octave bands (20 dB is 0, 10 dB a unit); centroid, width, roll-off, flatness, flux."""
    # Of power, not amplitude, so that a window's side lobes do not move the centroid; the floor keeps silent frames
    # defined.
    power = spectrum.power.astype(np.float64) + FLOOR
    shape = librosa.feature
    # The highest and lowest fifth of the bins below 200 Hz and in the six octaves above.
    contrast = shape.spectral_contrast(S=power, sr=RATE, quantile=0.2)
    found = rows("contrast_mean", contrast.mean(axis=1), 20.0, 10.0) | rows(
        "contrast_std", contrast.std(axis=1), 0.0, 5.0
    )
    centroid = shape.spectral_centroid(S=power, sr=RATE)
    width = shape.spectral_bandwidth(S=power, sr=RATE, centroid=centroid)
    rolloff = shape.spectral_rolloff(S=power, sr=RATE)
    flatness = shape.spectral_flatness(S=power, power=1.0)
    found |= summary("centroid", np.log2(np.maximum(centroid, 50.0) / 1000), 0.0, 1.0)
    found |= summary("width", np.log2(np.maximum(width, 20.0) / 1000), 0.0, 1.5)
    found |= summary("rolloff", np.log2(np.maximum(rolloff, 50.0) / 1500), 0.0, 1.5)
    found |= summary("flatness", decibels(flatness), -25.0, 12.0)
    return found | summary("flux", np.abs(np.diff(spectrum.mel, axis=1)).mean(axis=0), 4.0, 4.0)
