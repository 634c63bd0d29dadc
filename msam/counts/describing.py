"""Inputs of the wide head for each candidate."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from msam.counts.compiled import inner
from msam.counts.discography import Book
from msam.counts.folding import BACK, Tables, count_of, sequence_tag
from msam.counts.gathering import Own
from msam.counts.keys import ABSENT, Keys, find
from msam.counts.work import CHOSEN, Work, artist_of, row_of

# log is log(1 + x); times in hours.
FEATURES = (
    "rules from the last play",
    "rules from the plays before it",
    "own moves from the last play",
    "own rules from the last play",
    "own rules from the plays before it",
    "1 / (1 + rank)",
    "log rank",
    "log own plays",
    "share of own plays",
    "own plays over own tracks",
    "everyone's moves from the last play",
    "log everyone's moves from the last play",
    "own moves from the last two plays",
    "everyone's moves from the last two plays",
    "log everyone's plays",
    "log time since the own last play",
    "new to this user",
    "same artist",
    "same album",
    "same track",
    "in this session",
    "log gap before the last play",
    "log position in the session",
    "log own history",
    "share of first plays among the last 50",
    "log own plays of the last track",
    "never played by anyone",
    "log time since anyone's first play",
    "log time since anyone's last play",
    "log own plays of the artist",
    "artist's share of the last plays",
    "log tracks of the artist not played",
    "share of the artist's tracks played",
    "1 / (1 + rank of the artist)",
    "log everyone's plays of the artist",
    "log time since the own last play over the usual time",
)
_LATE = 50
_LOGS = np.log1p(np.arange(1024.0))  # a look-up costs a fifth of a logarithm
WIDTH = len(FEATURES)


@inner
def _hours(seconds: float) -> float:
    return math.log(1.0 + max(seconds, 0.0) / 3600.0)


@inner
def _log(count: int) -> float:
    return float(_LOGS[count]) if 0 <= count < 1024 else math.log(1.0 + count)


@inner
def _novelty(work: Work, plays: int) -> float:
    """Share of the last plays that were the first of their track."""
    late = min(_LATE, plays)
    new = 0
    for position in range(plays - late, plays):
        if work.entries[work.at[position]].first == position:
            new += 1
    return new / late


@inner
def describe(
    work: Work,
    tracks: Keys,
    times: NDArray[np.float64],
    own: Own,
    moves: int,
    shared: Tables,
    book: Book,
    keys: Keys,
    features: NDArray[np.float32],
) -> int:
    """Write key and features of every chosen entry; returns how many. Withdrawn tracks are left out."""
    plays = len(tracks)
    last, now = tracks[plays - 1], times[plays - 1]
    before = tracks[plays - 2] if plays > 1 else ABSENT
    last_artist = work.entries[work.at[plays - 1]].artist
    row = row_of(work, book, work.at[plays - 1])
    last_album = book.tracks[row].album if row >= 0 else ABSENT
    pairs = count_of(shared.pair_tags, shared.pair_counts, sequence_tag(before, last, 0)) if plays > 1 else 0
    gap = _hours(now - times[plays - 2]) if plays > 1 else 0.0
    position = math.log1p(plays - own.session)
    length = math.log1p(plays)
    novelty = _novelty(work, plays)
    last_plays = math.log1p(work.entries[work.at[plays - 1]].count)
    done = 0
    for place in range(work.state[CHOSEN]):
        found = work.chosen[place]
        entry = work.entries[found]
        row = row_of(work, book, found)
        if row >= 0 and book.tracks[row].gone:
            continue
        artist = entry.artist
        album = book.tracks[row].album if row >= 0 else ABSENT
        out = features[done]
        keys[done] = entry.key
        done += 1
        out[0] = entry.rule1
        out[1] = entry.rule8
        out[2] = entry.moves / (own.moves + 1.0)
        out[3] = entry.own1 / (own.own1 + 1.0)
        out[4] = entry.own8 / (own.own8 + 1.0)
        if entry.count > 0:
            out[5] = 1.0 / (1.0 + found)
            out[6] = _log(found)
            out[7] = _log(entry.count)
            out[8] = entry.count / plays
            out[9] = entry.count / own.distinct
            out[15] = _hours(now - entry.last)
            out[20] = 1.0 if entry.newest >= own.session else 0.0
            if entry.count > 1:
                out[35] = out[15] - _hours((entry.last - entry.begin) / (entry.count - 1))
        else:
            out[16] = 1.0
        out[10] = entry.all_moves / (moves + 1.0)
        out[11] = _log(entry.all_moves)
        out[12] = entry.moves2 / (own.moves2 + 1.0)
        if pairs > 0:
            tag = sequence_tag(before, last, entry.key)
            out[13] = count_of(shared.pair_tags, shared.pair_counts, tag) / (pairs + 1.0)
        row = find(shared.track_places, shared.track_keys, entry.key)
        if row >= 0:
            track = shared.tracks[row]
            out[14] = _log(track.plays)
            out[27] = _hours(now - track.first)
            out[28] = _hours(now - track.last)
        else:
            out[26] = 1.0
        out[17] = 1.0 if artist != ABSENT and artist == last_artist else 0.0
        out[18] = 1.0 if album != ABSENT and album == last_album else 0.0
        out[19] = 1.0 if entry.key == last else 0.0
        out[21] = gap
        out[22] = position
        out[23] = length
        out[24] = novelty
        out[25] = last_plays
        if artist != ABSENT:
            known = artist_of(work, artist, False)
            played = 0
            if known >= 0:
                out[29] = _log(work.artists[known].plays)
                out[30] = work.artists[known].late / min(BACK, plays)
                out[33] = 1.0 / (1.0 + known)
                played = work.artists[known].tracks
            row = find(book.artist_places, book.artist_keys, artist)
            size = max(book.artists[row].size, played) if row >= 0 else played
            out[31] = _log(size - played)
            out[32] = played / size if size > 0 else 0.0
            row = find(shared.artist_places, shared.artist_keys, artist)
            if row >= 0:
                out[34] = _log(shared.artists[row].plays)
    return done
