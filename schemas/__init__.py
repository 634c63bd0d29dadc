"""The Avro schemas of every event, as package data, and their loader.

`<name>.avsc` is the version in force; `history/<name>/<n>.avsc` are the ones before it, whose bytes keep decoding.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, cast

from fastavro.schema import fingerprint as schema_fingerprint
from fastavro.schema import parse_schema, to_parsing_canonical_form

NAMES = (
    "play",
    "sealed_play",
    "user_profile",
    "track_metadata",
    "audio_upload",
    "track_feature",
    "model_version",
    "recommendation",
    "window",
    "user_history",
    "stored_profile",
)


@cache
def raw(name: str) -> dict[str, Any]:
    """The schema as written, documentation included; KeyError for a name that is not in NAMES."""
    if name not in NAMES:
        raise KeyError(f"no schema {name!r}; there are {', '.join(NAMES)}")
    return cast(dict[str, Any], json.loads(files(__name__).joinpath(f"{name}.avsc").read_text("utf-8")))


@cache
def load(name: str) -> dict[str, Any]:
    """The schema in force, parsed: what fastavro's readers and writers take."""
    return _parse(raw(name))


@cache
def history(name: str) -> tuple[dict[str, Any], ...]:
    """Earlier versions of a schema as written, oldest first; empty where there are none."""
    folder = files(__name__).joinpath("history", name)
    if not folder.is_dir():
        return ()
    versions = [path for path in folder.iterdir() if path.name.endswith(".avsc")]
    versions.sort(key=lambda path: int(path.name.removesuffix(".avsc")))
    return tuple(json.loads(path.read_text("utf-8")) for path in versions)


@cache
def fingerprint(name: str) -> bytes:
    """CRC-64-AVRO of the schema in force, 8 bytes little-endian, as single-object encoding carries it."""
    return fingerprint_of(raw(name))


def fingerprint_of(schema: dict[str, Any]) -> bytes:
    """CRC-64-AVRO of a schema's parsing canonical form, 8 bytes little-endian.

    >>> fingerprint_of({"type": "int"}).hex()  # Avro's own test vector: 0x7275d51a3f395c8f
    '8f5c393f1ad57572'
    """
    return bytes.fromhex(schema_fingerprint(to_parsing_canonical_form(_parse(schema)), "CRC-64-AVRO"))


def by_fingerprint(crc: bytes) -> tuple[str, dict[str, Any]] | None:
    """Name and parsed schema of the version, past or in force, with this fingerprint; None where unknown."""
    return _versions().get(crc)


@cache
def _versions() -> Mapping[bytes, tuple[str, dict[str, Any]]]:
    """Every version of every schema: fingerprint to (name, parsed schema)."""
    known = {}
    for name in NAMES:
        for version in history(name):
            known[fingerprint_of(version)] = (name, _parse(version))
        known[fingerprint(name)] = (name, load(name))
    return MappingProxyType(known)


def _parse(schema: dict[str, Any]) -> dict[str, Any]:
    return cast(dict[str, Any], parse_schema(schema))
