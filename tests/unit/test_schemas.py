"""The schemas: documented, evolvable, and fingerprinted as the Avro specification says."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastavro.schema import parse_schema

import schemas


def named_parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Every record and every field inside a schema."""
    if isinstance(schema, list):
        for part in schema:
            yield from named_parts(part)
    elif isinstance(schema, dict):
        if schema["type"] == "record":
            yield schema
            for field in schema["fields"]:
                yield field
                yield from named_parts(field["type"])
        yield from named_parts(schema.get("items"))


@pytest.mark.parametrize("name", schemas.NAMES)
def test_every_record_and_field_is_documented(name: str) -> None:
    parts = list(named_parts(schemas.raw(name)))
    assert len(parts) > 3
    assert [part["name"] for part in parts if not part.get("doc")] == []


@pytest.mark.parametrize("name", schemas.NAMES)
def test_nullable_fields_default_to_null(name: str) -> None:
    nullable = [part for part in named_parts(schemas.raw(name)) if isinstance(part.get("type"), list)]
    assert [part["name"] for part in nullable if part["type"][0] != "null" or part.get("default", 0) is not None] == []


@pytest.mark.parametrize("name", schemas.NAMES)
def test_versions_are_fully_transitive(name: str) -> None:
    """Adding or removing a field between any two versions needs a default, in both directions."""
    versions = [*schemas.history(name), schemas.raw(name)]
    for one in versions:
        for other in versions:
            names = {field["name"]: field["type"] for field in other["fields"]}
            for field in one["fields"]:
                if field["name"] in names:
                    assert field["type"] == names[field["name"]]
                else:
                    assert "default" in field


def test_play_has_a_genuine_history() -> None:
    (first,) = schemas.history("play")
    assert "source" not in {field["name"] for field in first["fields"]}
    print_ = schemas.fingerprint_of(first)
    assert print_ != schemas.fingerprint("play")
    known = schemas.by_fingerprint(print_)
    assert known is not None and known[0] == "play"


def test_fingerprint_is_little_endian_crc_64_avro() -> None:
    # share/test/data/schema-tests.txt of Apache Avro: "int" has fingerprint 8247732601305521295 = 0x7275d51a3f395c8f.
    assert schemas.fingerprint_of({"type": "int"}) == (8247732601305521295).to_bytes(8, "little")


def test_fingerprints_are_distinct_and_known() -> None:
    prints = {schemas.fingerprint(name) for name in schemas.NAMES}
    assert len(prints) == len(schemas.NAMES)
    for name in schemas.NAMES:
        assert schemas.by_fingerprint(schemas.fingerprint(name)) == (name, schemas.load(name))
    assert schemas.by_fingerprint(b"\0" * 8) is None


def test_embedded_track_metadata_is_the_same_schema() -> None:
    alone = schemas.raw("track_metadata")
    (field,) = [field for field in schemas.raw("track_feature")["fields"] if field["name"] == "metadata"]
    assert field["type"][1] == {key: value for key, value in alone.items() if key != "namespace"}
    assert parse_schema(field["type"][1] | {"namespace": "msam.v1"}) == schemas.load("track_metadata")


def test_unknown_name() -> None:
    with pytest.raises(KeyError, match="no schema 'nope'"):
        schemas.raw("nope")
