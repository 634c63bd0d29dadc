"""JSON messages checked against an Avro schema: strict types, unknown fields ignored, errors name the field.

Differences from Avro's own JSON encoding, for people who type: a nullable value is written plainly (no
`{"string": ...}` around it) and bytes are base64.
"""

import base64
import binascii
import json
from collections.abc import Callable
from math import isfinite
from typing import Any, NoReturn

from streams.checks import INT_MAX, LONG_MAX
from streams.records import RecordError

Schema = Any  # a schema as `schemas.raw` gives it: a name, a union (list) or an object


def parse(data: bytes) -> dict[str, Any]:
    """The JSON object in UTF-8 bytes; RecordError where it is not one."""
    try:
        value = json.loads(data.decode(), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise RecordError(f"JSON is not UTF-8 (byte {error.start}); encode it as UTF-8") from None
    except RecursionError:
        raise RecordError("JSON is nested too deeply") from None
    except ValueError as error:
        raise RecordError(f"not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise RecordError("JSON message is not an object")
    return value


def read(schema: Schema, value: Any, path: str = "") -> Any:
    """The Avro datum that a JSON value means under a schema; RecordError names the field at `path`."""
    if isinstance(schema, list):
        return None if value is None else read(next(kind for kind in schema if kind != "null"), value, path)
    if isinstance(schema, dict):
        kind = schema["type"]
        return _COMPOUND[kind](schema, value, path) if kind in _COMPOUND else read(kind, value, path)
    return _PRIMITIVE[schema](value, path)


def _record(schema: dict[str, Any], value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _wrong(path, "an object", value)
    datum = {}
    for field in schema["fields"]:
        name = field["name"]
        inner = f"{path}.{name}" if path else name
        if name in value:
            datum[name] = read(field["type"], value[name], inner)
        elif "default" in field:
            datum[name] = field["default"]
        else:
            raise RecordError(f"field {inner} is missing; it is required")
    return datum


def _array(schema: dict[str, Any], value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        _wrong(path, "an array", value)
    return [read(schema["items"], item, f"{path}[{i}]") for i, item in enumerate(value)]


def _map(schema: dict[str, Any], value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _wrong(path, "an object", value)
    return {_string(key, path): read(schema["values"], item, f"{path}[{key}]") for key, item in value.items()}


def _string(value: Any, path: str) -> str:
    if not isinstance(value, str):
        _wrong(path, "a string", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RecordError(f"field {path} is not valid Unicode (a lone surrogate); send UTF-8") from None
    return value


def _bytes(value: Any, path: str) -> bytes:
    if not isinstance(value, str):
        _wrong(path, "base64 text", value)
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RecordError(f"field {path} is not base64: {error}") from None


def _double(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _wrong(path, "a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if not isfinite(number):
        raise RecordError(f"field {path} is too large for a number")
    return number


def _whole(limit: int) -> Callable[[Any, str], int]:
    def convert(value: Any, path: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            _wrong(path, "a whole number", value)
        if not -limit - 1 <= value <= limit:
            raise RecordError(f"field {path} is out of range: from {-limit - 1} to {limit}")
        return value

    return convert


def _wrong(path: str, expected: str, value: Any) -> NoReturn:
    found = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    raise RecordError(f"field {path} must be {expected}, but is {found.get(type(value), 'a number')}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number; send a finite number or null")


_COMPOUND: dict[str, Callable[[dict[str, Any], Any, str], Any]] = {"record": _record, "array": _array, "map": _map}
_PRIMITIVE: dict[str, Callable[[Any, str], Any]] = {
    "string": _string,
    "bytes": _bytes,
    "double": _double,
    "int": _whole(INT_MAX),
    "long": _whole(LONG_MAX),
}
