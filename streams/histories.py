"""Each user's own plays as the wide head counts them, kept in the windows store in parts. Runs on the model's thread.

A play changes only the newest part, so what is written with it does not grow with the history. Parts are a ring:
the newest overwrites the one that is too old to count.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from io import BytesIO

import fastavro
import numpy as np
from numpy.typing import NDArray

import schemas
from msam.counts import Plays, UserHistory, key_of
from streams import avro
from streams.recent import Recent
from streams.serialization import record_header
from streams.stores import TableStore

PART = 50  # plays
#: First byte of the keys of parts: an id holds no control characters, so no user's window has such a key.
PREFIX = b"\x01"
_KEPT = 20_000  # histories in memory, per partition
_HEADER = record_header("user_history")

track_key = lru_cache(maxsize=262_144)(key_of)


@dataclass(slots=True)
class _Own:
    """A history, and the part of it that is being filled."""

    history: UserHistory
    first: int = 0
    newest: list[bytes] = field(default_factory=list)


class Histories:
    """The histories of the partitions that are served here; `limit` plays of each user count."""

    def __init__(self, store: TableStore, limit: int) -> None:
        self._store = store
        self._limit = limit
        self._parts = -(-limit // PART) + 1  # the newest may hold a single play
        self._own: dict[int, Recent[str, _Own]] = {}

    def get(self, partition: int, user_id: str) -> Plays:
        """The plays of a user as they stand in this worker; later plays do not change them."""
        return self._of(partition, user_id).history.plays()

    def add(self, partition: int, user_id: str, track_id: str, played_at: float) -> tuple[bytes, Callable[[], bytes]]:
        """Take in a play; the key and, when called, the bytes that have to be stored for it."""
        own = self._of(partition, user_id)
        track = track_key(track_id)
        if len(own.newest) == PART:
            own.first, own.newest = own.first + PART, []
        own.newest = [*own.newest, avro.long(track) + avro.double(played_at)]  # earlier bytes may still be asked for
        own.history.append(track, played_at)
        self._own[partition].put(user_id, own)
        return self._key(own.first // PART, user_id), partial(_encode, own.first, own.newest)

    def forget(self, partitions: Iterable[int]) -> None:
        """Drop what is remembered of partitions: it may not have been committed."""
        for partition in partitions:
            self._own.pop(partition, None)

    def _key(self, part: int, user_id: str) -> bytes:
        return PREFIX + bytes((part % self._parts,)) + user_id.encode()

    def _of(self, partition: int, user_id: str) -> _Own:
        known = self._own.setdefault(partition, Recent(_KEPT))
        return known.get(user_id) or known.put(user_id, self._read(partition, user_id))

    def _read(self, partition: int, user_id: str) -> _Own:
        rows = (self._store.get(partition, self._key(part, user_id)) for part in range(self._parts))
        parts = sorted(map(_decode, filter(None, rows)), key=lambda part: part[0])
        if not parts:
            return _Own(UserHistory(self._limit))
        tracks = np.concatenate([tracks for _, tracks, _ in parts])
        times = np.concatenate([times for _, _, times in parts])
        first, tracks_now, times_now = parts[-1]
        newest = [avro.long(t) + avro.double(at) for t, at in zip(tracks_now.tolist(), times_now.tolist(), strict=True)]
        return _Own(UserHistory.of(self._limit, tracks, times), first, newest)


def _encode(first: int, plays: list[bytes]) -> bytes:
    return _HEADER + avro.long(first) + avro.block(len(plays), b"".join(plays))


def _decode(data: bytes) -> tuple[int, NDArray[np.int64], NDArray[np.float64]]:
    if not data.startswith(_HEADER):
        raise ValueError(f"not a part of a history (starts with {data[:10].hex()})")
    value = fastavro.schemaless_reader(BytesIO(data[len(_HEADER) :]), schemas.load("user_history"), None)
    assert isinstance(value, dict)
    plays = value["plays"]
    tracks = np.array([play["track"] for play in plays], dtype=np.int64)
    return value["first"], tracks, np.array([play["played_at"] for play in plays], dtype=np.float64)
