"""Public data sets and one's own exports, one reader a layout: what they tell of plays, tracks and listeners.

Layouts: Last.fm 1K (O. Celma, 2010), LFM-1b (M. Schedl, ICMR 2016), the JSON lines of ListenBrainz' exports and dumps,
and Spotify's two downloads ("extended streaming history" and "account data").
"""

import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from math import inf
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, NamedTuple, Self
from unicodedata import category
from uuid import UUID, uuid5

from msam.datasets.canonical import YEAR_2200, DatasetError, TrackRow, UserRow

NAMES = UUID("5b0c1b52-6a3c-5d6e-9f0a-6c5f2f6f7e10")
"""Namespace of the ids that are made of names where a source has none."""
LEAST_SECONDS = 30.0
"""A play of Spotify counts from here on, as it does for Spotify itself and for Last.fm."""
NEW_LAYOUT = "has the file another layout?"
EXTENDED = ("Streaming_History_Audio_*.json", "endsong*.json")
ACCOUNT = ("StreamingHistory_music_*.json", "StreamingHistory[0-9]*.json")
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".tar", ".tgz", ".zip", ".7z", ".rar")
_ID_BYTES, _TEXT, _LABELS, _LABEL = 1024, 10_000, 100, 200

FURTHER = "of further listeners"


class Listen(NamedTuple):
    """A play, `timestamp` in Unix seconds UTC, and what its record tells of the track."""

    user_id: str
    timestamp: float
    track: TrackRow


class Skipped(NamedTuple):
    """A record that is no play to learn from, and why."""

    why: str


class Rejected(NamedTuple):
    """A record that cannot be read: its number in the file, from 1 (a line; in Spotify's files an entry)."""

    file: str
    record: int
    why: str


Item = Listen | TrackRow | UserRow | Skipped | Rejected


class Part(NamedTuple):
    """One file of a source; `size` in bytes."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]

    @property
    def base(self) -> str:
        """The name without folders."""
        return self.name.rpartition("/")[2]


class Source:
    """Where an import reads: a folder, a zip archive or one file.

    `user`: whose plays these are where the records do not say. `max_users`: only the listeners met first.
    `advance(bytes)` reports progress.
    """

    def __init__(
        self,
        path: Path,
        user: str | None = None,
        max_users: int | None = None,
        advance: Callable[[int], None] = lambda size: None,
    ) -> None:
        self.path, self.user, self.advance = path, user, advance
        self._max_users = inf if max_users is None else max_users
        self._users: set[str] = set()
        self._archive: zipfile.ZipFile | None = None
        if user is not None:
            try:
                _identity(user, "user")
            except ValueError as error:
                raise DatasetError(str(error)) from None
        with self._readable(path.name):
            if path.is_file() and zipfile.is_zipfile(path):
                self._archive = zipfile.ZipFile(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._archive is not None:
            self._archive.close()

    def parts(self, *patterns: str) -> list[Part]:
        """The files whose names match, in a folder or archive at any depth. DatasetError where there is none."""
        with self._readable(self.path.name):
            every = [part for part in self._all() if not part.base.startswith("._")]  # left in archives by macOS
        found = [part for part in every if any(fnmatchcase(part.base, pattern) for pattern in patterns)]
        if not found:
            packed = next((part.name for part in every if part.base.endswith(_PACKED)), None)
            hint = f"; unpack {packed} first" if packed else ""
            raise DatasetError(f"{self.path} holds no {' or '.join(patterns)}{hint}")
        return found

    def admits(self, user: str) -> bool:
        """Whether the plays of this listener are asked for."""
        if user not in self._users and len(self._users) < self._max_users:
            self._users.add(user)
        return user in self._users

    def lines(self, part: Part, convert: Callable[[str], Item | None]) -> Iterator[Item]:
        """What `convert` makes of every line (None: nothing); Rejected where it raises ValueError."""
        with self._readable(part.name), part.open() as file:
            for number, raw in enumerate(file, 1):
                self.advance(len(raw))
                yield from self._one(part, number, raw, convert)

    def entries(self, part: Part, convert: Callable[[Any], Item]) -> Iterator[Item]:
        """What `convert` makes of every entry of a list in JSON; Rejected where it raises ValueError."""
        entries = self.json(part)
        self.advance(part.size)
        if not isinstance(entries, list):
            raise DatasetError(f"{self.path}: {part.name} is not a list of plays; {NEW_LAYOUT}")
        for number, entry in enumerate(entries, 1):
            yield from self._one(part, number, entry, convert)

    def json(self, part: Part) -> Any:
        """A file of JSON. DatasetError where it is none."""
        with self._readable(part.name), part.open() as file:
            try:
                return json.load(file)
            except (ValueError, RecursionError) as error:
                raise DatasetError(f"{self.path}: {part.name} is not JSON: {error}") from None

    def _one(self, part: Part, number: int, told: Any, convert: Callable[[Any], Item | None]) -> Iterator[Item]:
        try:
            if isinstance(told, bytes):
                told = told.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if not told:
                    return
            item = convert(told)
        except (ValueError, RecursionError) as error:
            item = Rejected(part.name, number, str(error)[:200])
        if isinstance(item, Listen) and not self.admits(item.user_id):
            item = Skipped(FURTHER)
        if item is not None:
            yield item

    @contextmanager
    def _readable(self, name: str) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            raise DatasetError(
                f"cannot read {name} of {self.path}: {getattr(error, 'strerror', None) or error}"
            ) from error
        except RuntimeError as error:  # how zipfile says that a password is needed
            raise DatasetError(f"cannot read {name} of {self.path}: {error}; unpack it first") from error

    def _all(self) -> list[Part]:
        if self.path.is_dir():
            paths = sorted(path for path in self.path.rglob("*") if path.is_file())
            return [_file(path, path.relative_to(self.path).as_posix()) for path in paths]
        if self._archive is None:
            return [_file(self.path, self.path.name)]
        infos = sorted(self._archive.infolist(), key=lambda info: info.filename)
        return [_member(self._archive, info) for info in infos if not info.is_dir()]


def _file(path: Path, name: str) -> Part:
    return Part(name, path.stat().st_size, lambda: path.open("rb"))


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Part:
    return Part(info.filename.replace("\\", "/"), info.file_size, lambda: archive.open(info))


def lastfm1k(source: Source) -> Iterator[Item]:
    """`userid-timestamp-artid-artname-traid-traname.tsv` and, where it is there, `userid-profile.tsv`."""
    readers: dict[str, Callable[[str], Item | None]] = {"timestamp": _lastfm1k_play, "profile": _lastfm1k_profile}
    parts = source.parts("userid-*.tsv")
    for kind, convert in readers.items():
        for part in parts:
            if part.base.startswith(f"userid-{kind}"):
                yield from source.lines(part, convert)


def _lastfm1k_play(line: str) -> Listen:
    user, time, artist_id, artist, track_id, title = _split(line, 6, 6)
    return Listen(_identity(user, "user"), _iso(time), described(track_id, title, artist_id, artist))


def _lastfm1k_profile(line: str) -> UserRow | None:
    user, gender, age, country, *_ = _split(line, 4)
    return None if user == "#id" else UserRow(_identity(user, "user"), gender or None, _age(age), country or None)


def lfm1b(source: Source) -> Iterator[Item]:
    """`LFM-1b_LEs.txt` and, where they are there, the files of users, artists, albums and tracks."""
    artists: dict[str, str | None] = {}
    albums: dict[str, str | None] = {}
    tracks: dict[str, tuple[str | None, str | None]] = {}

    def play(line: str) -> Listen | Skipped:
        user, artist, album, track, time = _split(line, 5, 5)
        if not source.admits(_identity(user, "user")):
            return Skipped(FURTHER)  # nor are names looked up for it
        listen = Listen(
            user, _seconds(time), described(_numbered(track), None, _numbered(artist), None, _numbered(album))
        )
        by, on = listen.track.artist_id, listen.track.album_id
        tracks.setdefault(track, (by, on))
        artists.setdefault(by or "", None)
        albums.setdefault(on or "", None)
        return listen

    def artist(line: str) -> None:
        number, *name = _split(line, 2)
        if number in artists:
            artists[number] = "\t".join(name)

    def album(line: str) -> None:
        number, *name, _ = _split(line, 3)
        if number in albums:
            albums[number] = "\t".join(name)

    def track(line: str) -> TrackRow | None:
        number, *title, _ = _split(line, 3)
        if number not in tracks:
            return None
        by, on = tracks[number]
        return described(number, "\t".join(title), by, artists[by or ""], on, albums[on or ""])

    source.parts("LFM-1b_LEs.txt")  # the one that must be there
    parts = {part.base: part for part in source.parts("LFM-1b_*.txt")}
    readers: dict[str, Callable[[str], Item | None]] = {
        "LEs": play,
        "artists": artist,
        "albums": album,
        "tracks": track,
        "users": _lfm1b_user,
    }
    for kind, convert in readers.items():
        if f"LFM-1b_{kind}.txt" in parts:
            yield from source.lines(parts[f"LFM-1b_{kind}.txt"], convert)


def _lfm1b_user(line: str) -> UserRow | None:
    user, country, age, gender, *_ = _split(line, 4)
    if user == "user_id":
        return None
    return UserRow(_identity(user, "user"), gender if gender in ("m", "f") else None, _age(age), country or None)


def listenbrainz(source: Source) -> Iterator[Item]:
    """One listen a line: `listens/*/*.jsonl` of an export, whose `user.json` names the listener, or `*.listens`."""
    parts = source.parts("*.jsonl", "*.listens", "user.json")
    owners = {part.name.removesuffix("user.json"): source.json(part) for part in parts if part.base == "user.json"}
    listens = [part for part in parts if part.base != "user.json"]
    # An export has other files beside them: feedback, pins.
    for part in [part for part in listens if "/listens/" in f"/{part.name}"] or listens:
        above = max((folder for folder in owners if part.name.startswith(folder)), key=len, default="")
        owner = source.user or _text(owners.get(above), "username")
        yield from source.lines(part, lambda line, owner=owner: _listen(line, owner))  # type: ignore[misc]


def _listen(line: str, owner: str | None) -> Listen:
    record = json.loads(line)
    told = _object(record, "track_metadata")
    more, mapped = _object(told, "additional_info"), _object(told, "mbid_mapping")

    def mbid(name: str) -> str | None:
        return _text(mapped, name) or _text(more, name)

    artists = mapped.get("artist_mbids") or more.get("artist_mbids")
    milliseconds, labels = _number(more, "duration_ms"), more.get("tags")
    track = described(
        mbid("recording_mbid"),
        _text(told, "track_name"),
        _string(artists[0]) if isinstance(artists, list) and artists else None,
        _text(told, "artist_name"),
        mbid("release_mbid"),
        _text(told, "release_name"),
        tuple(label[:_LABEL] for label in map(_string, labels[:_LABELS]) if label) if isinstance(labels, list) else (),
        _number(more, "duration") if milliseconds is None else milliseconds / 1000,
    )
    number = record.get("user_id")
    listener = _text(record, "user_name") or owner or (str(number) if isinstance(number, int | str) else None)
    if not listener:
        raise ValueError("it names no listener, and no user.json does; say whose it is by --user")
    time = record.get("timestamp") if record.get("listened_at") is None else record["listened_at"]
    return Listen(_identity(listener, "user_name"), _seconds(time), track)


def spotify(source: Source) -> Iterator[Item]:
    """The extended streaming history; the account data's one, which knows a year, only where there is no other."""
    parts = source.parts(*EXTENDED, *ACCOUNT)
    extended = [part for part in parts if any(fnmatchcase(part.base, pattern) for pattern in EXTENDED)]
    for part in extended or parts:
        yield from source.entries(part, lambda entry: _stream(entry, source.user))


def _stream(record: Any, user: str | None) -> Listen | Skipped:
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
        kind, _, number = (_text(record, "spotify_track_uri") or "").rpartition(":")
        track = described(number if kind == "spotify:track" else None, title, None, artist, None, album)
    else:
        track = described(None, title, None, _text(record, "artistName"))
    ended = _iso(_text(record, "ts" if extended else "endTime") or "")
    # Newer files do not name the listener, older ones do: one name for all, or one listener would be two.
    return Listen(user or "me", _seconds(ended - played / 1000), track)


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
    """A track. An id that no topic would take counts as unknown; that of the track is made of its names then.

    ValueError where neither an id nor artist and title are known.
    """
    title, artist, album = (text or None for text in (title, artist, album))
    artist_id, album_id, track_id = (
        text if text and _is_identity(text) else None for text in (artist_id, album_id, track_id)
    )
    if track_id is None and not (artist and title):
        raise ValueError("neither an id of the track nor its artist and title")
    for text in (title, artist, album):
        if text is not None and len(text) > _TEXT:
            raise ValueError(f"a name of {len(text)} characters")
    track_id = track_id or named("track", artist, title)
    return TrackRow(track_id, title, artist_id, artist, album_id, album, labels, duration or None, None)


def named(kind: str, *names: str | None) -> str:
    """The id of what has none: the same for the same names (UUID 5)."""
    return str(uuid5(NAMES, json.dumps([kind, *names])))


def _is_identity(text: str) -> bool:
    """What `streams.checks.check_id` takes."""
    if text.isascii() and text.isprintable():  # nearly all of them
        return len(text) <= _ID_BYTES
    return len(text.encode()) <= _ID_BYTES and not any(category(char) == "Cc" for char in text)


def _identity(text: str, what: str) -> str:
    if not text or not _is_identity(text):
        raise ValueError(f"{what} {text[:50]!r} is no identity: empty, too long, or with control characters")
    return text


def _split(line: str, least: int, most: float = inf) -> list[str]:
    cells = line.split("\t")
    if not least <= len(cells) <= most:
        raise ValueError(f"{len(cells)} columns rather than {least}")
    if len(line) > _TEXT:
        raise ValueError(f"{len(line)} characters")
    return cells


def _numbered(text: str) -> str | None:
    return None if text in ("", "-1") else text


def _object(record: Any, name: str) -> dict[str, Any]:
    """A part of a record; an empty one where there is none."""
    found = record.get(name) if isinstance(record, dict) else None
    return found if isinstance(found, dict) else {}


def _text(record: Any, name: str) -> str | None:
    return _string(record.get(name)) if isinstance(record, dict) else None


def _string(value: Any) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    value.encode()  # ValueError for half a character, which no file could hold
    return value


def _number(record: dict[str, Any], name: str) -> float | None:
    found = record.get(name)
    return float(found) if isinstance(found, int | float) and 0 <= found < 1e12 else None


def _age(text: str) -> int | None:
    """-1 and what nobody is old is unknown."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 and 0 < int(text) <= 150 else None


def _iso(text: str) -> float:
    """Unix seconds of a time that is UTC unless it says otherwise."""
    time = datetime.fromisoformat(text)
    return _seconds((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())


def _seconds(value: Any) -> float:
    """A time to the millisecond."""
    shown = repr(value)[:50]
    try:
        time = inf if isinstance(value, bool) or "_" in shown else round(float(value), 3)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"time {shown} is not in seconds") from None
    if not 0 <= time < YEAR_2200:
        raise ValueError(f"time {shown} is not in Unix seconds from 1970 to 2200")
    return time
