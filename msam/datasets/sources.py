"""Public data sets and one's own exports, one reader a layout: what they tell of plays, tracks and listeners.

Layouts: Last.fm 1K (O. Celma, 2010), LFM-1b (M. Schedl, ICMR 2016), the JSON lines of ListenBrainz' exports and dumps,
and Spotify's two downloads ("extended streaming history" and "account data").
"""

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from math import inf
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple
from uuid import UUID, uuid5

from msam.datasets.canonical import YEAR_2200, DatasetError, TrackRow, UserRow

NAMES = UUID("5b0c1b52-6a3c-5d6e-9f0a-6c5f2f6f7e10")
"""Namespace of the ids that are made of names where a source has none."""
LEAST_SECONDS = 30.0
"""A play of Spotify counts from here on, as it does for Spotify itself and for Last.fm."""
EXTENDED = ("Streaming_History_Audio_*.json", "endsong_*.json")
NEW_LAYOUT = "has the file another layout?"

Told = Callable[[int], None]


class Listen(NamedTuple):
    """A play, `timestamp` in Unix seconds UTC, and what its record tells of the track."""

    user_id: str
    timestamp: float
    track: TrackRow


class Skipped(NamedTuple):
    """A record that is no play of music to learn from, and why."""

    why: str


class Rejected(NamedTuple):
    """A record that cannot be read."""

    file: str
    line: int
    why: str


Item = Listen | TrackRow | UserRow | Skipped | Rejected


@dataclass(frozen=True, slots=True)
class Source:
    """Where an import reads: a folder, a zip archive or one file.

    `user`: whose plays these are where the records do not say. `read(bytes)` reports progress.
    """

    path: Path
    user: str | None = None
    read: Told = lambda size: None

    def parts(self, *patterns: str) -> "list[Part]":
        """The files whose names match, in a folder or archive at any depth. DatasetError where there is none."""
        try:
            found = [part for part in self._all() if any(fnmatch(part.base, pattern) for pattern in patterns)]
        except (OSError, zipfile.BadZipFile) as error:
            raise DatasetError(f"cannot read {self.path}: {getattr(error, 'strerror', None) or error}") from error
        if not found:
            raise DatasetError(f"{self.path} holds no {' or '.join(patterns)}")
        return found

    def lines(self, part: "Part", convert: Callable[[str], Item | None]) -> Iterator[Item]:
        """What `convert` makes of every line (None: nothing); Rejected where it raises ValueError."""
        with part.open() as file:
            for number, raw in enumerate(file, 1):
                self.read(len(raw))
                try:
                    item = convert(raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n"))
                except ValueError as error:
                    item = Rejected(part.name, number, str(error))
                if item is not None:
                    yield item

    def _all(self) -> "list[Part]":
        if self.path.is_dir():
            paths = sorted(path for path in self.path.rglob("*") if path.is_file())
            return [_file(path, str(path.relative_to(self.path))) for path in paths]
        if zipfile.is_zipfile(self.path):
            archive = zipfile.ZipFile(self.path)
            return [
                Part(info.filename, info.file_size, lambda info=info: archive.open(info))  # type: ignore[misc]
                for info in sorted(archive.infolist(), key=lambda info: info.filename)
                if not info.is_dir()
            ]
        return [_file(self.path, self.path.name)]


class Part(NamedTuple):
    """One file of a source; `size` in bytes."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]

    @property
    def base(self) -> str:
        """The name without folders."""
        return self.name.rpartition("/")[2]


def _file(path: Path, name: str) -> Part:
    return Part(name, path.stat().st_size, lambda: path.open("rb"))


def lastfm1k(source: Source) -> Iterator[Item]:
    """`userid-timestamp-artid-artname-traid-traname.tsv` and, where it is there, `userid-profile.tsv`."""
    readers: dict[str, Callable[[str], Item | None]] = {"timestamp": _lastfm1k_play, "profile": _lastfm1k_profile}
    parts = source.parts("userid-*.tsv")
    for kind, convert in readers.items():
        for part in parts:
            if part.base.startswith(f"userid-{kind}"):
                yield from source.lines(part, convert)


def _lastfm1k_play(line: str) -> Listen:
    user, time, artist_id, artist, track_id, title = _cells(line, 6, 6)
    return Listen(_known(user, "user"), _iso(time), described(track_id, title, artist_id, artist))


def _lastfm1k_profile(line: str) -> UserRow | None:
    user, gender, age, country, *_ = _cells(line, 4)
    return None if user == "#id" else UserRow(_known(user, "user"), gender or None, _age(age), country or None)


def lfm1b(source: Source) -> Iterator[Item]:
    """`LFM-1b_LEs.txt` and, where they are there, the files of users, artists, albums and tracks."""
    artists: dict[str, str | None] = {}
    albums: dict[str, str | None] = {}
    tracks: dict[str, tuple[str | None, str | None]] = {}

    def play(line: str) -> Listen:
        user, artist, album, track, time = _cells(line, 5, 5)
        by, on = _numbered(artist), _numbered(album)
        if by:
            artists.setdefault(by, None)
        if on:
            albums.setdefault(on, None)
        track = _known(_numbered(track) or "", "track")
        tracks.setdefault(track, (by, on))
        return Listen(_known(user, "user"), _seconds(time), described(track, "", by, "", on))

    def name(names: dict[str, str | None]) -> Callable[[str], None]:
        def note(line: str) -> None:
            number, text, *_ = _cells(line, 2)
            if number in names:
                names[number] = text or None

        return note

    def track(line: str) -> TrackRow | None:
        number, title, *_ = _cells(line, 2)
        if number not in tracks:
            return None
        by, on = tracks[number]
        return described(number, title, by, artists.get(by or ""), on, albums.get(on or ""))

    for part in source.parts("LFM-1b_LEs.txt"):
        yield from source.lines(part, play)
    readers = {"artists": name(artists), "albums": name(albums), "tracks": track, "users": _lfm1b_user}
    there = {part.base: part for part in source.parts("LFM-1b_*.txt")}
    for kind, convert in readers.items():
        if f"LFM-1b_{kind}.txt" in there:
            yield from source.lines(there[f"LFM-1b_{kind}.txt"], convert)


def _lfm1b_user(line: str) -> UserRow | None:
    user, country, age, gender, *_ = _cells(line, 4)
    if user == "user_id":
        return None
    return UserRow(_known(user, "user"), gender if gender in ("m", "f") else None, _age(age), country or None)


def listenbrainz(source: Source) -> Iterator[Item]:
    """One listen a line: `listens/*/*.jsonl` of an export, whose `user.json` names the listener, or `*.listens`."""
    parts = source.parts("*.jsonl", "*.listens", "user.json")
    user = source.user
    for part in parts:
        if part.base == "user.json" and user is None:
            with part.open() as file:
                user = _text(_load(source, part, file), "username")
    for part in parts:
        if part.base not in ("user.json", "feedback.jsonl", "pinned_recording.jsonl"):
            yield from source.lines(part, lambda line: _listen(line, user))


def _listen(line: str, user: str | None) -> Listen:
    record = json.loads(line)
    told = _object(record, "track_metadata")
    more, mapped = _object(told, "additional_info"), _object(told, "mbid_mapping")

    def mbid(name: str) -> str | None:
        return _text(mapped, name) or _text(more, name)

    artists = mapped.get("artist_mbids") or more.get("artist_mbids")
    first = {"mbid": artists[0]} if isinstance(artists, list) and artists else {}
    milliseconds, labels = _number(more, "duration_ms"), more.get("tags")
    track = described(
        mbid("recording_mbid"),
        _text(told, "track_name"),
        _text(first, "mbid"),
        _text(told, "artist_name"),
        mbid("release_mbid"),
        _text(told, "release_name"),
        tuple(label for label in labels if isinstance(label, str)) if isinstance(labels, list) else (),
        _number(more, "duration") if milliseconds is None else milliseconds / 1000,
    )
    listener = _text(record, "user_name") or user
    if listener is None:
        raise ValueError("no user_name, and no user.json beside; say whose listens these are by --user")
    return Listen(listener, _seconds(record.get("listened_at", record.get("timestamp"))), track)


def spotify(source: Source) -> Iterator[Item]:
    """The extended streaming history; the account data's one, which knows a year, only where there is no other."""
    parts = source.parts(*EXTENDED, "StreamingHistory_music_*.json", "StreamingHistory[0-9]*.json")
    extended = [part for part in parts if any(fnmatch(part.base, pattern) for pattern in EXTENDED)]
    for part in extended or parts:
        source.read(part.size)
        with part.open() as file:
            records = _load(source, part, file)
        if not isinstance(records, list):
            raise DatasetError(f"{source.path}: {part.name} is not a list of plays; {NEW_LAYOUT}")
        for number, record in enumerate(records, 1):
            try:
                yield _stream(record, source.user or "me")
            except ValueError as error:
                yield Rejected(part.name, number, str(error))


def _stream(record: Any, user: str) -> Listen | Skipped:
    if not isinstance(record, dict):
        raise ValueError("not an object")
    extended = "ts" in record
    played = _number(record, "ms_played" if extended else "msPlayed")
    if played is None:
        raise ValueError("it does not say how long it was played")
    title = _text(record, "master_metadata_track_name" if extended else "trackName")
    if extended and title is None:
        return Skipped("of no music")  # a podcast, a video, or a track that is gone
    if record.get("incognito_mode"):
        return Skipped("of private sessions")
    if played < LEAST_SECONDS * 1000:
        return Skipped(f"of less than {LEAST_SECONDS:.0f} s")
    if extended:
        artist, album = (_text(record, f"master_metadata_album_{name}_name") for name in ("artist", "album"))
        uri = (_text(record, "spotify_track_uri") or "").rpartition(":")[2]
        track, listener = described(uri, title, None, artist, None, album), _text(record, "username")
    else:
        track, listener = described(None, title, None, _text(record, "artistName")), None
    ended = _iso(_text(record, "ts" if extended else "endTime") or "")
    return Listen(listener or user, ended - played / 1000, track)


Layout = Literal["lastfm1k", "lfm1b", "listenbrainz", "spotify"]
SOURCES: dict[Layout, Callable[[Source], Iterable[Item]]] = {
    "lastfm1k": lastfm1k,
    "lfm1b": lfm1b,
    "listenbrainz": listenbrainz,
    "spotify": spotify,
}


def described(
    track_id: str | None,
    title: str | None,
    artist_id: str | None,
    artist: str | None,
    album_id: str | None = None,
    album: str | None = None,
    labels: tuple[str, ...] = (),
    duration: float | None = None,
) -> TrackRow:
    """A track. Ids that are not known are made of the names, the same for the same names.

    ValueError where neither an id nor artist and title are known.
    """
    if not track_id and not (artist and title):
        raise ValueError("neither an id of the track nor its artist and title")
    artist_id = artist_id or (_named("artist", artist) if artist else None)
    album_id = album_id or (_named("album", artist or "", album) if album else None)
    track_id = track_id or _named("track", artist or "", title or "")
    return TrackRow(
        track_id, title or None, artist_id, artist or None, album_id, album or None, labels, duration or None, None
    )


def _named(*names: str) -> str:
    return str(uuid5(NAMES, "\n".join(names)))


def _cells(line: str, least: int, most: float = inf) -> list[str]:
    cells = line.split("\t")
    if not least <= len(cells) <= most:
        raise ValueError(f"{len(cells)} columns rather than {least}")
    return cells


def _known(value: str, what: str) -> str:
    if not value:
        raise ValueError(f"no {what}")
    return value


def _numbered(text: str) -> str | None:
    return None if text in ("", "-1") else text


def _load(source: Source, part: Part, file: IO[bytes]) -> Any:
    try:
        return json.load(file)
    except ValueError as error:
        raise DatasetError(f"{source.path}: {part.name} is not JSON: {error}") from None


def _object(record: Any, name: str) -> dict[str, Any]:
    """A part of a record; an empty one where there is none."""
    found = record.get(name) if isinstance(record, dict) else None
    return found if isinstance(found, dict) else {}


def _text(record: Any, name: str) -> str | None:
    found = record.get(name) if isinstance(record, dict) else None
    if not isinstance(found, str) or not found:
        return None
    found.encode()  # ValueError for half a character, which no file could hold
    return found


def _number(record: dict[str, Any], name: str) -> float | None:
    found = record.get(name)
    return float(found) if isinstance(found, int | float) and 0 <= found < 1e12 else None


def _age(text: str) -> int | None:
    """-1 and what nobody is old is unknown."""
    return int(text) if text.isascii() and text.isdigit() and 0 < int(text) <= 150 else None


def _iso(text: str) -> float:
    """Unix seconds of a time that is UTC unless it says otherwise."""
    time = datetime.fromisoformat(text)
    return _seconds((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())


def _seconds(value: Any) -> float:
    try:
        time = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"time {value!r} is not in seconds") from None
    if not 0 <= time < YEAR_2200:
        raise ValueError(f"time {value!r} is not in Unix seconds from 1970 to 2200")
    return time
