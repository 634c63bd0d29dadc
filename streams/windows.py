"""A user's window of recent plays: pure values, no Kafka.

A window keeps the last `k + slack` plays ordered by (played_at, offset). Every play carries its source offset, so a
redelivered play is recognised and the window as it stood after any recent offset can be cut out again.
"""

import io
from bisect import insort
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import fastavro

import schemas
from streams import avro

_SCHEMA = schemas.load("window")
#: Key of the record that marks how far a source partition has been handled. No id may contain a control character,
#: so it can never be a user's.
MARK_KEY = b"\x00mark"


class Entry(NamedTuple):
    """One play of a window; the order of the fields is the order of the window."""

    played_at: float
    offset: int
    track_id: str
    partition: int


@dataclass(frozen=True, slots=True)
class Window:
    """The newest plays of one user, oldest first, and the last offset applied from each source partition."""

    entries: tuple[Entry, ...] = ()
    last_offsets: tuple[tuple[int, int], ...] = ()

    def last_offset(self, partition: int) -> int:
        """Offset of the newest play applied from `partition`, -1 for none."""
        return dict(self.last_offsets).get(partition, -1)

    def apply(self, entry: Entry, keep: int) -> "Window":
        """The window after one more play; the same window when the play had been applied before.

        A play that is older than all of the `keep` newest leaves only its offset.
        """
        if entry.offset <= self.last_offset(entry.partition):
            return self
        entries = list(self.entries)
        insort(entries, entry)
        offsets = dict(self.last_offsets) | {entry.partition: entry.offset}
        return Window(tuple(entries[-keep:]), tuple(sorted(offsets.items())))

    def as_of(self, partition: int, offset: int, k: int) -> tuple[Entry, ...]:
        """The last `k` plays as they stood right after `offset` of `partition`, oldest first.

        Exact while at most `slack` plays of the user lie beyond that offset.
        """
        if not self.beyond(partition, offset):
            return self.entries[-k:]
        return tuple([e for e in self.entries if e.partition != partition or e.offset <= offset][-k:])

    def beyond(self, partition: int, offset: int) -> int:
        """How many plays of the window came after `offset` of `partition`."""
        if self.last_offset(partition) <= offset:
            return 0
        return sum(e.partition == partition and e.offset > offset for e in self.entries)


def encode_window(window: Window) -> bytes:
    """Avro bytes of a window (single-object encoding)."""
    offsets = b"".join(avro.string(str(p)) + avro.long(o) for p, o in window.last_offsets)
    entries = b"".join(map(_entry, window.entries))
    return (
        _HEADER + avro.block(len(window.last_offsets), offsets) + avro.block(len(window.entries), entries) + avro.NULL
    )


@lru_cache(maxsize=65_536)
def _entry(entry: Entry) -> bytes:
    """A play is written again with each of the next k + slack plays of its user."""
    head = avro.string(entry.track_id) + avro.double(entry.played_at)
    return head + avro.long(entry.offset) + avro.long(entry.partition)


def decode_window(data: bytes) -> Window:
    """The window in `data`; ValueError when the bytes are not one of ours."""
    value = _decode(data)
    entries = tuple(Entry(e["played_at"], e["offset"], e["track_id"], e["partition"]) for e in value["entries"])
    return Window(entries, tuple(sorted((int(p), o) for p, o in value["last_offsets"].items())))


def encode_mark(offset: int) -> bytes:
    """Avro bytes of a partition mark: every source offset up to and with `offset` has its output."""
    return _HEADER + avro.END + avro.END + avro.SOME + avro.long(offset)


def decode_mark(data: bytes | None) -> int:
    """The offset of a mark, -1 for none."""
    return -1 if data is None else int(_decode(data)["mark"])


_HEADER = b"\xc3\x01" + schemas.fingerprint("window")


def _decode(data: bytes) -> dict[str, Any]:
    if not data.startswith(_HEADER):
        raise ValueError(f"not a window record (starts with {data[:10].hex()})")
    value = fastavro.schemaless_reader(io.BytesIO(data[len(_HEADER) :]), _SCHEMA, None)
    if not isinstance(value, dict):
        raise ValueError("not a window record")
    return value
