"""One short-time Fourier transform and what is read from it (Eq. 11)."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import librosa
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RATE = 22_050
N_FFT = 2_048
HOP = 512
N_MELS = 64
FRAMES_PER_SECOND = RATE / HOP
FLOOR = 1e-8
"""Relative power (-80 dB) below which nothing is distinguished."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """A clip in frequency. F = N_FFT/2 + 1 bins, T frames, M mel bands.

    samples float32 [n] at RATE, without its mean; power float32 [F, T] relative to its highest value, so gain does not
    matter; mel [M, T], mel power in dB (-80 to about 10).
    """

    samples: NDArray[np.float32]
    power: NDArray[np.float32]
    mel: Floats


def resample(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Samples at RATE (soxr, high quality)."""
    return librosa.resample(samples, orig_sr=rate, target_sr=RATE)


def analyse(samples: NDArray[np.float32]) -> Spectrum:
    """The spectrum of mono samples at RATE, N_FFT samples or more: Hamming window, frames wholly inside the clip."""
    bins = librosa.stft(samples, n_fft=N_FFT, hop_length=HOP, window="hamming", center=False)
    power = librosa.util.abs2(bins)
    power = power / max(power.max(), np.finfo(np.float32).tiny)
    return Spectrum(samples, power, decibels(mel_bank() @ power.astype(np.float64)))


def decibels(power: Floats, floor: float = FLOOR) -> Floats:
    """Power in dB, not below `floor` (a power)."""
    return np.asarray(librosa.power_to_db(power, amin=floor, top_db=None), dtype=np.float64)


# The filter banks are sparse, because a dense product's bits depend on the number of BLAS threads: so
# librosa.feature.melspectrogram and chroma_stft, which multiply densely, would differ between processes.
@lru_cache(maxsize=1)
def mel_bank() -> Any:
    """Triangular mel filters, sparse [M, F], each with peak 1 (0 to RATE/2, Slaney's scale)."""
    from scipy.sparse import csr_array

    return csr_array(librosa.filters.mel(sr=RATE, n_fft=N_FFT, n_mels=N_MELS, norm=None))


@lru_cache(maxsize=1)
def chroma_bank() -> Any:
    """Share of each bin in each pitch class from C, sparse [12, F] (A = 440 Hz)."""
    from scipy.sparse import csr_array

    return csr_array(librosa.filters.chroma(sr=RATE, n_fft=N_FFT))
