"""Dead letters read back: what `msam dlq` lists, shows and sends again."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Message

from streams import dead_letters
from streams.errors import ConfigError, NotReady
from streams.log_reader import key_of, read_to_end, record_at
from streams.topics import DEAD_LETTERS

FROM = "msam.redriven-from"  # header of a record that was sent again: the letter it came from


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. `partition` and `offset` are its own; `topic[source_partition]@source_offset` is the original.

    `headers` are those of the original record. `whole` is false where the letter holds only the beginning of a record
    beyond `dead_letters.WHOLE_BYTES`; `size` is the number of bytes of the original value in any case.
    """

    partition: int
    offset: int
    topic: str | None
    source_partition: int | None
    source_offset: int | None
    exception: str
    reason: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    size: int
    whole: bool
    time: float

    @property
    def name(self) -> str:
        """How the letter is called on the command line, such as 3@41."""
        return f"{self.partition}@{self.offset}"

    @property
    def source(self) -> str:
        """Where the record came from, such as plays[3]@41."""
        return f"{self.topic or '?'}[{_shown(self.source_partition)}]@{_shown(self.source_offset)}"


def letter_of(message: Message) -> Letter:
    """A record of `dead-letters` as a letter; what its headers do not say is None or empty."""
    pairs = header_pairs(message)
    named = {name: content for name, content in pairs if name.startswith((dead_letters.PREFIX, dead_letters.SIZE))}
    value = message.value()
    size = _number(named.get(dead_letters.SIZE))
    return Letter(
        message.partition() or 0,
        message.offset() or 0,
        _text(named.get(dead_letters.TOPIC)),
        _number(named.get(dead_letters.PARTITION)),
        _number(named.get(dead_letters.OFFSET)),
        _text(named.get(dead_letters.EXCEPTION)) or "",
        _text(named.get(dead_letters.MESSAGE)) or "",
        key_of(message),
        value,
        tuple(pair for pair in pairs if pair[0] not in named),
        len(value or b"") if size is None else size,
        size is None,
        message.timestamp()[1] / 1000,
    )


def header_pairs(message: Message) -> list[tuple[str, bytes | None]]:
    """The headers in their order, as bytes."""
    pairs: Any = message.headers() or []
    return [(name, content.encode() if isinstance(content, str) else content) for name, content in pairs]


def read_letters(config: Mapping[str, str]) -> Iterator[Letter]:
    """Every letter that is there now, in order per partition."""
    return map(letter_of, read_to_end(config, DEAD_LETTERS))


def find_letter(config: Mapping[str, str], name: str) -> Letter:
    """The letter of this name; NotReady where there is none."""
    found = record_at(config, DEAD_LETTERS, *place_of(name))
    if found is None:
        raise NotReady(f"there is no dead letter {name}; `msam dlq list` names them")
    return letter_of(found)


def place_of(name: str) -> tuple[int, int]:
    """Partition and offset of a letter's name.

    >>> place_of("3@41")
    (3, 41)
    """
    found = re.fullmatch(r"(\d{1,9})@(\d{1,18})", name)
    if found is None:
        raise ConfigError(f"{name!r} names no dead letter; write partition@offset, as `msam dlq list` shows it")
    return int(found[1]), int(found[2])


def wanted(topic: str | None, error: str | None, names: frozenset[tuple[int, int]]) -> Callable[[Letter], bool]:
    """Whether a letter is asked for: by its source topic, by words of its error (any case), by its place."""
    words = None if error is None else error.casefold()

    def asked(letter: Letter) -> bool:
        return (
            (topic is None or letter.topic == topic)
            and (words is None or words in f"{letter.exception} {letter.reason}".casefold())
            and (not names or (letter.partition, letter.offset) in names)
        )

    return asked


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode("utf-8", "backslashreplace")


def _number(content: bytes | None) -> int | None:
    return int(content) if content is not None and content.isdigit() and len(content) < 19 else None


def _shown(number: int | None) -> str:
    return "?" if number is None else str(number)
