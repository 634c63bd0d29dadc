"""Records: keys, immutability, and the checks that types cannot express."""

from dataclasses import FrozenInstanceError, replace

import pytest

from streams.checks import check, check_id
from streams.records import (
    AudioUpload,
    Item,
    ModelVersion,
    Play,
    Reasons,
    Recommendation,
    Record,
    RecordError,
    Source,
    TrackFeature,
    TrackMetadata,
    UserProfile,
)

PLAY = Play("u1", "t1", 1187708111.0)
ITEM = Item("t2", 0.5, 1, Reasons("similar", "t1", 0.2, 0.3, 0.5))
MADE = Recommendation("u1", (ITEM,), "v1", 3, 2, 1, Source("plays", 0, 41, 1187708111.0, "t1"))


@pytest.mark.parametrize(
    ("record", "key"),
    [
        (PLAY, "u1"),
        (UserProfile("u1"), "u1"),
        (TrackMetadata("t1"), "t1"),
        (AudioUpload("t1", uri="file:///a.wav"), "t1"),
        (TrackFeature("t1", "audio"), "audio/t1"),
        (ModelVersion("v1"), "version/v1"),
        (ModelVersion("v1", channel="live", state="channel"), "channel/live"),
        (MADE, "u1"),
    ],
)
def test_keys(record: Record, key: str) -> None:
    check(record)
    assert record.key == key


def test_records_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        PLAY.user_id = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (replace(PLAY, user_id=""), "user_id is empty"),
        (replace(PLAY, track_id="a\nb"), "track_id 'a\\\\nb' contains a control character"),
        (replace(PLAY, user_id="é" * 513), "user_id has 1026 bytes"),
        (replace(PLAY, user_id="\ud800"), "user_id is not valid Unicode"),
        (replace(PLAY, played_at=float("nan")), "played_at is nan"),
        (replace(PLAY, played_at=-1.0), "from 1970 to 2200"),
        (replace(PLAY, played_at=1187708111000.0), "milliseconds"),
        (replace(PLAY, duration_played=-0.5), "duration_played is -0.5"),
        (replace(PLAY, duration_played=float("inf")), "duration_played is inf"),
        (UserProfile("u1", age=151), "age is 151"),
        (TrackMetadata("t1", artist_id=""), "artist_id is empty"),
        (TrackMetadata("t1", duration=float("nan")), "duration is nan"),
        (TrackMetadata("t1", release_year=20260), "release_year is 20260"),
        (AudioUpload("t1"), "exactly one"),
        (AudioUpload("t1", uri="file:///a", content=b"x"), "exactly one"),
        (AudioUpload("t1", uri="file:///a", sha256="abc"), "64 hexadecimal digits"),
        (TrackFeature("t1", "metadata", words=("a",)), "1 words but 0 word_fields"),
        (ModelVersion("v1", trained_through={"0": -1}), "trained_through\\[0\\] is -1"),
        (ModelVersion("v1", metrics={"hr": float("nan")}), "metrics\\[hr\\] is nan"),
        (replace(MADE, items=(replace(ITEM, score=float("nan")),)), "must be finite"),
        (replace(MADE, items=(replace(ITEM, reasons=Reasons("similar", audio=float("inf"))),)), "must be finite"),
        (replace(MADE, items=(replace(ITEM, rank=0),)), "items.rank is 0"),
        (replace(MADE, source=replace(MADE.source, offset=-1)), "source.offset is -1"),
    ],
)
def test_checks_name_the_field(record: Record, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        check(record)


@pytest.mark.parametrize("value", ["a", "é" * 512, "Sigur Rós", "日本", "a b", "\u200b", "x" * 1024])
def test_good_identities(value: str) -> None:
    check_id("user_id", value)


@pytest.mark.parametrize("value", ["\x00mark", "tab\t", "\x7f", "\x85", "x" * 1025])
def test_bad_identities(value: str) -> None:
    with pytest.raises(RecordError):
        check_id("user_id", value)
