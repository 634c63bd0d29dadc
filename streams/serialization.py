"""Records to bytes and back. The first byte says which encoding it is:

- `C3 01`: Avro single-object encoding, fingerprint of the schema in front (the default, no registry needed);
- `00`: Confluent's wire format, id of the schema in front (a Schema Registry is needed);
- `{`: JSON.

Older versions of a schema stay readable: their fingerprints are known, and Avro's resolution fills the new fields.
"""

import base64
import json
from io import BytesIO
from struct import Struct
from typing import Any, Protocol, TypeVar

from fastavro import schemaless_reader, schemaless_writer

import schemas
from streams import json_input
from streams.checks import check
from streams.datums import CODECS, Datum
from streams.records import Record, RecordError

R = TypeVar("R", bound=Record)
SINGLE_OBJECT = b"\xc3\x01"
CONFLUENT = b"\x00"
_ID = Struct(">I")


class DecodeError(RecordError):
    """Bytes that are not the record they should be; the message says what is wrong and what to do."""


class EncodeError(RecordError):
    """A record that may not be written; the message names the field."""


class Registry(Protocol):
    """Where schemas of Confluent-framed messages are looked up."""

    def schema(self, schema_id: int) -> dict[str, Any]:
        """The parsed Avro schema with this id; DecodeError where there is none."""
        ...


def encode(record: Record) -> bytes:
    """Avro single-object encoding of a record under the schema in force; EncodeError for a record that is not valid."""
    schema = CODECS[type(record)].schema
    return record_header(schema) + _write(schema, to_datum(record))


def record_header(schema: str) -> bytes:
    """What single-object encoding puts before a record of a named schema."""
    return SINGLE_OBJECT + schemas.fingerprint(schema)


def encode_confluent(record: Record, schema_id: int) -> bytes:
    """Confluent's wire format; `schema_id` is what the registry gave the schema in force."""
    return CONFLUENT + _ID.pack(schema_id) + _write(CODECS[type(record)].schema, to_datum(record))


def encode_json(record: Record) -> bytes:
    """One line of JSON, UTF-8; bytes become base64."""
    return json.dumps(to_datum(record), default=_base64, ensure_ascii=False, allow_nan=False).encode()


def to_datum(record: Record) -> Datum:
    """The record, checked, as plain dicts and lists; bytes stay bytes."""
    try:
        check(record)
        return CODECS[type(record)].to_datum(record)
    except RecordError as error:
        raise EncodeError(f"{type(record).__name__}: {error}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise EncodeError(f"{type(record).__name__}: a field has the wrong type: {error}") from error


def decode(cls: type[R], data: bytes, *, registry: Registry | None = None) -> R:
    """The record of class `cls` in `data`, whatever its encoding; DecodeError for anything that is not one."""
    codec = CODECS[cls]
    try:
        record: R = codec.from_datum(decode_datum(codec.schema, data, registry=registry))
        check(record)
    except DecodeError:
        raise
    except RecordError as error:
        raise DecodeError(f"{cls.__name__}: {error}") from None
    return record


def schema_named(value: bytes) -> str | None:
    """The schema that a value in single-object encoding names; None for other values and unknown schemas."""
    known = schemas.by_fingerprint(value[2:10]) if value.startswith(SINGLE_OBJECT) else None
    return None if known is None else known[0]


def encode_datum(schema: str, datum: Datum) -> bytes:
    """Single-object encoding of plain data under a named schema, for values that are not one of the records."""
    return record_header(schema) + _write(schema, datum)


def decode_datum(schema: str, data: bytes, *, registry: Registry | None = None) -> Datum:
    """Plain data of a named schema in `data`, not yet checked beyond types; DecodeError for anything else."""
    if data[:2] == SINGLE_OBJECT:
        return _single_object(schema, data)
    first = data[:1]
    if first == b"{":
        try:
            datum: Datum = json_input.read(schemas.raw(schema), json_input.parse(data))
        except RecordError as error:
            raise DecodeError(f"{schema}: {error}") from None
        return datum
    if first == CONFLUENT:
        return _confluent(schema, data, registry)
    if not data:
        raise DecodeError(f"{schema}: empty message; to delete, send a null value (a tombstone) instead")
    raise DecodeError(
        f"{schema}: message starts with 0x{data[:2].hex()}; expected Avro single-object encoding (c301), "
        "Confluent's wire format (00) or a JSON object ({)"
    )


def _single_object(schema: str, data: bytes) -> Datum:
    known = schemas.by_fingerprint(data[2:10])
    if known is None:
        raise DecodeError(
            f"{schema}: unknown schema fingerprint {data[2:10].hex() or '(none)'}; this program knows version "
            f"{schemas.fingerprint(schema).hex()} and those before it: upgrade it, or write with its schemas"
        )
    name, writer = known
    if name != schema:
        raise DecodeError(f"{schema}: message holds a {name}; it was sent to the wrong topic")
    return _read(schema, writer, data, 10)


def _confluent(schema: str, data: bytes, registry: Registry | None) -> Datum:
    if len(data) < 5:
        raise DecodeError(f"{schema}: truncated: {len(data)} bytes, but Confluent's wire format has a header of 5")
    if registry is None:
        raise DecodeError(
            f"{schema}: message is in Confluent's wire format, but no Schema Registry is configured: set registry_url"
        )
    return _read(schema, registry.schema(_ID.unpack_from(data, 1)[0]), data, 5)


def _read(schema: str, writer: dict[str, Any], data: bytes, start: int) -> Datum:
    stream = BytesIO(data)
    stream.seek(start)
    reader = schemas.load(schema)
    try:
        # Resolution costs time: without a reader schema where the writer's is the one in force.
        datum: Any = schemaless_reader(stream, writer, None if writer is reader else reader)
    except EOFError:
        raise DecodeError(f"{schema}: truncated: the message ends after {len(data)} bytes, inside a field") from None
    except UnicodeDecodeError:
        raise DecodeError(f"{schema}: a string is not UTF-8") from None
    except Exception as error:  # fastavro raises IndexError, OverflowError, MemoryError... on bytes that are not Avro
        raise DecodeError(f"{schema}: not Avro data of the schema it names: {error!r}") from error
    if stream.tell() != len(data):
        raise DecodeError(f"{schema}: {len(data) - stream.tell()} bytes left over after the record")
    if not isinstance(datum, dict):
        raise DecodeError(f"{schema}: the schema that the message names is not a record")
    return datum


def _write(schema: str, datum: Datum) -> bytes:
    stream = BytesIO()
    try:
        schemaless_writer(stream, schemas.load(schema), datum)
    except Exception as error:  # fastavro raises whatever the first operation on a wrong value raises
        raise EncodeError(f"{schema}: a field has the wrong type or range: {error}") from error
    return stream.getvalue()


def _base64(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} has no JSON form")
