"""A user's profile as the model takes it: words, their vectors, and the version of the profile that they are from."""

import logging
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msam.features.text import TextEncoder, word_matrices
from msam.features.words import user_words
from streams.errors import MsamError
from streams.records import UserProfile
from streams.serialization import SINGLE_OBJECT, Registry, decode, decode_datum, encode_datum
from streams.stores import TableStore

log = logging.getLogger(__name__)
ProfileWords = tuple[tuple[str, ...], NDArray[np.float16] | None]
_SCHEMA = "stored_profile"
_VECTORS = np.dtype("<f2")


@dataclass(frozen=True, slots=True)
class Profile:
    """Words of a profile and their vectors [Pu, E]; `version` is the next offset of its record, 0 for no profile."""

    version: int = 0
    words: tuple[str, ...] = ()
    vectors: NDArray[np.float16] | None = None


NOBODY = Profile()


def pack(offset: int, value: bytes, encoder: str, made: ProfileWords) -> bytes:
    """A row of the profiles table: the record at `offset` as it came, and its words by the encoder of that id."""
    words, vectors = made
    found = b"" if vectors is None else vectors.astype(_VECTORS).tobytes()
    row = {"version": offset + 1, "value": value, "encoder": encoder, "words": list(words), "vectors": found}
    return encode_datum(_SCHEMA, row)


def pack_unread(offset: int, value: bytes) -> bytes:
    """A row without the words, which are made when they are needed."""
    return struct.pack(">q", offset + 1) + value


def unpack(row: bytes, made_here: Callable[[str], bool]) -> tuple[int, bytes, ProfileWords | None]:
    """Version, the record as it came, and its words; None where the encoder that made them is not the one in use."""
    if not row.startswith(SINGLE_OBJECT):
        return struct.unpack_from(">q", row)[0], row[8:], None
    found = decode_datum(_SCHEMA, row)
    made: ProfileWords | None = None
    if made_here(found["encoder"]):
        words = tuple(found["words"])
        vectors = np.frombuffer(found["vectors"], _VECTORS).reshape(len(words), -1) if words else None
        made = words, vectors
    return found["version"], found["value"], made


class Profiles:
    """Reads the profiles table and remembers what it read; whoever changes the table says so by `changed`.

    Reading RocksDB lets go of Python's lock, and under load getting it back takes longer than the reading.
    """

    def __init__(
        self,
        store: TableStore,
        encode: Callable[[UserProfile], ProfileWords],
        made_here: Callable[[str], bool],
        registry: Registry | None = None,
        kept: int = 50_000,
    ) -> None:
        self._store = store
        self._registry = registry
        self._encode = encode
        self._made_here = made_here
        self._kept = kept
        self._known: dict[int, dict[str, Profile]] = {}
        self._changes = 0

    def __call__(self, partition: int, user_id: str) -> Profile:
        """The profile of a user whose plays come from `partition`."""
        known = self._known.setdefault(partition, {})
        found = known.get(user_id)
        if found is None:
            changes = self._changes
            found = self._read(partition, user_id)
            if changes == self._changes:  # else it may have been read just before a change
                if len(known) >= self._kept:
                    known.clear()
                known[user_id] = found
        return found

    def changed(self, partition: int, user_id: str) -> None:
        """The row of a user in the table is another one now."""
        self._changes += 1
        self._known.get(partition, {}).pop(user_id, None)

    def forget(self, partitions: Iterable[int]) -> None:
        """Drop what is known of partitions that are not ours any more."""
        self._changes += 1
        for partition in partitions:
            self._known.pop(partition, None)

    def _read(self, partition: int, user_id: str) -> Profile:
        row = self._store.get(partition, user_id.encode())
        if row is None:
            return NOBODY
        version = 0
        try:
            version, value, made = unpack(row, self._made_here)
            words, vectors = made or self._encode(decode(UserProfile, value, registry=self._registry))
        except MsamError:  # checked before it was written, so only a schema taken back since can do this
            log.exception("a stored profile cannot be read; its user is served without one")
            return Profile(version)
        return Profile(version, words, vectors)


def profile_words(encoder: TextEncoder, profiles: Iterable[UserProfile]) -> list[ProfileWords]:
    """Words of each profile and their vectors [Pu, E], all encoded together; (), None where nothing is known."""
    texts = [" ".join(user_words(p.gender, p.age, p.country)) for p in profiles]
    made = word_matrices(encoder, [[(0, text)] for text in texts])
    return [
        (m.words, m.vectors.astype(np.float16)) if text else ((), None) for text, m in zip(texts, made, strict=True)
    ]
