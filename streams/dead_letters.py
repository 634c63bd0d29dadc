"""Dead letters: a record that could not be handled, as it came, with KIP-1034's headers saying why."""

import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from streams.topics import AUDIO_MESSAGE_BYTES, DEAD_LETTERS

Header = tuple[str, bytes | None]
Headers = Iterable[Header] | Mapping[str, bytes | None] | None

PREFIX = "__streams.errors."
EXCEPTION = f"{PREFIX}exception"
MESSAGE = f"{PREFIX}message"
STACKTRACE = f"{PREFIX}stacktrace"
TOPIC = f"{PREFIX}topic"
PARTITION = f"{PREFIX}partition"
OFFSET = f"{PREFIX}offset"
STAGE = f"{PREFIX}stage"
SIZE = "msam.value-bytes"  # on a letter that holds only the beginning of its record's value: the size of the whole
TEXT_LIMIT = 8192
# A compressed batch may hold a value far larger than any topic takes uncompressed (a decompression bomb). Its letter
# must fit into dead-letters, or the worker could never get past it; the whole still lies in the source topic.
WHOLE_BYTES = AUDIO_MESSAGE_BYTES


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What is to be produced: the original key, value, headers and time, plus the headers that say what was wrong."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    timestamp_ms: int | None


def error_headers(
    error: BaseException, *, topic: str, partition: int, offset: int, stage: str | None = None
) -> list[tuple[str, bytes]]:
    """KIP-1034's six headers, as UTF-8 text, numbers too (Kafka Streams writes them so); `stage` is ours."""
    kind = type(error)
    trace = "".join(traceback.format_exception(error))
    named = [
        (EXCEPTION, _text(f"{kind.__module__}.{kind.__qualname__}")),
        (MESSAGE, _text(str(error))),
        (STACKTRACE, _text(trace, keep_end=True)),
        (TOPIC, _text(topic)),
        (PARTITION, b"%d" % partition),
        (OFFSET, b"%d" % offset),
    ]
    return named if stage is None else [*named, (STAGE, _text(stage))]


def dead_letter(
    *,
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    timestamp_ms: int | None,
    error: BaseException,
    stage: str | None = None,
) -> DeadLetter:
    """The letter for a record of `topic[partition]@offset`.

    Error headers that the record brings along, because it was redriven before, are replaced: a letter tells its last
    failure, and each name occurs once. Of a record beyond WHOLE_BYTES the letter keeps the beginning.
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    kept = [(name, content) for name, content in pairs if not name.startswith(PREFIX)]
    added = error_headers(error, topic=topic, partition=partition, offset=offset, stage=stage)
    # Kafka refuses a negative time; a record without one (timestamp type "not available") has -1.
    time = timestamp_ms if timestamp_ms is not None and timestamp_ms >= 0 else None
    key, value, kept = _bounded(key, value, kept)
    return DeadLetter(DEAD_LETTERS, key, value, (*kept, *added), time)


def _bounded(
    key: bytes | None, value: bytes | None, headers: list[Header]
) -> tuple[bytes | None, bytes | None, list[Header]]:
    """The record, cut to WHOLE_BYTES where it is larger: first the value, then headers, then the key."""
    around = len(key or b"") + sum(len(name.encode()) + len(content or b"") + 16 for name, content in headers)
    size = len(value or b"")
    if around + size <= WHOLE_BYTES:
        return key, value, headers
    if around > WHOLE_BYTES:
        key, headers, around = (key or b"")[: WHOLE_BYTES // 2], [], WHOLE_BYTES // 2
    marked = [pair for pair in headers if pair[0] != SIZE]
    return key, (value or b"")[: WHOLE_BYTES - around], [*marked, (SIZE, b"%d" % size)]


def _text(text: str, keep_end: bool = False) -> bytes:
    """UTF-8 of at most TEXT_LIMIT bytes, cut between characters; of a stack trace the end says most."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= TEXT_LIMIT:
        return data
    cut = data[-TEXT_LIMIT:] if keep_end else data[:TEXT_LIMIT]
    return cut.decode("utf-8", "ignore").encode()
