"""Files as records to publish: canonical CSV, JSON lines, audio folders. Pure reading; errors name file and line."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from msam.datasets import canonical
from msam.datasets.canonical import Cells, DatasetError, PlayRow, TrackRow, UserRow, iter_rows
from streams.checks import check
from streams.errors import MsamError
from streams.records import AudioUpload, Play, Record, RecordError, TrackMetadata, UserProfile
from streams.serialization import decode

Format = Literal["csv", "jsonl"]
R = TypeVar("R", bound=Record)
Row = TypeVar("Row")

INLINE_LIMIT = 10 * 2**20  # what the topic audio-uploads is made for
AUDIO_TYPES = {
    ".wav": "audio/wav",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".aif": "audio/aiff",
    ".aiff": "audio/aiff",
    ".m4a": "audio/mp4",
}


class SourceError(MsamError):
    """A file cannot be published as it is; the message names file and line."""


@dataclass(frozen=True, slots=True)
class Event:
    """A record to publish and where it was read, `file:line`."""

    where: str
    record: Record


def plays(path: Path, form: Format | None = None) -> Iterator[Event]:
    """Plays of a CSV or JSON-lines file, in file order."""
    return _events(path, form, Play, canonical.iter_plays, _play)


def tracks(path: Path, form: Format | None = None) -> Iterator[Event]:
    """Track metadata of a CSV or JSON-lines file."""
    return _events(path, form, TrackMetadata, canonical.iter_tracks, _track)


def profiles(path: Path, form: Format | None = None) -> Iterator[Event]:
    """User profiles of a CSV or JSON-lines file."""
    return _events(path, form, UserProfile, canonical.iter_users, _profile)


def audio(path: Path, form: Format | None = None, *, inline: bool = False) -> Iterator[Event]:
    """Uploads of a folder (track_id = file stem), of a CSV with track_id, path, or of JSON lines.

    By reference (file:// and sha256) unless `inline`, which takes files of at most INLINE_LIMIT bytes. Relative paths
    in a CSV count from the CSV's folder.
    """
    if path.is_dir():
        if form is not None:
            raise SourceError(f"{path} is a folder; leave --format out")
        found = _folder(path)
    elif _form(path, form) == "jsonl":
        yield from _json_lines(path, AudioUpload)
        return
    else:
        found = (
            (f"{path}:{line}", track_id, path.parent / name)
            for line, (track_id, name) in iter_rows(path, ("track_id", "path"), _clip)
        )
    for where, track_id, file in found:
        yield _checked(where, _upload(where, track_id, file, inline))


def count(path: Path) -> int:
    """About how many records a file or folder holds, for a progress bar: lines but the header, or audio files."""
    if path.is_dir():
        return sum(1 for _ in _folder(path))
    try:
        with path.open("rb") as file:
            return max(0, sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b"")) - 1)
    except OSError:
        return 0


def _events(
    path: Path,
    form: Format | None,
    cls: type[R],
    rows: Callable[[Path], Iterator[tuple[int, Row]]],
    convert: Callable[[Row], Record],
) -> Iterator[Event]:
    if _form(path, form) == "jsonl":
        yield from _json_lines(path, cls)
        return
    for line, row in rows(path):
        yield _checked(f"{path}:{line}", convert(row))


def _form(path: Path, form: Format | None) -> Format:
    return form or ("jsonl" if path.suffix.lower() in (".jsonl", ".ndjson", ".json") else "csv")


def _json_lines(path: Path, cls: type[R]) -> Iterator[Event]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                text = line.strip()
                if not text:
                    continue
                if not text.startswith(b"{"):
                    raise SourceError(f"{path}:{number}: not a JSON object; one object a line is needed")
                try:
                    yield Event(f"{path}:{number}", decode(cls, text))
                except RecordError as error:
                    raise SourceError(f"{path}:{number}: {error}") from None
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from error


def _checked(where: str, record: Record) -> Event:
    try:
        check(record)
    except RecordError as error:
        raise SourceError(f"{where}: {error}") from None
    return Event(where, record)


def _play(row: PlayRow) -> Play:
    return Play(row.user_id, row.track_id, row.timestamp)


def _track(row: TrackRow) -> TrackMetadata:
    return TrackMetadata(*row)


def _profile(row: UserRow) -> UserProfile:
    return UserProfile(*row)


def _clip(cells: Cells) -> tuple[str, str]:
    if not cells["track_id"] or not cells["path"]:
        raise ValueError("track_id or path is empty")
    return cells["track_id"], cells["path"]


def _folder(path: Path) -> Iterator[tuple[str, str, Path]]:
    """(where, track_id, path) of each audio file, by name; other files are passed over."""
    seen: dict[str, str] = {}
    for file in sorted(path.iterdir()):
        if file.suffix.lower() not in AUDIO_TYPES or not file.is_file():
            continue
        if file.stem in seen:
            raise SourceError(f"{file}: track {file.stem!r} is also in {seen[file.stem]}; keep one of the two")
        seen[file.stem] = file.name
        yield str(file), file.stem, file
    if not seen:
        raise DatasetError(f"{path} holds no audio files ({', '.join(AUDIO_TYPES)})")


def _upload(where: str, track_id: str, file: Path, inline: bool) -> AudioUpload:
    kind = AUDIO_TYPES.get(file.suffix.lower())
    try:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if not inline:
            return AudioUpload(track_id, file.resolve().as_uri(), digest, content_type=kind)
        size = file.stat().st_size
        if size > INLINE_LIMIT:
            raise SourceError(
                f"{where}: {file} has {size} bytes; inline takes at most {INLINE_LIMIT}: leave --inline out"
            )
        return AudioUpload(track_id, sha256=digest, content=file.read_bytes(), content_type=kind)
    except OSError as error:
        raise SourceError(f"{where}: cannot read {file}: {error.strerror or error}") from error
