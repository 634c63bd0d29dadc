"""Codecs under hypothesis: every record survives every encoding; no bytes raise anything but DecodeError."""

import json
from typing import Any
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

import schemas
from streams.datums import CODECS
from streams.records import (
    AudioUpload,
    Item,
    ModelVersion,
    Play,
    Reasons,
    Recommendation,
    Record,
    SealedPlay,
    Source,
    TrackFeature,
    TrackMetadata,
    UserProfile,
)
from streams.serialization import DecodeError, decode, encode, encode_confluent, encode_json

texts = st.text(st.characters(codec="utf-8"), max_size=20)
ids = st.text(st.characters(codec="utf-8").filter(lambda c: category(c) != "Cc"), min_size=1, max_size=20)
times = st.floats(0.0, 7258118399.0)
numbers = st.floats(0.0, 1e6)
scores = st.floats(-1e6, 1e6)
longs = st.integers(0, 2**63 - 1)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
vectors = st.none() | st.binary(max_size=64)


def maybe(strategy: st.SearchStrategy[str]) -> st.SearchStrategy[str | None]:
    """The strategy, or None."""
    return st.none() | strategy


def tuples(strategy: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, ...]]:
    """Short tuples."""
    return st.lists(strategy, max_size=4).map(tuple)


metadata = st.builds(
    TrackMetadata,
    track_id=ids,
    title=maybe(texts),
    artist_id=maybe(ids),
    artist=maybe(texts),
    album_id=maybe(ids),
    album=maybe(texts),
    labels=tuples(texts),
    duration=st.none() | numbers,
    release_year=st.none() | st.integers(0, 9999),
)


def feature(words: list[tuple[str, int]], **rest: Any) -> TrackFeature:
    """A feature with as many word_fields as words."""
    return TrackFeature(words=tuple(word for word, _ in words), word_fields=tuple(field for _, field in words), **rest)


features = st.builds(
    feature,
    words=st.lists(st.tuples(texts, st.integers(0, 2)), max_size=4),
    track_id=ids,
    part=st.sampled_from(["metadata", "audio", "sighting"]),
    metadata=st.none() | metadata,
    word_vectors=vectors,
    encoder=maybe(texts),
    audio=vectors,
    audio_version=maybe(texts),
    factor=vectors,
    simf_version=maybe(texts),
    users=tuples(ids),
)
items = st.builds(
    Item,
    track_id=ids,
    score=scores,
    rank=st.integers(1, 1000),
    reasons=st.builds(
        Reasons,
        kind=st.sampled_from(["repeat", "artist", "similar", "discovery"]),
        because=maybe(ids),
        audio=scores,
        text=scores,
        sequence=scores,
        audio_group=maybe(texts),
        word=maybe(texts),
    ),
)
records: st.SearchStrategy[Record] = st.one_of(
    st.builds(Play, ids, ids, times, st.none() | numbers, maybe(texts)),
    st.builds(
        SealedPlay,
        ids,
        st.text("abcXYZ019._-", min_size=1, max_size=64),
        st.binary(min_size=12, max_size=12),
        st.binary(min_size=16, max_size=99),
    ),
    st.builds(UserProfile, ids, maybe(texts), st.none() | st.integers(0, 150), maybe(texts)),
    metadata,
    st.builds(AudioUpload, ids, texts, st.none() | digests, st.none(), maybe(texts)),
    st.builds(AudioUpload, ids, st.none(), st.none() | digests, st.binary(max_size=64), maybe(texts)),
    features,
    st.builds(
        ModelVersion,
        version=ids,
        channel=maybe(ids),
        parent=maybe(ids),
        uri=maybe(texts),
        sha256=st.none() | digests,
        created_at=st.none() | times,
        trained_through=st.dictionaries(st.integers(0, 99).map(str), longs, max_size=4),
        metrics=st.dictionaries(texts, scores, max_size=4),
        state=st.sampled_from(["accepted", "refused", "channel"]),
        reason=maybe(texts),
    ),
    st.builds(
        Recommendation,
        user_id=ids,
        items=st.lists(items, max_size=3).map(tuple),
        model_version=ids,
        catalogue_version=longs,
        counts_version=longs,
        profile_version=longs,
        source=st.builds(Source, ids, st.integers(0, 2**31 - 1), longs, times, ids),
    ),
)


class OwnRegistry:
    """A registry whose ids are places in schemas.NAMES."""

    def schema(self, schema_id: int) -> dict[str, object]:
        """The schema in force."""
        if schema_id >= len(schemas.NAMES):
            raise DecodeError(f"there is no schema {schema_id}")
        return schemas.load(schemas.NAMES[schema_id])


@given(records)
def test_round_trip_in_every_encoding(record: Record) -> None:
    cls = type(record)
    number = schemas.NAMES.index(CODECS[cls].schema)
    assert decode(cls, encode(record)) == record
    assert decode(cls, encode_json(record)) == record
    assert decode(cls, encode_confluent(record, number), registry=OwnRegistry()) == record
    assert encode(decode(cls, encode(record))) == encode(record), "same record, same bytes"


@pytest.mark.parametrize("cls", list(CODECS))
@given(head=st.sampled_from(["own", "confluent", "json", "none"]), body=st.binary(max_size=80))
def test_no_bytes_raise_anything_but_decode_error(cls: type[Record], head: str, body: bytes) -> None:
    name = CODECS[cls].schema
    heads = {
        "own": b"\xc3\x01" + schemas.fingerprint(name),
        "confluent": b"\x00" + schemas.NAMES.index(name).to_bytes(4, "big"),
        "json": b"{",
        "none": b"",
    }
    try:
        record = decode(cls, heads[head] + body, registry=OwnRegistry())
    except DecodeError as error:
        assert str(error)
    else:
        assert decode(cls, encode(record)) == record, "what is accepted can be written again"


@given(records, st.data())
def test_damaged_records_never_crash(record: Record, data: st.DataObject) -> None:
    """One byte changed, or a piece cut off: it is another valid record or a DecodeError."""
    good = encode(record)
    place = data.draw(st.integers(0, len(good) - 1))
    cut = good[:place]
    with pytest.raises(DecodeError):
        decode(type(record), cut)
    broken = cut + bytes([data.draw(st.integers(0, 255))]) + good[place + 1 :]
    try:
        decode(type(record), broken)
    except DecodeError as error:
        assert str(error)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("cls", list(CODECS))
@given(data=st.data())
def test_json_of_the_wrong_types(cls: type[Record], data: st.DataObject) -> None:
    names = [field["name"] for field in schemas.raw(CODECS[cls].schema)["fields"]]
    value = data.draw(st.fixed_dictionaries({}, optional={name: json_values for name in names}))
    try:
        decode(cls, json.dumps(value).encode())
    except DecodeError as error:
        assert str(error)
