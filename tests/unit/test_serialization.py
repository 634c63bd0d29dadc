"""Bytes: known encodings, every way they can be wrong, old versions, a registry over real HTTP."""

import json
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

import pytest
from fastavro import schemaless_writer
from fastavro.schema import parse_schema

import schemas
from streams.errors import ConfigError
from streams.records import AudioUpload, Play, TrackMetadata, UserProfile
from streams.registry import HttpRegistry, RegistryUnavailable
from streams.serialization import DecodeError, EncodeError, decode, encode, encode_confluent, encode_json

PLAY = Play("u1", "t1", 1187708111.0, 30.5, "app")


def avro(schema: dict[str, Any], datum: dict[str, Any]) -> bytes:
    """The bare Avro bytes of a datum."""
    out = BytesIO()
    schemaless_writer(out, parse_schema(schema), datum)
    return out.getvalue()


def test_single_object_bytes_by_hand() -> None:
    # zig-zag lengths 2 -> 0x04, double little-endian, union branch 1 -> 0x02
    body = b"\x04u1\x04t1" + struct.pack("<d", 1187708111.0) + b"\x02" + struct.pack("<d", 30.5) + b"\x02\x06app"
    assert encode(PLAY) == b"\xc3\x01" + schemas.fingerprint("play") + body
    assert encode_confluent(PLAY, 258) == b"\x00\x00\x00\x01\x02" + body


def test_json_by_hand() -> None:
    assert json.loads(encode_json(PLAY)) == {
        "user_id": "u1",
        "track_id": "t1",
        "played_at": 1187708111.0,
        "duration_played": 30.5,
        "source": "app",
    }
    assert json.loads(encode_json(AudioUpload("t1", content=b"\x00\xff")))["content"] == "AP8="


def test_bytes_of_the_version_before_still_decode() -> None:
    (first,) = schemas.history("play")
    datum = {"user_id": "u1", "track_id": "t1", "played_at": 5.0, "duration_played": None}
    assert decode(Play, b"\xc3\x01" + schemas.fingerprint_of(first) + avro(first, datum)) == Play("u1", "t1", 5.0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty message"),
        (b"hello", "starts with 0x6865"),
        (b"\xc3", "starts with 0xc3"),
        (b"\xc3\x01", r"unknown schema fingerprint \(none\)"),
        (b"\xc3\x01" + b"\x11" * 8, "unknown schema fingerprint 1111111111111111"),
        (encode(UserProfile("u1")), "holds a user_profile"),
        (encode(PLAY)[:-1], "truncated"),
        (encode(PLAY)[:12], "truncated"),
        (encode(PLAY) + b"x", "1 bytes left over"),
        (encode(PLAY).replace(b"\x06app", b"\x06\xffpp"), "not UTF-8"),
        (encode(PLAY).replace(struct.pack("<d", 30.5), struct.pack("<d", float("nan"))), "duration_played is nan"),
        (encode(PLAY).replace(struct.pack("<d", 1187708111.0), struct.pack("<d", 1e300)), "1970 to 2200"),
        (encode(PLAY).replace(b"\x04u1", b"\x04\x00\x01"), "control character"),
        (b"\x00\x00\x00", "truncated: 3 bytes"),
        (encode_confluent(PLAY, 1), "no Schema Registry is configured"),
    ],
)
def test_wrong_bytes_say_what_is_wrong(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        decode(Play, data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"user_id": "u1", "track_id": "t1"}', "field played_at is missing"),
        ('{"user_id": 1, "track_id": "t1", "played_at": 5}', "field user_id must be a string, but is a number"),
        ('{"user_id": null, "track_id": "t1", "played_at": 5}', "field user_id must be a string, but is null"),
        (
            '{"user_id": "u1", "track_id": "t1", "played_at": true}',
            "must be a number, but is a boolean",
        ),
        ('{"user_id": "u1", "track_id": "t1", "played_at": "5"}', "field played_at must be a number, but is a string"),
        ('{"user_id": "u1", "track_id": "t1", "played_at": NaN}', "NaN is not a JSON number"),
        ('{"user_id": "u1", "track_id": "t1", "played_at": 1e999}', "field played_at is too large"),
        ('{"user_id": "u1", "track_id": "t1", "played_at": 1' + "0" * 400 + "}", "field played_at is too large"),
        ('{"user_id": "u1", "track_id": "t1", "played_at": 1' + "0" * 5000 + "}", "not valid JSON"),
        ('{"user_id": "\\ud800", "track_id": "t1", "played_at": 5}', "lone surrogate"),
        ('{"user_id": "u1", "track_id": "t1", "played_at": 5, "source": []}', "field source must be a string"),
        ('{"user_id": "u1"', "not valid JSON"),
        ('{"user_id": "u1", "track_id": "t1", "played_at": 5} x', "not valid JSON"),
        ('{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_wrong_json_names_the_field(text: str, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        decode(Play, text.encode())


def test_json_is_utf8() -> None:
    with pytest.raises(DecodeError, match="not UTF-8"):
        decode(Play, b'{"user_id": "\xff"}')


def test_json_takes_whole_seconds_and_ignores_unknown_fields() -> None:
    text = b'{"user_id": "u1", "track_id": "t1", "played_at": 5, "mood": "calm"}'
    play = decode(Play, text)
    assert play == Play("u1", "t1", 5.0) and isinstance(play.played_at, float)


def test_json_of_nested_types() -> None:
    assert decode(TrackMetadata, b'{"track_id": "t1", "labels": ["a", "b"]}').labels == ("a", "b")
    with pytest.raises(DecodeError, match=r"field labels\[1\] must be a string"):
        decode(TrackMetadata, b'{"track_id": "t1", "labels": ["a", 1]}')
    with pytest.raises(DecodeError, match="release_year is out of range"):
        decode(TrackMetadata, b'{"track_id": "t1", "release_year": 3000000000}')
    with pytest.raises(DecodeError, match="release_year must be a whole number"):
        decode(TrackMetadata, b'{"track_id": "t1", "release_year": 1999.0}')
    with pytest.raises(DecodeError, match="content is not base64"):
        decode(AudioUpload, b'{"track_id": "t1", "content": "??"}')


@pytest.mark.parametrize(
    "play",
    [Play("", "t1", 5.0), Play("u1", "t1", float("nan")), Play("u1", "t1", 5.0, source=3)],  # type: ignore[arg-type]
)
def test_an_invalid_record_is_not_written(play: Play) -> None:
    with pytest.raises(EncodeError):
        encode(play)


class Registry(BaseHTTPRequestHandler):
    """The part of Confluent's REST API that we use."""

    held: list[str]
    asked: list[str]

    def do_GET(self) -> None:
        """Answer /schemas/ids/{id}."""
        self.asked.append(self.path)
        number = int(self.path.rpartition("/")[2])
        if number == 500:
            self._answer(500, {"error_code": 50001})
        elif number == 77:
            self._answer(200, {"schema": "syntax = 'proto3';", "schemaType": "PROTOBUF"})
        elif number == 78:
            self._answer(200, {"schema": '{"type": "nonsense"}'})
        elif 1 <= number <= len(self.held):
            self._answer(200, {"schema": self.held[number - 1]})
        else:
            self._answer(404, {"error_code": 40403, "message": "Schema not found"})

    def do_POST(self) -> None:
        """Register a schema."""
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["schema"]
        if text not in self.held:
            self.held.append(text)
        self._answer(200, {"id": self.held.index(text) + 1})

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())


@pytest.fixture
def server() -> Iterator[tuple[str, type[Registry]]]:
    """A registry on a free port, stopped afterwards."""
    handler = type("Handler", (Registry,), {"held": [], "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}", handler
        http.shutdown()
        thread.join()


def test_confluent_framing_through_a_registry(server: tuple[str, type[Registry]]) -> None:
    url, handler = server
    registry = HttpRegistry(url)
    number = registry.register("plays-value", "play")
    for _ in range(3):
        assert decode(Play, encode_confluent(PLAY, number), registry=registry) == PLAY
    assert handler.asked == [f"/schemas/ids/{number}"], "an id is asked for once"


def test_a_writer_with_another_version_and_more_fields(server: tuple[str, type[Registry]]) -> None:
    url, handler = server
    newer = schemas.raw("play") | {"fields": [*schemas.raw("play")["fields"], {"name": "mood", "type": "string"}]}
    handler.held.append(json.dumps(newer))
    datum = {"user_id": "u1", "track_id": "t1", "played_at": 5.0, "duration_played": None, "source": None, "mood": "x"}
    message = b"\x00\x00\x00\x00\x01" + avro(newer, datum)
    assert decode(Play, message, registry=HttpRegistry(url)) == Play("u1", "t1", 5.0)


@pytest.mark.parametrize(
    ("number", "message"),
    [(9, "has nothing at /schemas/ids/9"), (77, "is PROTOBUF"), (78, "not a usable Avro schema"), (500, "HTTP 500")],
)
def test_what_a_registry_cannot_give(server: tuple[str, type[Registry]], number: int, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        decode(Play, encode_confluent(PLAY, number), registry=HttpRegistry(server[0]))


def test_a_schema_that_does_not_fit(server: tuple[str, type[Registry]]) -> None:
    url, handler = server
    handler.held += [json.dumps(schemas.raw("user_profile")), '"string"']
    registry = HttpRegistry(url)
    with pytest.raises(DecodeError, match="play"):
        decode(Play, encode_confluent(UserProfile("u1"), 1), registry=registry)
    with pytest.raises(DecodeError, match="play"):
        decode(Play, b"\x00\x00\x00\x00\x02\x04hi", registry=registry)


def test_an_unreachable_registry_is_its_own_error_and_not_asked_at_once_again() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as http:
        url = f"http://127.0.0.1:{http.server_address[1]}"
    registry = HttpRegistry(url)
    with pytest.raises(RegistryUnavailable, match="does not answer"):
        decode(Play, encode_confluent(PLAY, 1), registry=registry)
    with pytest.raises(RegistryUnavailable, match="a moment ago"):
        decode(Play, encode_confluent(PLAY, 1), registry=registry)


def test_registry_address() -> None:
    with pytest.raises(ConfigError, match="file:///etc/passwd"):
        HttpRegistry("file:///etc/passwd")
