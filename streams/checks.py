"""What the types of a record cannot say: identities, ranges, finite numbers. Raised as RecordError naming the field."""

import re
from collections.abc import Callable
from math import isfinite
from typing import Any
from unicodedata import category

from streams.records import (
    AudioUpload,
    ModelVersion,
    Play,
    Recommendation,
    RecordError,
    SealedPlay,
    TrackFeature,
    TrackMetadata,
    UserProfile,
)

ID_BYTES = 1024
YEAR_2200 = 7258118400.0
INT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def check_id(name: str, value: str) -> None:
    """An identity is not empty, at most ID_BYTES of UTF-8 and free of control characters."""
    if not value:
        raise RecordError(f"{name} is empty; an identity needs at least one character")
    if value.isascii() and value.isprintable() and len(value) <= ID_BYTES:
        return
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise RecordError(f"{name} is not valid Unicode (a lone surrogate); send UTF-8") from None
    if size > ID_BYTES:
        raise RecordError(f"{name} has {size} bytes; at most {ID_BYTES} are allowed")
    if any(category(char) == "Cc" for char in value):
        raise RecordError(f"{name} {value!r} contains a control character; remove it")


def check_time(name: str, value: float) -> None:
    """A time is in Unix seconds, finite, from 1970 to 2200."""
    if 0.0 <= value < YEAR_2200:
        return
    if not isfinite(value):
        raise RecordError(f"{name} is {value}; it must be a finite number of Unix seconds")
    hint = " (milliseconds? divide by 1000)" if YEAR_2200 <= value < YEAR_2200 * 1000 else ""
    raise RecordError(f"{name} is {value!r}; it must be Unix seconds from 1970 to 2200{hint}")


def check_finite(name: str, value: float, low: float | None = None) -> None:
    """A number is finite and, where `low` is given, not below it."""
    if not isfinite(value):
        raise RecordError(f"{name} is {value}; it must be a finite number")
    if low is not None and value < low:
        raise RecordError(f"{name} is {value!r}; it must not be below {low:g}")


def check_whole(name: str, value: int, low: int, high: int) -> None:
    """A whole number lies in [low, high]."""
    if not low <= value <= high:
        raise RecordError(f"{name} is {value}; it must be from {low} to {high}")


def check(record: object) -> None:
    """Raise RecordError, naming the field, unless the record may be written and read."""
    _CHECKS[type(record)](record)


def _play(play: Play) -> None:
    check_id("user_id", play.user_id)
    check_id("track_id", play.track_id)
    check_time("played_at", play.played_at)
    if play.duration_played is not None:
        check_finite("duration_played", play.duration_played, 0.0)


def _sealed(sealed: SealedPlay) -> None:
    check_id("user_id", sealed.user_id)
    if not _KEY_ID.fullmatch(sealed.key_id):
        raise RecordError(f"key_id {sealed.key_id!r} is not 1 to 64 letters, digits, dots, dashes and underscores")
    if len(sealed.nonce) != 12:
        raise RecordError(f"nonce has {len(sealed.nonce)} bytes; it must have 12")
    if len(sealed.ciphertext) < 16:
        raise RecordError(f"ciphertext has {len(sealed.ciphertext)} bytes; its tag alone has 16")


def _profile(profile: UserProfile) -> None:
    check_id("user_id", profile.user_id)
    if profile.age is not None:
        check_whole("age", profile.age, 0, 150)


def _metadata(track: TrackMetadata) -> None:
    check_id("track_id", track.track_id)
    for name in ("artist_id", "album_id"):
        value = getattr(track, name)
        if value is not None:
            check_id(name, value)
    if track.duration is not None:
        check_finite("duration", track.duration, 0.0)
    if track.release_year is not None:
        check_whole("release_year", track.release_year, 0, 9999)


def _upload(upload: AudioUpload) -> None:
    check_id("track_id", upload.track_id)
    if (upload.uri is None) == (upload.content is None):
        raise RecordError("an audio upload has either uri or content: send exactly one of them")
    _digest(upload.sha256)


def _digest(sha256: str | None) -> None:
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise RecordError(f"sha256 {sha256!r} is not 64 hexadecimal digits")


def _feature(feature: TrackFeature) -> None:
    check_id("track_id", feature.track_id)
    check_id("part", feature.part)
    if feature.metadata is not None:
        _metadata(feature.metadata)
    if len(feature.words) != len(feature.word_fields):
        raise RecordError(f"{len(feature.words)} words but {len(feature.word_fields)} word_fields; one each is needed")
    for value in feature.word_fields:
        check_whole("word_fields", value, 0, INT_MAX)
    for user in feature.users:
        check_id("users", user)


def _model(model: ModelVersion) -> None:
    check_id("version", model.version)
    check_id("state", model.state)
    if model.channel is not None:
        check_id("channel", model.channel)
    if model.created_at is not None:
        check_time("created_at", model.created_at)
    for partition, offset in model.trained_through.items():
        check_whole(f"trained_through[{partition}]", offset, 0, LONG_MAX)
    for name, value in model.metrics.items():
        check_finite(f"metrics[{name}]", value)
    _digest(model.sha256)


def _recommendation(made: Recommendation) -> None:
    check_id("user_id", made.user_id)
    check_id("model_version", made.model_version)
    for item in made.items:
        reasons = item.reasons
        check_id("items.track_id", item.track_id)
        # A sum is finite only if its terms are (or cancel no infinity): one test instead of four.
        if not isfinite(item.score + reasons.audio + reasons.text + reasons.sequence):
            raise RecordError(f"item {item.rank} ({item.track_id}): score and weights must be finite numbers")
        check_whole("items.rank", item.rank, 1, INT_MAX)
    source = made.source
    check_id("source.topic", source.topic)
    check_id("source.track_id", source.track_id)
    check_time("source.played_at", source.played_at)
    check_whole("source.partition", source.partition, 0, INT_MAX)
    check_whole("source.offset", source.offset, 0, LONG_MAX)


_CHECKS: dict[type, Callable[[Any], None]] = {
    Play: _play,
    SealedPlay: _sealed,
    UserProfile: _profile,
    TrackMetadata: _metadata,
    AudioUpload: _upload,
    TrackFeature: _feature,
    ModelVersion: _model,
    Recommendation: _recommendation,
}
