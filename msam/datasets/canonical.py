"""The canonical CSVs: plays, tracks and users. Readers stream; every error names file and line."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple, TypeVar

from msam.errors import MethodError

PLAYS = ("user_id", "track_id", "timestamp")
TRACKS = ("track_id", "title", "artist_id", "artist", "album_id", "album")
TRACKS_OPTIONAL = ("labels", "duration", "release_year")
USERS = ("user_id", "gender", "age", "country")
LABEL_SEPARATOR = "|"
YEAR_2200 = 7258118400.0

Row = TypeVar("Row")
Cells = Mapping[str, str]


class DatasetError(MethodError):
    """A data file is not what it has to be; the message names file, line and column."""


class PlayRow(NamedTuple):
    """A play; `timestamp` in Unix seconds UTC."""

    user_id: str
    track_id: str
    timestamp: float


class TrackRow(NamedTuple):
    """A track; None = unknown, `duration` in seconds."""

    track_id: str
    title: str | None
    artist_id: str | None
    artist: str | None
    album_id: str | None
    album: str | None
    labels: tuple[str, ...]
    duration: float | None
    release_year: int | None


class UserRow(NamedTuple):
    """A listener; None = unknown."""

    user_id: str
    gender: str | None
    age: int | None
    country: str | None


def read_plays(path: Path) -> list[PlayRow]:
    """All plays in file order; DatasetError names the line that is wrong."""
    return [row for _, row in iter_plays(path)]


def read_tracks(path: Path) -> list[TrackRow]:
    """All tracks in file order; DatasetError names the line that is wrong."""
    return [row for _, row in iter_tracks(path)]


def read_users(path: Path) -> list[UserRow]:
    """All users in file order; DatasetError names the line that is wrong."""
    return [row for _, row in iter_users(path)]


def iter_plays(path: Path) -> Iterator[tuple[int, PlayRow]]:
    """(line, play) of a CSV with the columns PLAYS."""
    return iter_rows(path, PLAYS, _play)


def iter_tracks(path: Path) -> Iterator[tuple[int, TrackRow]]:
    """(line, track) of a CSV with the columns TRACKS and, if it has them, TRACKS_OPTIONAL (`year` is release_year)."""
    return iter_rows(path, TRACKS, _track)


def iter_users(path: Path) -> Iterator[tuple[int, UserRow]]:
    """(line, user) of a CSV with the columns USERS."""
    return iter_rows(path, USERS, _user)


def iter_rows(path: Path, columns: tuple[str, ...], convert: Callable[[Cells], Row]) -> Iterator[tuple[int, Row]]:
    """(line, converted row) of a CSV whose header has the columns, in any order; other columns are ignored.

    `convert` raises ValueError for a bad row; what is yielded before the bad row stands.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            _check_header(path, reader.fieldnames, columns)
            for cells in _records(path, reader):
                try:
                    yield reader.line_num, convert(cells)
                except ValueError as error:
                    raise DatasetError(f"{path}:{reader.line_num}: {error}") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{path}:{_undecodable(path)}: not UTF-8; convert the file to UTF-8") from None
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error


def _records(path: Path, reader: "csv.DictReader[str]") -> Iterator[dict[str, str]]:
    width = len(reader.fieldnames or ())
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:  # raised before the line is counted
            raise DatasetError(f"{path}:{reader.line_num + 1}: not valid CSV: {error}") from None
        if cells is None:
            return
        # DictReader files surplus cells under None and fills missing ones with None.
        if None in cells or None in cells.values():
            raise DatasetError(f"{path}:{reader.line_num}: the header has {width} columns, this row has not")
        yield cells


def _check_header(path: Path, header: Sequence[str] | None, columns: tuple[str, ...]) -> None:
    missing = [name for name in columns if name not in (header or ())]
    if missing:
        raise DatasetError(f"{path}:1: no column {', '.join(missing)}; the header must have {','.join(columns)}")


def _undecodable(path: Path) -> int:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 0


def _play(cells: Cells) -> PlayRow:
    stamp = cells["timestamp"]
    time = _number("timestamp", stamp)
    if not 0.0 <= time < YEAR_2200:
        raise ValueError(f"timestamp {stamp!r} is not in Unix seconds from 1970 to 2200")
    return PlayRow(_id("user_id", cells), _id("track_id", cells), time)


def _track(cells: Cells) -> TrackRow:
    labels = tuple(label.strip() for label in cells.get("labels", "").split(LABEL_SEPARATOR) if label.strip())
    duration = cells.get("duration", "")
    year = cells.get("release_year") or cells.get("year", "")
    return TrackRow(
        _id("track_id", cells),
        cells["title"] or None,
        cells["artist_id"] or None,
        cells["artist"] or None,
        cells["album_id"] or None,
        cells["album"] or None,
        labels,
        _number("duration", duration) if duration else None,
        _whole("year", year, 9999) if year else None,
    )


def _user(cells: Cells) -> UserRow:
    age = cells["age"]
    whole = _whole("age", age, 150) if age else None
    return UserRow(_id("user_id", cells), cells["gender"] or None, whole, cells["country"] or None)


def _id(name: str, cells: Cells) -> str:
    value = cells[name]
    if not value:
        raise ValueError(f"{name} is empty")
    return value


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name} {text!r} is not a number") from None
    if not 0.0 <= value < inf or "_" in text:
        raise ValueError(f"{name} {text!r} is not a number from 0 up")
    return value


def _whole(name: str, text: str, high: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= high):
        raise ValueError(f"{name} {text!r} is not a whole number from 0 to {high}")
    return int(text)
