"""Where an upload's bytes come from: inline, or a file inside an allowed folder."""

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from streams.errors import MsamError
from streams.records import AudioUpload


class AudioIntakeError(MsamError):
    """An upload whose bytes cannot be had; the message names the track and the reason."""


class UriRefused(AudioIntakeError):
    """The reference is not a file inside an allowed folder."""


class FileUnavailable(AudioIntakeError):
    """The reference is allowed, but there is no readable file."""


class UploadTooLarge(AudioIntakeError):
    """More bytes than the limit."""


class ChecksumMismatch(AudioIntakeError):
    """The bytes are not those whose SHA-256 the upload states."""


def resolve(upload: AudioUpload, allowed_roots: Sequence[Path], max_bytes: int) -> bytes:
    """The upload's encoded bytes, checked against its size limit and, where stated, its SHA-256.

    A reference is an absolute path or a file:// URI that lies, after all symbolic links, inside one of
    `allowed_roots`. What was checked is what is returned: the file is opened once. Raises an AudioIntakeError.
    """
    where = f"audio of track {upload.track_id!r}"
    if (upload.content is None) == (upload.uri is None):
        raise AudioIntakeError(f"{where}: exactly one of content and uri must be given")
    if upload.uri is not None:
        data = _read(where, _path(where, upload.uri), allowed_roots, max_bytes)
    else:
        data = upload.content or b""
    if len(data) > max_bytes:
        raise UploadTooLarge(f"{where}: {len(data)} bytes, at most {max_bytes} are accepted")
    if upload.sha256 is not None:
        found = hashlib.sha256(data).hexdigest()
        if found != upload.sha256.strip().lower():
            raise ChecksumMismatch(f"{where}: SHA-256 is {found}, the upload states {upload.sha256}")
    return data


def _path(where: str, uri: str) -> Path:
    """The absolute path that a reference names, without looking at the disk."""
    name = uri
    if not uri.startswith("/"):
        try:
            parts = urlsplit(uri)
        except ValueError as error:
            raise UriRefused(f"{where}: {uri!r} is no URI: {error}") from error
        if parts.scheme.lower() != "file":
            raise UriRefused(f"{where}: {uri!r} is refused, only file:// and absolute paths are read")
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise UriRefused(f"{where}: {uri!r} is refused, a file URI has neither host nor query nor fragment")
        name = unquote(parts.path)
    path = Path(name)
    if not path.is_absolute() or ".." in path.parts or "\0" in name:
        raise UriRefused(f"{where}: {uri!r} is refused, the path must be absolute and without '..'")
    return path


def _read(where: str, path: Path, allowed_roots: Sequence[Path], max_bytes: int) -> bytes:
    try:
        real = path.resolve(strict=True)
        _check_inside(where, path, real, allowed_roots)
        # Links are already resolved, so one here was put in since; NONBLOCK keeps a FIFO from hanging the open.
        handle = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, RuntimeError) as error:
        # A missing file is told apart from a forbidden one only inside the roots.
        _check_inside(where, path, Path(os.path.realpath(path)), allowed_roots)
        raise FileUnavailable(
            f"{where}: {path} cannot be opened: {getattr(error, 'strerror', None) or error}"
        ) from error
    try:
        _check_opened(where, path, handle, allowed_roots)
        size = os.fstat(handle).st_size
        if size > max_bytes:
            raise UploadTooLarge(f"{where}: {path} has {size} bytes, at most {max_bytes} are accepted")
        with open(handle, "rb", closefd=False) as file:
            return file.read(max_bytes + 1)
    finally:
        os.close(handle)


def _check_inside(where: str, path: Path, real: Path, allowed_roots: Sequence[Path]) -> None:
    roots = [Path(os.path.realpath(root)) for root in allowed_roots]
    if not any(real.is_relative_to(root) for root in roots):
        allowed = ", ".join(map(str, roots)) or "none, set audio_roots"
        raise UriRefused(f"{where}: {path} is outside the allowed folders ({allowed})")


def _check_opened(where: str, path: Path, handle: int, allowed_roots: Sequence[Path]) -> None:
    """What was opened must be a regular file and, where the system can say so, still lie inside."""
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise UriRefused(f"{where}: {path} is not a regular file")
    link = Path(f"/proc/self/fd/{handle}")
    if link.is_symlink():
        _check_inside(where, path, Path(os.readlink(link)), allowed_roots)
