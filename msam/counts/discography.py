"""Which artist and album a track is of, and which tracks an artist has: known from metadata, played or not."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msam.counts.compiled import compiled, inner
from msam.counts.keys import ABSENT, Keys, Rows, find, find_all, put, table_for

Records = NDArray[Any]
# next, previous: the artist's older and newer track (rows, -1 none).
TRACK = np.dtype(
    [("key", "i8"), ("artist", "i8"), ("album", "i8"), ("older", "i4"), ("newer", "i4"), ("gone", "i4"), ("pad", "i4")]
)
ARTIST = np.dtype([("key", "i8"), ("newest", "i4"), ("size", "i4")])


class Book(NamedTuple):
    """The arrays that compiled code reads."""

    tracks: Records
    track_keys: Keys
    track_places: Rows
    artists: Records
    artist_keys: Keys
    artist_places: Rows


@inner
def _unlink(book: Book, row: int) -> None:
    track = book.tracks[row]
    if track.artist == ABSENT or track.gone:
        return
    place = find(book.artist_places, book.artist_keys, track.artist)
    artist = book.artists[place]
    if track.newer >= 0:
        book.tracks[track.newer].older = track.older
    else:
        artist.newest = track.older
    if track.older >= 0:
        book.tracks[track.older].newer = track.newer
    artist.size -= 1


@inner
def _enter(book: Book, sizes: Keys, key: int, artist: int, album: int, gone: int) -> None:
    """sizes: int64 [tracks, artists], how many rows are taken."""
    row = find(book.track_places, book.track_keys, key)
    if row < 0:
        row = sizes[0]
        sizes[0] += 1
        book.track_keys[row] = key
        put(book.track_places, key, row)
        book.tracks[row].key = key
    elif book.tracks[row].artist == artist and book.tracks[row].gone == gone:
        book.tracks[row].album = album
        return
    else:
        _unlink(book, row)
    track = book.tracks[row]
    track.artist = artist
    track.album = album
    track.gone = gone
    track.older = -1
    track.newer = -1
    if artist == ABSENT or gone:
        return
    place = find(book.artist_places, book.artist_keys, artist)
    if place < 0:
        place = sizes[1]
        sizes[1] += 1
        book.artist_keys[place] = artist
        put(book.artist_places, artist, place)
        book.artists[place].key = artist
        book.artists[place].newest = -1
        book.artists[place].size = 0
    newest = book.artists[place].newest
    track.older = newest
    if newest >= 0:
        book.tracks[newest].newer = row
    book.artists[place].newest = row
    book.artists[place].size += 1


@compiled
def _update(book: Book, sizes: Keys, keys: Keys, artists: Keys, albums: Keys, gone: int) -> int:
    for index in range(len(keys)):
        if sizes[0] == len(book.tracks) or sizes[1] == len(book.artists):
            return index
        _enter(book, sizes, keys[index], artists[index], albums[index], gone)
    return len(keys)


class Discography:
    """A fold over changes of track metadata, in their order; what it tells depends on them alone."""

    def __init__(self) -> None:
        self._sizes = np.zeros(2, dtype=np.int64)
        self.book = _empty(64, 64)

    def __len__(self) -> int:
        return int(self._sizes[0])

    def update(self, tracks: Keys, artists: Keys, albums: Keys) -> None:
        """Keys of tracks and of their artist and album (0: unknown), [n] each; the last word on a track counts."""
        self._enter(tracks, artists, albums, 0)

    def withdraw(self, tracks: Keys) -> None:
        """Tracks that must not become candidates; an `update` brings one back."""
        artists, albums = self.look_up(tracks)
        self._enter(tracks, artists, albums, 1)

    def look_up(self, tracks: Keys) -> tuple[Keys, Keys]:
        """Keys of the artists and albums of tracks [n], 0 where unknown."""
        rows = np.empty(len(tracks), np.int64)
        find_all(self.book.track_places, self.book.track_keys, tracks, rows)
        known = self.book.tracks[np.maximum(rows, 0)]
        return np.where(rows >= 0, known["artist"], ABSENT), np.where(rows >= 0, known["album"], ABSENT)

    def artist_of(self, track: int) -> int:
        """Key of a track's artist, 0 where unknown."""
        row = find(self.book.track_places, self.book.track_keys, track)
        return int(self.book.tracks["artist"][row]) if row >= 0 else ABSENT

    def _enter(self, tracks: Keys, artists: Keys, albums: Keys, gone: int) -> None:
        done = 0
        while done < len(tracks):
            done += _update(self.book, self._sizes, tracks[done:], artists[done:], albums[done:], gone)
            if done < len(tracks):
                self._grow()

    def _grow(self) -> None:
        """Twice the room for whichever kind is full."""
        sizes = [
            len(old) * (2 if int(size) == len(old) else 1)
            for old, size in zip((self.book.tracks, self.book.artists), self._sizes, strict=True)
        ]
        new = _empty(*sizes)
        for field in ("tracks", "track_keys", "artists", "artist_keys"):
            old = getattr(self.book, field)
            getattr(new, field)[: len(old)] = old
        tracks, artists = self._sizes.tolist()
        self.book = new._replace(
            track_places=table_for(new.track_keys, tracks, sizes[0]),
            artist_places=table_for(new.artist_keys, artists, sizes[1]),
        )


def _empty(tracks: int, artists: int) -> Book:
    track_keys, artist_keys = np.zeros(tracks, np.int64), np.zeros(artists, np.int64)
    return Book(
        np.zeros(tracks, TRACK),
        track_keys,
        table_for(track_keys, 0, tracks),
        np.zeros(artists, ARTIST),
        artist_keys,
        table_for(artist_keys, 0, artists),
    )
