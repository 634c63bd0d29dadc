"""What everyone's plays tell: a fold over plays in one order, the same bits however it is cut into pieces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from msam.config import CountsConfig
from msam.counts import folding
from msam.counts.folding import ARTISTS, BACK, PLAYS, POOL, TRACKS, USERS, Tables
from msam.counts.keys import Keys, find, table_for
from msam.errors import MethodError

_KINDS = {"tracks": TRACKS, "users": USERS, "artists": ARTISTS}


class SharedCounts:
    """Plays of tracks and artists, moves from track to track, rules within sessions (weight 1/distance²).

    Not thread-safe: one thread folds and reads.
    """

    def __init__(self, config: CountsConfig) -> None:
        self.config = config
        self.tables = _empty({"tracks": 64, "users": 16, "artists": 64}, _pool(config), config)

    @property
    def plays(self) -> int:
        """How many plays were folded."""
        return int(self.tables.sizes[PLAYS])

    def fold(self, users: Keys, tracks: Keys, artists: Keys, times: NDArray[np.float64]) -> None:
        """Take in plays [n] in their order: keys of user, track and artist (0: unknown), Unix seconds."""
        if not len(users) == len(tracks) == len(artists) == len(times):
            raise MethodError("users, tracks, artists and times of plays must be equally many")
        config, done = self.config, 0
        while done < len(users):
            some = slice(done, None)
            done += folding.fold(
                self.tables,
                users[some],
                tracks[some],
                artists[some],
                times[some],
                config.gap,
                config.back,
                config.successors,
            )
            if done < len(users):
                self._grow()

    def plays_of(self, track: int) -> int:
        """How often anyone played a track."""
        row = find(self.tables.track_places, self.tables.track_keys, track)
        return int(self.tables.tracks["plays"][row]) if row >= 0 else 0

    def followers(self, track: int) -> dict[int, tuple[float, int]]:
        """Rule weight and moves to each kept follower of a track, by key."""
        row = find(self.tables.track_places, self.tables.track_keys, track)
        return self._entries(self.tables.tracks, row)

    def tracks_of(self, artist: int) -> dict[int, tuple[float, int]]:
        """Plays (as weight and as count) of the kept tracks of an artist, by key."""
        row = find(self.tables.artist_places, self.tables.artist_keys, artist)
        return self._entries(self.tables.artists, row)

    def _entries(self, owners: NDArray[Any], row: int) -> dict[int, tuple[float, int]]:
        if row < 0:
            return {}
        start, size = int(owners["start"][row]), int(owners["size"][row])
        return {int(e["key"]): (float(e["weight"]), int(e["moves"])) for e in self.tables.pool[start : start + size]}

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Plain arrays (numbers only) that hold the whole state; inverse of `from_arrays`."""
        tables = self.tables
        out: dict[str, NDArray[Any]] = {"sizes": tables.sizes.copy(), "free": tables.free.copy()}
        for name, kind in _KINDS.items():
            count = int(tables.sizes[kind])
            out[f"{name}.key"] = getattr(tables, f"{name[:-1]}_keys")[:count].copy()
            out |= _columns(name, getattr(tables, name)[:count])
        out["recent"] = tables.recent[: int(tables.sizes[USERS])].copy()
        out |= _columns("pool", tables.pool[: int(tables.sizes[POOL])])
        used = np.flatnonzero(tables.pair_counts)
        return out | {"pairs.place": used, "pairs.tag": tables.pair_tags[used], "pairs.count": tables.pair_counts[used]}

    @classmethod
    def from_arrays(cls, config: CountsConfig, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The state that `to_arrays` wrote under the same configuration; KeyError where an array is missing."""
        counts = cls(config)
        sizes = arrays["sizes"]
        room = {name: 2 * max(int(sizes[kind]), 16) for name, kind in _KINDS.items()}
        tables = _empty(room, 2 * int(sizes[POOL]) + _pool(config), config)
        tables.sizes[:], tables.free[:] = sizes, arrays["free"]
        for name in _KINDS:
            getattr(tables, f"{name[:-1]}_keys")[: len(arrays[f"{name}.key"])] = arrays[f"{name}.key"]
            _fill(getattr(tables, name), name, arrays)
        tables.recent[: len(arrays["recent"])] = arrays["recent"]
        _fill(tables.pool, "pool", arrays)
        tables.pair_tags[arrays["pairs.place"]] = arrays["pairs.tag"]
        tables.pair_counts[arrays["pairs.place"]] = arrays["pairs.count"]
        counts.tables = _placed(tables)
        return counts

    def _grow(self) -> None:
        """Twice the room for whichever kind is full."""
        old = self.tables
        room = {name: len(getattr(old, name)) for name in _KINDS}
        room = {name: size * (2 if int(old.sizes[_KINDS[name]]) == size else 1) for name, size in room.items()}
        need = int(old.sizes[POOL]) + _pool(self.config)
        pool = len(old.pool) if need <= len(old.pool) else 2 * need
        new = _empty(room, pool, self.config)
        for field in ("tracks", "track_keys", "users", "user_keys", "recent", "artists", "artist_keys", "pool"):
            array = getattr(old, field)
            getattr(new, field)[: len(array)] = array
        kept = {name: getattr(old, name) for name in ("sizes", "free", "pair_tags", "pair_counts")}
        self.tables = _placed(new._replace(**kept))


def _pool(config: CountsConfig) -> int:
    """Entries that one play may need at most."""
    return (BACK + 2) * 2 * config.successors


def _empty(room: Mapping[str, int], pool: int, config: CountsConfig) -> Tables:
    keys = {name: np.zeros(size, np.int64) for name, size in room.items()}
    places = {name: table_for(keys[name], 0, size) for name, size in room.items()}
    return Tables(
        np.zeros(5, np.int64),
        np.full(16, -1, np.int64),
        np.zeros(room["tracks"], folding.TRACK),
        keys["tracks"],
        places["tracks"],
        np.zeros(room["users"], folding.USER),
        keys["users"],
        places["users"],
        np.zeros((room["users"], BACK), np.int32),
        np.zeros(room["artists"], folding.ARTIST),
        keys["artists"],
        places["artists"],
        np.zeros(pool, folding.FOLLOWER),
        np.zeros(1 << config.pairs, np.int64),
        np.zeros(1 << config.pairs, np.int32),
    )


def _placed(tables: Tables) -> Tables:
    """With places of all rows."""
    made: dict[str, Any] = {}
    for name, kind in _KINDS.items():
        keys = getattr(tables, f"{name[:-1]}_keys")
        made[f"{name[:-1]}_places"] = table_for(keys, int(tables.sizes[kind]), len(keys))
    return tables._replace(**made)


def _columns(name: str, records: NDArray[Any]) -> dict[str, NDArray[Any]]:
    fields = records.dtype.names or ()
    return {
        f"{name}.{field}": np.ascontiguousarray(records[field]) for field in fields if field != "key" or name == "pool"
    }


def _fill(records: NDArray[Any], name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    for field in records.dtype.names or ():
        column = arrays[f"{name}.{field}"]
        records[field][: len(column)] = column
