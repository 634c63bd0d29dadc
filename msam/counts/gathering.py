"""Candidates of one play: what the user's own plays, everyone's rules and the artists' other tracks propose."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msam.counts.compiled import inner
from msam.counts.discography import Book
from msam.counts.folding import BACK, Tables
from msam.counts.keys import ABSENT, Keys, find
from msam.counts.work import (
    ARTISTS,
    ENTRIES,
    Work,
    artist_of,
    begin,
    best_first,
    choose,
    entry_of,
    keep,
    row_of,
)


class Limits(NamedTuple):
    """CountsConfig as compiled code takes it."""

    gap: float
    back: int
    newest: int
    followed: int
    favourites: int
    ruled: int
    unheard: int
    fresh: int
    recent: int
    liked: int
    each: int


class Own(NamedTuple):
    """Sums over a user's own plays."""

    distinct: int
    session: int  # position of the first play of this session
    moves: int  # moves from the last track, and from the last two
    moves2: int
    own1: float  # weight of all own rules from the last track, and from those before it
    own8: float


@inner
def read_history(work: Work, tracks: Keys, times: NDArray[np.float64], book: Book, limits: Limits) -> Own:
    """One pass over the plays, newest first; an entry for each track."""
    begin(work)
    last = len(tracks) - 1
    session = last
    while session > 0 and times[session] - times[session - 1] <= limits.gap:
        session -= 1
    before = tracks[last - 1] if last > 0 else ABSENT
    moves, moves2 = 0, 0
    own1, own8 = 0.0, 0.0
    for position in range(last, -1, -1):
        found = entry_of(work, tracks[position])
        work.at[position] = found
        entry = work.entries[found]
        if entry.count == 0:
            row_of(work, book, found)
            entry.last = times[position]
            entry.newest = position
            if last - position < limits.back and position >= session:
                entry.back = last - position + 1
        entry.count += 1
        entry.first = position
        entry.begin = times[position]
        if position == last:
            continue
        if tracks[position] == tracks[last]:
            following = work.entries[work.at[position + 1]]
            following.moves += 1
            moves += 1
            if position > 0 and tracks[position - 1] == before:
                following.moves2 += 1
                moves2 += 1
        if entry.back > 0:
            near = 1.0 / (entry.back * entry.back)
            for distance in range(1, min(limits.back, last - position) + 1):
                if times[position + distance] - times[position + distance - 1] > limits.gap:
                    break
                weight = 1.0 / (distance * distance)
                target = work.entries[work.at[position + distance]]
                if entry.back == 1:
                    target.own1 += weight
                    own1 += weight
                else:
                    target.own8 += near * weight
                    own8 += near * weight
    distinct = work.state[ENTRIES]
    for place in range(distinct):
        entry = work.entries[place]
        if entry.artist != ABSENT:
            artist = work.artists[artist_of(work, entry.artist, True)]
            artist.plays += entry.count
            artist.tracks += 1
    for position in range(max(last - BACK + 1, 0), last + 1):
        artist = work.entries[work.at[position]].artist
        if artist != ABSENT:
            work.artists[artist_of(work, artist, False)].late += 1
    return Own(distinct, session, moves, moves2, own1, own8)


@inner
def read_rules(work: Work, shared: Tables, tracks: Keys, session: int, limits: Limits) -> int:
    """Everyone's rules from the last plays of the session; returns everyone's moves from the last track."""
    last, moves = len(tracks) - 1, 0
    for distance in range(1, min(limits.back, last - session + 1) + 1):
        row = find(shared.track_places, shared.track_keys, tracks[last - distance + 1])
        if row < 0:
            continue
        source = shared.tracks[row]
        scale = np.float32(1.0) / ((source.rules + np.float32(1.0)) * np.float32(distance * distance))
        for place in range(source.start, source.start + source.size):
            follower = shared.pool[place]
            entry = work.entries[entry_of(work, follower.key)]
            if distance == 1:
                entry.rule1 += follower.weight * scale
                entry.all_moves += follower.moves
            else:
                entry.rule8 += follower.weight * scale
        if distance == 1:
            moves = source.moves
    return moves


@inner
def choose_own(work: Work, own: Own, limits: Limits) -> None:
    """The newest tracks, those that followed one of the last plays before, and the most played."""
    for rank in range(min(own.distinct, limits.newest)):
        choose(work, rank)
    followed, size = 0, 0
    for rank in range(limits.newest, own.distinct):
        entry = work.entries[rank]
        if followed < limits.followed and (entry.moves > 0 or entry.own1 > 0 or entry.own8 > 0):
            choose(work, rank)
            followed += 1
        elif limits.favourites > 0:
            size = keep(work.heap, size, limits.favourites, np.float64(entry.count), entry.key, rank)
    for place in range(size):
        choose(work, work.heap[place].entry)


@inner
def choose_ruled(work: Work, limits: Limits) -> None:
    """The best by everyone's rules that are no candidates yet."""
    size = 0
    for place in range(work.state[ENTRIES]):
        entry = work.entries[place]
        score = entry.rule1 + np.float32(1.5) * entry.rule8
        if entry.chosen == 0 and score > 0 and limits.ruled > 0:
            size = keep(work.heap, size, limits.ruled, np.float64(score), entry.key, place)
    for place in range(size):
        choose(work, work.heap[place].entry)


@inner
def _unheard(work: Work, shared: Tables, artist: int, most: int) -> int:
    """The most played tracks of an artist that this user has not played; returns how many."""
    row = find(shared.artist_places, shared.artist_keys, artist)
    if row < 0 or most <= 0:
        return 0
    size = 0
    start = shared.artists[row].start
    for place in range(start, start + shared.artists[row].size):
        track = shared.pool[place]
        entry = entry_of(work, track.key)
        if work.entries[entry].count == 0 and work.entries[entry].chosen == 0:
            work.entries[entry].artist = artist
            size = keep(work.heap, size, most, np.float64(track.weight), track.key, entry)
    for place in range(size):
        choose(work, work.heap[place].entry)
    return size


@inner
def _fresh(work: Work, shared: Tables, book: Book, artist: int, most: int, look: int) -> int:
    """The artist's newest tracks that nobody has played, of the `look` newest; returns how many."""
    place = find(book.artist_places, book.artist_keys, artist)
    row = book.artists[place].newest if place >= 0 else -1
    taken = 0
    while row >= 0 and taken < most and look > 0:
        key = book.tracks[row].key
        if find(shared.track_places, shared.track_keys, key) < 0:
            entry = entry_of(work, key)
            if work.entries[entry].count == 0 and work.entries[entry].chosen == 0:
                work.entries[entry].artist = artist
                choose(work, entry)
                taken += 1
        row = book.tracks[row].older
        look -= 1
    return taken


@inner
def choose_new(work: Work, shared: Tables, book: Book, limits: Limits, look: int) -> None:
    """Tracks new to this user by the artists last played and by those most played."""
    unheard, fresh = limits.unheard, limits.fresh
    recent = min(limits.recent, work.state[ARTISTS])
    for place in range(recent):
        work.artists[place].used = 1
    size = 0
    for place in range(recent, work.state[ARTISTS]):
        if limits.liked > 0:
            size = keep(
                work.heap, size, limits.liked, np.float64(work.artists[place].plays), work.artists[place].key, place
            )
    best_first(work.heap, size)
    order = np.empty(recent + size, np.int64)
    for place in range(recent):
        order[place] = place
    for place in range(size):
        order[recent + place] = work.heap[place].entry
    for place in order:
        artist = work.artists[place].key
        unheard -= _unheard(work, shared, artist, min(limits.each, unheard))
        fresh -= _fresh(work, shared, book, artist, min(limits.each, fresh), look)
