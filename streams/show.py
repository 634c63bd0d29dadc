"""Consumed records as people and programs see them: `msam tail` and `msam dlq` print these."""

import base64
import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Message

from streams import topics
from streams.errors import MsamError
from streams.letters import Letter, letter_of
from streams.records import AudioUpload, Item, Play, Recommendation, Record, TrackMetadata, UserProfile
from streams.sealing import Keys, open_play
from streams.serialization import Registry, decode, to_datum
from streams.topics import DEAD_LETTERS

_SHOWN = 3
_PREVIEW_BYTES = 256
_EVENTS: dict[str, type[Record]] = {
    topics.PLAYS: Play,
    topics.USER_PROFILES: UserProfile,
    topics.TRACK_METADATA: TrackMetadata,
    topics.AUDIO_UPLOADS: AudioUpload,
}


def as_object(message: Message) -> dict[str, Any]:
    """The JSON form of a recommendation or dead letter; `produced_at` is the record's timestamp in seconds."""
    if message.topic() == DEAD_LETTERS:
        return tailed(letter_of(message))
    return {**to_datum(decode(Recommendation, message.value() or b"")), "produced_at": produced_at(message)}


def item_object(item: Item) -> dict[str, Any]:
    """The JSON form of one place in a list."""
    return asdict(item)


def as_line(message: Message) -> str:
    """One line for people."""
    time = datetime.fromtimestamp(produced_at(message), UTC).strftime("%Y-%m-%d %H:%M:%S")
    if message.topic() == DEAD_LETTERS:
        letter = letter_of(message)
        return f"{time}  {letter.source}  {printable(letter.reason)}"
    made = decode(Recommendation, message.value() or b"")
    shown = "  ".join(_item(item) for item in made.items[:_SHOWN])
    more = f"  +{len(made.items) - _SHOWN} more" if len(made.items) > _SHOWN else ""
    return f"{time}  {made.user_id}  after {made.source.track_id}:  {shown}{more}  (model {made.model_version})"


def dump(value: dict[str, Any]) -> str:
    """One line of JSON; NaN cannot occur, records are checked."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def produced_at(message: Message) -> float:
    """The record's timestamp in Unix seconds."""
    return message.timestamp()[1] / 1000


def tailed(letter: Letter) -> dict[str, Any]:
    """The JSON form of a dead letter; bytes in base64."""
    return {
        "topic": letter.topic,
        "partition": letter.source_partition,
        "offset": letter.source_offset,
        "exception": letter.exception,
        "message": letter.reason,
        "key": _key(letter),
        "value": None if letter.value is None else base64.b64encode(letter.value).decode(),
        "dead_letter": {"partition": letter.partition, "offset": letter.offset},
        "produced_at": letter.time,
    }


def letter_object(letter: Letter, redriven: bool, whole: bool = False) -> dict[str, Any]:
    """The JSON form of a dead letter in a list; `whole` adds headers and the value in base64."""
    found = {"letter": letter.name, **tailed(letter), "bytes": letter.size, "redriven": redriven}
    value = found.pop("value")
    if not whole:
        return found
    headers = [{"name": name, "value": None if c is None else _readable(c)} for name, c in letter.headers]
    return {**found, "headers": headers, "value": value, "preview": preview(letter.value or b"")}


def letter_line(letter: Letter, redriven: bool) -> str:
    """One line for people."""
    time = datetime.fromtimestamp(letter.time, UTC).strftime("%Y-%m-%d %H:%M:%S")
    state = "  (sent again)" if redriven else ""
    reason = printable(letter.reason)
    kind = letter.exception.rpartition(".")[2]
    return f"{letter.name}  {time}  {letter.source}  key {_brief(letter.key)}  {kind}: {reason[:160]}{state}"


def letter_details(letter: Letter, redriven: bool, now: str) -> str:
    """Everything about a letter, safe to print."""
    lines = [letter_line(letter, redriven), "", f"error    {printable(letter.exception)}: {printable(letter.reason)}"]
    lines += [f"now      {printable(now)}", f"key      {_brief(letter.key, _PREVIEW_BYTES)}"]
    lines += [f"header   {printable(name)}: {_brief(content, _PREVIEW_BYTES)}" for name, content in letter.headers]
    size = "none (a tombstone)" if letter.value is None else f"{letter.size} bytes"
    kept = "" if letter.whole else f", of which the letter holds {len(letter.value or b'')}"
    return "\n".join([*lines, f"value    {size}{kept}", preview(letter.value or b"")]).rstrip()


def letter_verdict(letter: Letter, registry: Registry | None, keys: Keys | None = None) -> str:
    """Whether the original can be read now: words for people."""
    event = _EVENTS.get(letter.topic or "")
    if event is None:
        return "its source is none of our topics"
    if letter.value is None:
        return "a tombstone"
    if not letter.whole:
        return "too large for its letter"
    try:
        if event is Play:
            open_play(letter.value, registry=registry, keys=keys)
        else:
            decode(event, letter.value, registry=registry)
    except MsamError as error:
        return f"still wrong: {error}"
    return "its bytes can be read"


def preview(data: bytes) -> str:
    """The beginning of a value as a hex dump with its printable ASCII beside it."""
    lines = []
    for start in range(0, min(len(data), _PREVIEW_BYTES), 16):
        row = data[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{start:08x}  {row.hex(' '):47}  |{text}|")
    more = len(data) - _PREVIEW_BYTES
    return "\n".join([*lines, f"... {more} bytes more"] if more > 0 else lines)


def printable(text: str) -> str:
    """The text with everything escaped that could move a cursor or start another line.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def _readable(content: bytes) -> str:
    return content.decode("utf-8", "backslashreplace")


def _brief(content: bytes | None, limit: int = 40) -> str:
    if content is None:
        return "none"
    shown = printable(_readable(content[:limit]))
    return shown + (f"... ({len(content)} bytes)" if len(content) > limit else "")


def _key(letter: Letter) -> str | None:
    return None if letter.key is None else _readable(letter.key)


def _item(item: Item) -> str:
    because = "" if item.reasons.because is None else f" {item.reasons.because}"
    return f"{item.rank}. {item.track_id} ({item.reasons.kind}{because})"
