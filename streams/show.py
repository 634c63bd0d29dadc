"""Consumed records as people and programs see them: `msam tail` and `msam dlq` print these."""

import base64
import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Message

from streams import dead_letters
from streams.records import Item, Recommendation
from streams.serialization import decode, to_datum
from streams.topics import DEAD_LETTERS

_SHOWN = 3


def as_object(message: Message) -> dict[str, Any]:
    """The JSON form of a recommendation or dead letter; `produced_at` is the record's timestamp in seconds."""
    if message.topic() == DEAD_LETTERS:
        return _letter(message)
    return {**to_datum(decode(Recommendation, message.value() or b"")), "produced_at": produced_at(message)}


def item_object(item: Item) -> dict[str, Any]:
    """The JSON form of one place in a list."""
    return asdict(item)


def as_line(message: Message) -> str:
    """One line for people."""
    time = datetime.fromtimestamp(produced_at(message), UTC).strftime("%Y-%m-%d %H:%M:%S")
    if message.topic() == DEAD_LETTERS:
        letter = _letter(message)
        return f"{time}  {letter['topic']}[{letter['partition']}]@{letter['offset']}  {letter['message']}"
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


def header(message: Message, name: str) -> str | None:
    """The last header of this name as text; None where there is none."""
    found = None
    headers = message.headers() or []
    for key, value in headers.items() if isinstance(headers, dict) else headers:
        if key == name and value is not None:
            found = value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")
    return found


def _letter(message: Message) -> dict[str, Any]:
    key, value = message.key(), message.value()
    return {
        "topic": header(message, dead_letters.TOPIC),
        "partition": _number(header(message, dead_letters.PARTITION)),
        "offset": _number(header(message, dead_letters.OFFSET)),
        "exception": header(message, dead_letters.EXCEPTION),
        "message": header(message, dead_letters.MESSAGE),
        "key": None if key is None else key.decode("utf-8", "backslashreplace"),
        "value": None if value is None else base64.b64encode(value).decode(),
        "dead_letter": {"partition": message.partition(), "offset": message.offset()},
        "produced_at": produced_at(message),
    }


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _item(item: Item) -> str:
    because = "" if item.reasons.because is None else f" {item.reasons.because}"
    return f"{item.rank}. {item.track_id} ({item.reasons.kind}{because})"
