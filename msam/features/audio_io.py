"""Audio files to mono samples, within limits that are checked before anything is decoded."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.features.audio_errors import NonFinite, NotAudio, Silence, TooLong, TooShort, Truncated
from msam.features.audio_headers import check_claims

FORMATS = frozenset({"WAV", "WAVEX", "FLAC", "OGG", "MP3", "AIFF"})
BLOCK_FRAMES = 65_536
PEAK_LIMIT = 1e6
"""Full scale is 1; a float file beyond this would overflow the spectrum."""


@dataclass(frozen=True, slots=True)
class AudioLimits:
    """What is accepted (bytes, seconds, Hz, channels) and how many seconds, taken from the middle, are analysed."""

    max_bytes: int = 64 * 2**20
    min_seconds: float = 0.5
    max_seconds: float = 3600.0
    min_rate: int = 1_000
    max_rate: int = 192_000
    max_channels: int = 8
    analysed_seconds: float = 60.0


DEFAULT_LIMITS = AudioLimits()


def load(source: Path | str | bytes, limits: AudioLimits = DEFAULT_LIMITS) -> tuple[NDArray[np.float32], int]:
    """Mono samples [n] (at most the middle `analysed_seconds`) and their rate in Hz.

    Raises an AudioError: NotAudio, Truncated, TooShort, TooLong, NonFinite. A missing file is an OSError.
    """
    data = source if isinstance(source, bytes) else _read(Path(source), limits.max_bytes)
    if len(data) > limits.max_bytes:
        raise TooLong(f"too long: {len(data)} bytes, at most {limits.max_bytes} are read")
    check_claims(data)
    samples, rate = _decode(data, limits)
    check_samples(samples)
    return samples, rate


def check_samples(samples: NDArray[np.float32]) -> None:
    """NonFinite where samples cannot be analysed, Silence where all are zero."""
    peak = float(np.abs(samples).max(initial=0.0))
    if not peak <= PEAK_LIMIT:
        raise NonFinite(f"samples must be finite and at most {PEAK_LIMIT:g} (full scale is 1), the peak is {peak:g}")
    if peak == 0:
        raise Silence("silence: every sample is zero")


def _read(path: Path, max_bytes: int) -> bytes:
    with path.open("rb") as file:
        return file.read(max_bytes + 1)


def _decode(data: bytes, limits: AudioLimits) -> tuple[NDArray[np.float32], int]:
    import soundfile

    try:
        with soundfile.SoundFile(BytesIO(data)) as file:
            _check_header(file, limits)
            return _middle(file, limits.analysed_seconds), int(file.samplerate)
    except soundfile.LibsndfileError as error:
        raise NotAudio(f"not audio that can be decoded: {error.error_string.strip()}") from error


def _check_header(file: Any, limits: AudioLimits) -> None:
    if file.format not in FORMATS:
        raise NotAudio(f"format {file.format} is not accepted, only {', '.join(sorted(FORMATS))}")
    if not limits.min_rate <= file.samplerate <= limits.max_rate:
        raise NotAudio(f"{file.samplerate} Hz is outside {limits.min_rate} to {limits.max_rate} Hz")
    if file.channels > limits.max_channels:
        raise NotAudio(f"{file.channels} channels, at most {limits.max_channels} are read")
    seconds = file.frames / file.samplerate
    if seconds < limits.min_seconds:
        raise TooShort(f"too short: {seconds:.2f} s, at least {limits.min_seconds:g} s are needed")
    if seconds > limits.max_seconds:
        raise TooLong(f"too long: {seconds:.0f} s, at most {limits.max_seconds:g} s are read")


def _middle(file: Any, analysed_seconds: float) -> NDArray[np.float32]:
    """The middle of the file, mixed to mono block by block, so that channels never multiply the memory."""
    wanted = min(file.frames, int(analysed_seconds * file.samplerate))
    if wanted < file.frames:
        file.seek((file.frames - wanted) // 2)
    mono = np.empty(wanted, dtype=np.float32)
    done = 0
    while done < wanted:
        block = file.read(min(BLOCK_FRAMES, wanted - done), dtype="float32", always_2d=True)
        if len(block) == 0:
            raise Truncated(f"truncated: {done} of {wanted} frames could be decoded")
        mono[done : done + len(block)] = block.mean(axis=1)
        done += len(block)
    return mono
