"""Ids as 64-bit keys, and the open-addressing tables that find a key's row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from msam.counts.compiled import compiled

Keys = NDArray[np.int64]
Rows = NDArray[np.int32]
ABSENT = 0  # the key of "unknown": no id has it


def key_of(identifier: str) -> int:
    """The key of an id, the same everywhere and for ever: 8 bytes of BLAKE2b. Two of a million ids share one at 3e-8.

    >>> key_of("t0") == key_of("t0"), key_of("t0") == key_of("t1")
    (True, False)
    """
    digest = hashlib.blake2b(identifier.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True) or 1


def keys_of(identifiers: Iterable[str]) -> Keys:
    """`key_of` each id: int64 [n]."""
    return np.array([key_of(identifier) for identifier in identifiers], dtype=np.int64)


def optional_keys(identifiers: Iterable[str | None]) -> Keys:
    """`key_of` each id, ABSENT where there is none: int64 [n]."""
    return np.array([key_of(one) if one else ABSENT for one in identifiers], dtype=np.int64)


@compiled
def find(places: Rows, keys: Keys, key: int) -> int:
    """Row of `key`, or -1. places [2^b]: rows by hash, -1 empty; keys [n]: the key of each row."""
    mask = len(places) - 1
    place = key & mask
    while places[place] >= 0:
        row = places[place]
        if keys[row] == key:
            return int(row)
        place = (place + 1) & mask
    return -1


@compiled
def put(places: Rows, key: int, row: int) -> None:
    """Enter a row whose key is not in the table yet; the table must not be full."""
    mask = len(places) - 1
    place = key & mask
    while places[place] >= 0:
        place = (place + 1) & mask
    places[place] = row


@compiled
def rehash(places: Rows, keys: Keys, count: int) -> None:
    """Enter the first `count` rows into an empty table."""
    for row in range(count):
        put(places, keys[row], row)


def table_for(keys: Keys, count: int, room: int) -> Rows:
    """A table with the first `count` rows of `keys`, at most half full with `room` of them."""
    places = np.full(1 << max(4, (2 * room - 1).bit_length()), -1, dtype=np.int32)
    rehash(places, keys, count)
    return places


@compiled
def find_all(places: Rows, keys: Keys, wanted: Keys, out: Keys) -> None:
    """`find` each of `wanted` [n] into `out` [n]."""
    for index in range(len(wanted)):
        out[index] = find(places, keys, wanted[index])


class KeyIndex:
    """Rows of keys in the order in which they were added: what leads from a candidate's key to the row of a table."""

    def __init__(self) -> None:
        self._keys = np.zeros(16, dtype=np.int64)
        self._places = table_for(self._keys, 0, 16)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, keys: Keys) -> None:
        """Give new keys the next rows; a key that is there keeps its row."""
        for key in keys.tolist():
            if find(self._places, self._keys, key) >= 0:
                continue
            if self._size == len(self._keys):
                self._keys = np.concatenate([self._keys, np.zeros_like(self._keys)])
                self._places = table_for(self._keys, self._size, len(self._keys))
            self._keys[self._size] = key
            put(self._places, key, self._size)
            self._size += 1

    def rows(self, keys: Keys) -> Keys:
        """Rows of keys of any shape, -1 where a key was never added."""
        out = np.empty(keys.size, dtype=np.int64)
        find_all(self._places, self._keys, np.ascontiguousarray(keys).ravel(), out)
        return out.reshape(keys.shape)
