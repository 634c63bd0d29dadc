"""The compiled fold: one play after another into the arrays of `SharedCounts`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msam.counts.compiled import compiled, inner
from msam.counts.keys import ABSENT, Keys, Rows, find, put

Records = NDArray[Any]
BACK = 8  # columns of `recent`
# A list of followers is `size` entries of the pool from `start`, in a block of `room`.
TRACK = np.dtype(
    [
        ("first", "f8"),  # Unix seconds of the first and the last play
        ("last", "f8"),
        ("plays", "i4"),
        ("moves", "i4"),  # plays that some user played next
        ("rules", "f4"),  # sum of all rule weights, dropped followers included
        ("start", "i4"),
        ("size", "i4"),
        ("room", "i4"),
    ]
)
ARTIST = np.dtype([("plays", "i4"), ("start", "i4"), ("size", "i4"), ("room", "i4")])
FOLLOWER = np.dtype([("key", "i8"), ("weight", "f4"), ("moves", "i4")])
USER = np.dtype([("last", "f8"), ("session", "i4"), ("seen", "i4")])  # plays in the session and in all, both up to BACK
TRACKS, USERS, ARTISTS, POOL, PLAYS = range(5)  # of `sizes`


class Tables(NamedTuple):
    """The arrays that compiled code reads and writes."""

    sizes: Keys  # int64 [5] rows taken, entries of the pool taken, plays folded
    free: Keys  # int64 [16] start of the first free block of 2^i entries, -1 none; a free block's key is the next one
    tracks: Records
    track_keys: Keys
    track_places: Rows
    users: Records
    user_keys: Keys
    user_places: Rows
    recent: Rows  # int32 [users, BACK] rows of the last tracks, newest first
    artists: Records
    artist_keys: Keys
    artist_places: Rows
    pool: Records
    pair_tags: Keys  # int64 [2^p] which sequence of two or three tracks is counted in a place
    pair_counts: Rows


@inner
def row_of(places: Rows, keys: Keys, sizes: Keys, kind: int, key: int) -> int:
    """The row of a key, a new one if it has none."""
    row = find(places, keys, key)
    if row < 0:
        row = sizes[kind]
        sizes[kind] += 1
        keys[row] = key
        put(places, key, row)
    return row


@inner
def _block(pool: Records, free: Keys, sizes: Keys, level: int) -> int:
    """Start of an unused block of 2^level entries."""
    start = free[level]
    if start >= 0:
        free[level] = pool[start].key
        return int(start)
    start = int(sizes[POOL])
    sizes[POOL] += 1 << level
    return start


@inner
def bump(tables: Tables, owner: Any, key: int, weight: float, moves: int, most: int) -> None:
    """Add to a follower of `owner`, a record with start, size and room.

    In a full list a newcomer takes the place of the lightest entry (of equals: the smallest key), but only once
    newcomers together outweighed it: each takes its own weight off the lightest.
    """
    pool, free = tables.pool, tables.free
    start, size = owner.start, owner.size
    lightest = start
    for place in range(start, start + size):
        if pool[place].key == key:
            pool[place].weight += np.float32(weight)
            pool[place].moves += moves
            return
        if pool[place].weight < pool[lightest].weight or (
            pool[place].weight == pool[lightest].weight and pool[place].key < pool[lightest].key
        ):
            lightest = place
    if size < most:
        if size == owner.room:
            level = 1 if size == 0 else 0
            while (1 << level) <= size:
                level += 1
            new = _block(pool, free, tables.sizes, level)
            for offset in range(size):
                pool[new + offset] = pool[start + offset]
            if size:
                pool[start].key = free[level - 1]
                free[level - 1] = start
            owner.start = new
            owner.room = 1 << level
        place = owner.start + size
        owner.size = size + 1
    elif pool[lightest].weight <= weight:
        place = lightest
    else:
        pool[lightest].weight -= np.float32(weight)
        return
    pool[place].key = key
    pool[place].weight = weight
    pool[place].moves = moves


@inner
def sequence_tag(first: int, second: int, third: int) -> int:
    """One key for two (third = 0) or three tracks in a row; never 0."""
    tag = np.uint64(first) * np.uint64(0x9E3779B97F4A7C15)
    tag = (tag ^ (tag >> np.uint64(29))) + np.uint64(second)
    tag *= np.uint64(0xBF58476D1CE4E5B9)
    tag = (tag ^ (tag >> np.uint64(32))) + np.uint64(third)
    tag *= np.uint64(0x94D049BB133111EB)
    return int(np.int64((tag ^ (tag >> np.uint64(31))) | np.uint64(1 << 40)))


@inner
def count_of(tags: Keys, counts: Rows, tag: int) -> int:
    """How often a sequence was counted, 0 where another one holds its place."""
    place = tag & (len(tags) - 1)
    return int(counts[place]) if tags[place] == tag else 0


@inner
def _count(tags: Keys, counts: Rows, tag: int) -> None:
    """Count a sequence; where another holds the place, it takes one off that, and the place when nothing is left."""
    place = tag & (len(tags) - 1)
    if tags[place] == tag:
        counts[place] += 1
    elif counts[place] <= 1:
        tags[place] = tag
        counts[place] = 1
    else:
        counts[place] -= 1


@inner
def _play(
    tables: Tables, user_key: int, track_key: int, artist_key: int, at: float, gap: float, back: int, most: int
) -> None:
    sizes = tables.sizes
    new = sizes[TRACKS]
    row = row_of(tables.track_places, tables.track_keys, sizes, TRACKS, track_key)
    track = tables.tracks[row]
    if row == new:
        track.first = at
    track.last = at
    track.plays += 1
    who = row_of(tables.user_places, tables.user_keys, sizes, USERS, user_key)
    user, recent = tables.users[who], tables.recent[who]
    if at - user.last > gap:
        user.session = 0
    for distance in range(1, min(user.session, back) + 1):
        source = tables.tracks[recent[distance - 1]]
        weight = 1.0 / (distance * distance)
        source.rules += np.float32(weight)
        moves = 1 if distance == 1 else 0
        source.moves += moves
        bump(tables, source, track_key, weight, moves, most)
    if user.session == 0 and user.seen > 0:  # a move over a break: counted, but no rule
        source = tables.tracks[recent[0]]
        source.moves += 1
        bump(tables, source, track_key, 0.0, 1, most)
    if user.seen >= 2:
        first, second = tables.track_keys[recent[1]], tables.track_keys[recent[0]]
        _count(tables.pair_tags, tables.pair_counts, sequence_tag(first, second, 0))
        _count(tables.pair_tags, tables.pair_counts, sequence_tag(first, second, track_key))
    for place in range(BACK - 1, 0, -1):
        recent[place] = recent[place - 1]
    recent[0] = row
    user.session = min(user.session + 1, BACK)
    user.seen = min(user.seen + 1, BACK)
    user.last = at
    if artist_key != ABSENT:
        artist = tables.artists[row_of(tables.artist_places, tables.artist_keys, sizes, ARTISTS, artist_key)]
        artist.plays += 1
        bump(tables, artist, track_key, 1.0, 1, most)
    sizes[PLAYS] += 1


@compiled
def fold(tables: Tables, users: Keys, tracks: Keys, artists: Keys, times: Any, gap: float, back: int, most: int) -> int:
    """Fold plays until one might not find room; returns how many were folded."""
    sizes = tables.sizes
    need = (BACK + 2) * 2 * most
    for index in range(len(users)):
        if (
            sizes[TRACKS] == len(tables.tracks)
            or sizes[USERS] == len(tables.users)
            or sizes[ARTISTS] == len(tables.artists)
            or sizes[POOL] + need > len(tables.pool)
        ):
            return index
        _play(tables, users[index], tracks[index], artists[index], times[index], gap, back, most)
    return len(users)
