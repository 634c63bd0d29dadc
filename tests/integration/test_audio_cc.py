"""Real recordings, and files that are none, through `msam publish audio`: a feature or a dead letter for each."""

import hashlib
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np

from msam.features.audio import AUDIO_GROUPS, AUDIO_VERSION, AUDIO_WIDTH
from streams.records import AudioUpload, TrackFeature
from streams.serialization import decode, encode
from streams.topics import AUDIO_UPLOADS, DEAD_LETTERS, TRACK_FEATURES
from tests.integration.system import System
from tests.integration.taps import PREFIX, Tap, headers_of, key_of
from tests.integration.workers import Worker

KINDS = {".wav", ".ogg"}


def outcomes(tap: Tap) -> dict[str, list[TrackFeature | str]]:
    """By track: its audio feature, or the reason of its dead letter."""
    found: dict[str, list[TrackFeature | str]] = {}
    for message in tap.messages:
        key = (key_of(message) or b"").decode()
        if message.topic() == TRACK_FEATURES and key.startswith("audio/"):
            found.setdefault(key.removeprefix("audio/"), []).append(decode(TrackFeature, message.value() or b""))
        elif message.topic() == DEAD_LETTERS and headers_of(message)[f"{PREFIX}topic"] == AUDIO_UPLOADS.encode():
            found.setdefault(key, []).append(headers_of(message)[f"{PREFIX}message"].decode())
    return found


def wait_for(tap: Tap, tracks: set[str], worker: Worker, timeout: float) -> dict[str, TrackFeature | str]:
    """Exactly one outcome for each track."""

    def missing() -> list[str]:
        assert worker.process.poll() is None, worker.tail()
        return sorted(tracks - outcomes(tap).keys())

    tap.until(lambda: not missing(), lambda: f"nothing for {missing()}; {worker.tail()}", timeout)
    found = {track: many for track, many in outcomes(tap).items() if track in tracks}
    assert {track: len(many) for track, many in found.items() if len(many) != 1} == {}
    return {track: many[0] for track, many in found.items()}


def test_every_file_of_audio_cc(system: System, worker: Worker, data_dir: Path) -> None:
    folder = data_dir / "audio_cc"
    files = {path.stem: path for path in folder.iterdir() if path.suffix in KINDS}
    assert len(files) >= 50
    with Tap(system.config, TRACK_FEATURES, DEAD_LETTERS) as tap:
        assert system.ask("publish", "audio", str(folder))["published"] == len(files)
        found = wait_for(tap, set(files), worker, 200)
    features = {track: f for track, f in found.items() if isinstance(f, TrackFeature)}
    reasons = {track: r for track, r in found.items() if isinstance(r, str)}
    assert len(features) >= 45, reasons
    assert "impulse-response" in reasons, "a tenth of a second is too short"
    assert "too short" in reasons["impulse-response"] and all(reasons.values()), reasons
    seen: dict[bytes, set[bytes]] = {}
    for track, feature in features.items():
        assert feature.audio_version == AUDIO_VERSION and feature.metadata is None
        values = np.frombuffer(feature.audio or b"", "<f4").reshape(len(AUDIO_GROUPS), AUDIO_WIDTH)
        assert np.isfinite(values).all() and values.any(), track
        seen.setdefault(values.tobytes(), set()).add(files[track].read_bytes())
    assert all(len(sounds) == 1 for sounds in seen.values()), "different recordings have different descriptors"


def tone(path: Path, seconds: float = 3.0) -> bytes:
    """A real WAV file of a tone with vibrato."""
    t = np.arange(int(22050 * seconds)) / 22050
    samples = (0.4 * np.sin(2 * np.pi * 440 * t + 3 * np.sin(2 * np.pi * 5 * t)) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(22050)
        file.writeframes(samples.tobytes())
    return path.read_bytes()


def test_what_is_no_sound(system: System, worker: Worker, audio_folder: Path, tmp_path: Path) -> None:
    whole = tone(audio_folder / "audio-good.wav")
    claims = bytearray(whole[:44]) + whole[44:1044]
    struct.pack_into("<I", claims, 4, 2**30 + 36)
    struct.pack_into("<I", claims, 40, 2**30)
    files = {
        "audio-truncated": whole[: len(whole) // 3],
        "audio-head-only": whole[:44],
        "audio-half-head": whole[:21],
        "audio-text": b"This is a text that somebody named .wav.\n" * 500,
        "audio-empty": b"",
        "audio-claims-1gb": bytes(claims),
        "audio-silence": whole[:44] + bytes(len(whole) - 44),
        "audio-zeros": bytes(100_000),
        "audio-cut-ogg": b"OggS" + bytes(60) + b"\xff" * 4000,
    }
    for name, data in files.items():
        (audio_folder / f"{name}.wav").write_bytes(data)
    outside = tmp_path / "audio-outside.wav"
    outside.write_bytes(whole)
    (audio_folder / "audio-link.wav").symlink_to(outside)
    refused = {
        "audio-link": "outside",
        "audio-outside": "outside",
        "audio-dots": "refused",
        "audio-remote": "refused",
        "audio-missing": "cannot be opened",
        "audio-other-sum": "SHA-256",
        "audio-both": "either uri or content",
    }
    inside = audio_folder.as_uri()
    uploads: list[dict[str, Any]] = [
        {"track_id": "audio-outside", "uri": outside.as_uri()},
        {"track_id": "audio-dots", "uri": f"{inside}/../{tmp_path.name}/audio-outside.wav"},
        {"track_id": "audio-remote", "uri": "http://127.0.0.1:1/audio-good.wav"},
        {"track_id": "audio-missing", "uri": f"{inside}/nothing-here.wav"},
        {"track_id": "audio-other-sum", "uri": f"{inside}/audio-good.wav", "sha256": "0" * 64},
    ]
    with Tap(system.config, TRACK_FEATURES, DEAD_LETTERS) as tap:
        published = system.ask("publish", "audio", str(audio_folder))["published"]
        assert published == len(files) + 2, "the good one and the link too"
        for upload in uploads:
            record = AudioUpload(**upload)
            system.sender.send(AUDIO_UPLOADS, record.track_id.encode(), encode(record))
        both = b'{"track_id": "audio-both", "uri": "file:///a.wav", "content": "UklGRg=="}'
        system.sender.send(AUDIO_UPLOADS, b"audio-both", both)
        inline = AudioUpload("audio-inline", sha256=hashlib.sha256(whole).hexdigest(), content=whole)
        system.sender.send(AUDIO_UPLOADS, b"audio-inline", encode(inline))
        system.sender.flush()
        found = wait_for(tap, {*files, *refused, "audio-good", "audio-inline"}, worker, 90)
    good, again = found["audio-good"], found["audio-inline"]
    assert isinstance(good, TrackFeature) and isinstance(again, TrackFeature), (good, again)
    assert good.audio == again.audio, "by reference and inline are one sound"
    wrong = {track: one for track, one in found.items() if track not in ("audio-good", "audio-inline")}
    described = [track for track, one in wrong.items() if isinstance(one, TrackFeature)]
    assert not described, f"described as if they were sound: {described}"
    for track, words in refused.items():
        assert words in str(wrong[track]), wrong[track]
    assert all(len(str(reason)) > 10 for reason in wrong.values()), wrong
    assert worker.get("/health/live") == (200, {"status": "live"})
    assert worker.get("/health/ready")[0] == 200
