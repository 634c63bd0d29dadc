"""One short-time Fourier transform and what is read from it (Eq. 11)."""

from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from typing import Any

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

    samples float32 [n] at RATE, without its mean; power float32 [F, T], 1 for a full-scale sine; peak = max of power;
    mel float64 [M, T], mel power relative to `peak`, floored, in dB (-80 to about 10), so gain does not matter.
    """

    samples: NDArray[np.float32]
    power: NDArray[np.float32]
    peak: float
    mel: Floats


def resample(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Samples at RATE, by a polyphase filter with a Kaiser window."""
    if rate == RATE:
        return samples
    from scipy.signal import resample_poly

    divisor = gcd(rate, RATE)
    return np.asarray(resample_poly(samples, RATE // divisor, rate // divisor), dtype=np.float32)


def analyse(samples: NDArray[np.float32]) -> Spectrum:
    """The spectrum of mono samples at RATE, N_FFT samples or more: Hamming window, frames wholly inside the clip."""
    from scipy import fft

    window = np.hamming(N_FFT).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, N_FFT)[::HOP]
    bins = fft.rfft(frames * window, axis=1, workers=1)
    power = np.ascontiguousarray((bins.real**2 + bins.imag**2).T) * np.float32((2 / window.sum()) ** 2)
    peak = max(float(power.max()), float(np.finfo(np.float32).tiny))
    mel = mel_bank() @ power.astype(np.float64)
    return Spectrum(samples, power, peak, 10 * np.log10(mel / peak + FLOOR))


@lru_cache(maxsize=1)
def frequencies() -> Floats:
    """Centre of each bin in Hz [F]."""
    return np.arange(N_FFT // 2 + 1, dtype=np.float64) * RATE / N_FFT


@lru_cache(maxsize=1)
def mel_bank() -> Any:
    """Triangular mel filters, sparse [M, F], each with peak 1 (0 to RATE/2, Slaney's scale).

    Sparse, because a dense product's bits depend on the number of BLAS threads.
    """
    from scipy.sparse import csr_array

    edges = _mel_to_hz(np.linspace(0.0, _hz_to_mel(RATE / 2), N_MELS + 2))
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = frequencies()[None, :]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    return csr_array(np.maximum(0.0, np.minimum(rising, falling)))


def _hz_to_mel(hertz: float) -> float:
    """Linear below 1 kHz (200/3 Hz a mel), logarithmic above (27 mels to 6.4 kHz)."""
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * float(np.log(hertz / 1000) / np.log(6.4))


def _mel_to_hz(mels: Floats) -> Floats:
    return np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
