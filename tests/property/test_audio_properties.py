"""Descriptors are finite, or a clear error, for any signal."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from msam.features.audio import AudioError, describe, describe_bytes

KINDS = ("noise", "impulse", "square", "burst", "alternating")


def signal(kind: str, length: int, gain: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    samples = np.zeros(length)
    if kind == "noise":
        samples = rng.normal(size=length)
    elif kind == "impulse":
        samples[int(rng.integers(length))] = 1
    elif kind == "square":
        samples = np.sign(np.sin(np.arange(length) * rng.uniform(0.001, 3)))
    elif kind == "burst":
        samples[: length // 7] = rng.normal(size=length // 7)
    else:
        samples = (-1.0) ** np.arange(length)
    return (samples * gain).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.integers(1, 60_000),
    st.floats(-9, 7),
    st.sampled_from([1_000, 8_000, 22_050, 44_100]),
    st.integers(0, 2**32 - 1),
)
def test_any_signal(kind: str, length: int, exponent: float, rate: int, seed: int) -> None:
    samples = signal(kind, length, 10.0**exponent, seed)
    try:
        table = describe(samples, rate)
    except AudioError as error:
        assert error.reason in {"too-short", "silence", "non-finite"}
        return
    assert np.isfinite(table).all()
    assert np.abs(table).max() <= 10


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"RIFF\x00\x00\x00\x00WAVE", b"OggS", b"fLaC", b"ID3", b"FORM"]))
def test_any_bytes(data: bytes, magic: bytes) -> None:
    try:
        describe_bytes(magic + data)
    except AudioError as error:
        assert error.reason in {"not-audio", "truncated", "too-short", "silence", "non-finite", "too-long"}
