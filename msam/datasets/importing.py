"""What a source tells becomes canonical CSVs: plays by time, and every track and listener that has any."""

import csv
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msam.datasets.canonical import (
    LABEL_SEPARATOR,
    PLAYS,
    TRACKS,
    TRACKS_OPTIONAL,
    USERS,
    DatasetError,
    TrackRow,
    UserRow,
)
from msam.datasets.sources import NEW_LAYOUT, Item, Listen, Rejected, Skipped, named

REJECTED = ("file", "record", "reason")
FILES = ("plays.csv", "tracks.csv", "users.csv", "rejected.csv")
_GIVE_UP, _SLICE = 1000, 65_536

Columns = Sequence[Any]


class Summary(NamedTuple):
    """What an import wrote, and how many records it left out and why."""

    plays: int
    tracks: int
    users: int
    duplicates: int
    rejected: int
    skipped: dict[str, int]


def convert(items: Iterable[Item], out: Path) -> Summary:
    """Write plays.csv, tracks.csv, users.csv where profiles are told, and rejected.csv where records are unreadable.

    Plays are sorted by time, equal ones as they came; the same play twice is one. What the first record of a track
    lacks is filled from later ones. Held in memory: some 60 bytes a play, all tracks, all that is rejected. No file has
    its name before all are written. DatasetError where `out` holds such a file or cannot be written, where there is no
    play, and where more records are unreadable than not.
    """
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            if (out / name).exists():
                raise DatasetError(f"{out / name} exists; name another folder")
    told = _Told()
    for item in items:
        told.add(item)
    told.check()
    plays = _once(*(np.asarray(column) for column in (told.of_user, told.of_track, told.times)))
    tables: dict[str, tuple[Columns, Iterable[Columns]]] = {
        "plays.csv": (PLAYS, told.plays(plays)),
        "tracks.csv": ((*TRACKS, *TRACKS_OPTIONAL), (_columns(row) for row in told.rows)),
    }
    if told.profiles:
        tables["users.csv"] = (USERS, (told.profiles[user] for user in told.users if user in told.profiles))
    if told.rejected:
        tables["rejected.csv"] = (REJECTED, told.rejected)
    _write(out, tables)
    return Summary(
        plays=len(plays),
        tracks=len(told.rows),
        users=len(told.users),
        duplicates=len(told.times) - len(plays),
        rejected=len(told.rejected),
        skipped=dict(told.skipped),
    )


class _Told:
    """All that was told so far."""

    def __init__(self) -> None:
        self._tracks: dict[str, int] = {}
        self.users: dict[str, int] = {}
        self.rows: list[TrackRow] = []
        self.profiles: dict[str, UserRow] = {}
        self.rejected: list[Rejected] = []
        self.skipped: Counter[str] = Counter()
        self.of_user, self.of_track, self.times = array("i"), array("i"), array("d")

    def add(self, item: Item) -> None:
        """Take in one more record. DatasetError where the file cannot be what it should be."""
        match item:
            case Listen():
                self._listen(item)
            case TrackRow():
                self._fill(item)
            case UserRow():
                if item.user_id in self.users:
                    self.profiles[item.user_id] = item
            case Skipped():
                self.skipped[item.why] += 1
            case Rejected():
                self.rejected.append(item)
                if len(self.rejected) % _GIVE_UP == 0:
                    self._check_layout()

    def check(self) -> None:
        """DatasetError where no play was told, or more records are unreadable than not."""
        self._check_layout()
        if not self.times:
            why = "; ".join(f"{count} records left out: {why}" for why, count in self.skipped.items())
            raise DatasetError(f"no play found{': ' if why else ''}{why}")

    def _check_layout(self) -> None:
        if len(self.rejected) > len(self.times) + self.skipped.total():
            file, record, reason = self.rejected[0]
            raise DatasetError(f"{file}:{record}: {reason}; more records are unreadable than not: {NEW_LAYOUT}")

    def plays(self, order: NDArray[np.int64]) -> Iterator[tuple[str, str, float]]:
        """The rows of plays.csv."""
        users = list(self.users)
        for start in range(0, len(order), _SLICE):
            for play in order[start : start + _SLICE].tolist():
                yield users[self.of_user[play]], self.rows[self.of_track[play]].track_id, _short(self.times[play])

    def _listen(self, play: Listen) -> None:
        self.of_user.append(self.users.setdefault(play.user_id, len(self.users)))
        self.of_track.append(self._tracks.setdefault(play.track.track_id, len(self.rows)))
        self.times.append(play.timestamp)
        if self.of_track[-1] == len(self.rows):
            self.rows.append(play.track)
        else:
            self._fill(play.track)

    def _fill(self, track: TrackRow) -> None:
        place = self._tracks.get(track.track_id)
        if place is not None and self.rows[place] != track:
            self.rows[place] = TrackRow._make(
                new if old is None or old == () else old for old, new in zip(self.rows[place], track, strict=True)
            )


def _once(users: NDArray[Any], tracks: NDArray[Any], times: NDArray[Any]) -> NDArray[np.int64]:
    """Plays in the order of time, the first of those that agree in everything."""
    alike = np.lexsort((tracks, users, times))  # stable
    again = np.zeros(len(times), dtype=np.bool_)
    again[1:] = np.logical_and.reduce([np.diff(column[alike]) == 0 for column in (users, tracks, times)])
    kept = np.sort(alike[~again])
    return np.asarray(kept[np.argsort(times[kept], kind="stable")], dtype=np.int64)


def _short(time: float) -> float | int:
    """Whole seconds without a point."""
    return int(time) if time.is_integer() else time


def _columns(track: TrackRow) -> Columns:
    """A row of tracks.csv; artist and album have ids of their names where none was ever told."""
    artist_id = track.artist_id or (named("artist", track.artist) if track.artist else None)
    album_id = track.album_id or (named("album", track.artist, track.album) if track.album else None)
    labels = LABEL_SEPARATOR.join(label.replace(LABEL_SEPARATOR, " ") for label in track.labels)
    row = track._replace(artist_id=artist_id, album_id=album_id)
    return [*row[:6], labels, *row[7:]]


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DatasetError(f"cannot write to {out}: {error.strerror or error}") from error


def _write(out: Path, tables: dict[str, tuple[Columns, Iterable[Columns]]]) -> None:
    """All files or none, each first beside its name."""
    made: list[Path] = []
    try:
        with _writing(out):
            for name, (header, rows) in tables.items():
                made.append(out / f"{name}.part")
                # Half a character in a file's name must not cost the import.
                with made[-1].open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
                    # Lines end as in RFC 4180: with "\n" alone, "\r" in a name would not be quoted.
                    writer = csv.writer(file)
                    writer.writerow(header)
                    writer.writerows(rows)  # None becomes an empty cell
            for part in list(made):
                made.append(part.with_suffix(""))
                part.replace(made[-1])
    except BaseException:
        for path in made:
            with suppress(OSError):
                path.unlink()
        raise
