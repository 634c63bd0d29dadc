"""What one play's candidates are gathered in, reused from play to play."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msam.config import CountsConfig
from msam.counts.compiled import inner
from msam.counts.discography import Book
from msam.counts.keys import ABSENT, Keys, Rows, find

Records = NDArray[Any]
# One track that counts in this list. Own tracks stand first, the newest played first: their place is their rank.
ENTRY = np.dtype(
    [
        ("key", "i8"),
        ("artist", "i8"),
        ("last", "f8"),  # Unix seconds of this user's last and first play (of those kept)
        ("begin", "f8"),
        ("count", "i4"),  # own plays
        ("first", "i4"),  # position of the first and the newest own play in the history
        ("newest", "i4"),
        ("back", "i4"),  # plays back in this session, up to BACK; 0: not there
        ("moves", "i4"),  # own moves from the last track, and from the last two
        ("moves2", "i4"),
        ("own1", "f4"),  # own rules from the last track, and from those before it
        ("own8", "f4"),
        ("rule1", "f4"),  # everyone's
        ("rule8", "f4"),
        ("all_moves", "i4"),  # everyone's moves from the last track
        ("chosen", "i4"),
        ("row", "i4"),  # in the discography; -1: unknown there, NOT_LOOKED_UP
        ("pad", "i4"),
    ]
)
ARTIST = np.dtype([("key", "i8"), ("plays", "i4"), ("tracks", "i4"), ("late", "i4"), ("used", "i4")])


class Work(NamedTuple):
    """Scratch arrays; `stamps` tell which places of a table belong to the present play."""

    state: Keys  # int64 [4] generation, entries, artists, chosen
    entries: Records
    stamps: Rows
    places: Rows
    artists: Records
    artist_stamps: Rows
    artist_places: Rows
    at: Rows  # int32 [history] entry of each play
    chosen: Rows  # int32 [candidates] entries in the order in which they were chosen
    heap: Records  # the best of what is gone through, the least of them first


GENERATION, ENTRIES, ARTISTS, CHOSEN = range(4)
NOT_LOOKED_UP = -2
HEAPED = np.dtype([("score", "f8"), ("key", "i8"), ("entry", "i4"), ("pad", "i4")])


def make_work(config: CountsConfig, extra: int) -> Work:
    """Room for a history of `config.history` plays and `extra` tracks that a caller asks for."""
    most = config.most + extra
    lists = 8 + 2 * (config.recent + config.liked)  # of followers, of an artist's tracks, each gone through whole
    entries = config.history + lists * config.successors + most
    width = 1 << (2 * entries - 1).bit_length()
    return Work(
        np.zeros(4, np.int64),
        np.zeros(entries, ENTRY),
        np.zeros(width, np.int32),
        np.zeros(width, np.int32),
        np.zeros(config.history, ARTIST),
        np.zeros(width, np.int32),
        np.zeros(width, np.int32),
        np.zeros(config.history, np.int32),
        np.zeros(most, np.int32),
        np.zeros(max(config.ruled, config.favourites, config.each, config.liked, 1) + 1, HEAPED),
    )


@inner
def entry_of(work: Work, key: int) -> int:
    """The entry of a track, a blank one if it has none."""
    generation = np.int32(work.state[GENERATION])
    mask = len(work.places) - 1
    place = key & mask
    while work.stamps[place] == generation:
        found = work.places[place]
        if work.entries[found].key == key:
            return int(found)
        place = (place + 1) & mask
    made = work.state[ENTRIES]
    work.state[ENTRIES] += 1
    work.stamps[place] = generation
    work.places[place] = made
    entry = work.entries[made]
    entry.key = key
    entry.artist = ABSENT
    entry.row = NOT_LOOKED_UP
    entry.count = 0
    entry.back = 0
    entry.moves = 0
    entry.moves2 = 0
    entry.own1 = 0.0
    entry.own8 = 0.0
    entry.rule1 = 0.0
    entry.rule8 = 0.0
    entry.all_moves = 0
    entry.chosen = 0
    return int(made)


@inner
def row_of(work: Work, book: Book, entry: int) -> int:
    """The entry's row in the discography, -1 if it is not there; what that says of the artist counts."""
    found = work.entries[entry]
    if found.row == NOT_LOOKED_UP:
        found.row = find(book.track_places, book.track_keys, found.key)
        if found.row >= 0 and book.tracks[found.row].artist != ABSENT:
            found.artist = book.tracks[found.row].artist
    return int(found.row)


@inner
def artist_of(work: Work, key: int, add: bool) -> int:
    """The artist's place among those of this user's plays; -1, or a blank one with `add`, if it is not there."""
    generation = np.int32(work.state[GENERATION])
    mask = len(work.artist_places) - 1
    place = key & mask
    while work.artist_stamps[place] == generation:
        found = work.artist_places[place]
        if work.artists[found].key == key:
            return int(found)
        place = (place + 1) & mask
    if not add:
        return -1
    made = work.state[ARTISTS]
    work.state[ARTISTS] += 1
    work.artist_stamps[place] = generation
    work.artist_places[place] = made
    artist = work.artists[made]
    artist.key = key
    artist.plays = 0
    artist.tracks = 0
    artist.late = 0
    artist.used = 0
    return int(made)


@inner
def begin(work: Work) -> None:
    """Forget the play before."""
    state = work.state
    if state[GENERATION] == 2**31 - 1:
        work.stamps[:] = 0
        work.artist_stamps[:] = 0
        state[GENERATION] = 0
    state[GENERATION] += 1
    state[ENTRIES] = 0
    state[ARTISTS] = 0
    state[CHOSEN] = 0


@inner
def choose(work: Work, entry: int) -> None:
    """Make an entry a candidate, once."""
    if work.entries[entry].chosen == 0:
        work.entries[entry].chosen = 1
        work.chosen[work.state[CHOSEN]] = entry
        work.state[CHOSEN] += 1


@inner
def _less(heap: Records, one: int, other: int) -> bool:
    """Lower score; of equal ones the larger key."""
    a, b = heap[one], heap[other]
    return bool(a.score < b.score or (a.score == b.score and a.key > b.key))


@inner
def _swap(heap: Records, one: int, other: int) -> None:
    score, key, entry = heap[one].score, heap[one].key, heap[one].entry
    heap[one] = heap[other]
    heap[other].score = score
    heap[other].key = key
    heap[other].entry = entry


@inner
def _sink(heap: Records, size: int) -> None:
    place = 0
    while True:
        least, child = place, 2 * place + 1
        if child < size and _less(heap, child, least):
            least = child
        if child + 1 < size and _less(heap, child + 1, least):
            least = child + 1
        if least == place:
            return
        _swap(heap, least, place)
        place = least


@inner
def keep(heap: Records, size: int, most: int, score: float, key: int, entry: int) -> int:
    """Offer one to the best `most` of a heap of `size`; returns the new size."""
    heap[size].score = score
    heap[size].key = key
    heap[size].entry = entry
    if size == most:
        if most > 0 and _less(heap, 0, size):
            _swap(heap, 0, size)
            _sink(heap, size)
        return size
    place = size
    while place > 0 and _less(heap, place, (place - 1) // 2):
        _swap(heap, place, (place - 1) // 2)
        place = (place - 1) // 2
    return size + 1


@inner
def best_first(heap: Records, size: int) -> None:
    """Sort what was kept: best first."""
    while size > 1:
        size -= 1
        _swap(heap, 0, size)
        _sink(heap, size)
