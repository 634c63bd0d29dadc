"""Cheap looks at a file's own claims, before a decoder trusts them."""

from struct import unpack_from

from msam.features.audio_errors import NotAudio, Truncated

_FINAL_PAGE = 4


def check_claims(data: bytes) -> None:
    """Truncated where a RIFF or AIFF header claims more bytes than there are, or an Ogg stream has no last page."""
    magic = data[:4]
    if magic == b"RIFF" and data[8:12] == b"WAVE":
        _check_chunks(data, b"data", "<I")
    elif magic == b"FORM" and data[8:12] in (b"AIFF", b"AIFC"):
        _check_chunks(data, b"SSND", ">I")
    elif magic == b"OggS":
        _check_ogg(data)


def _check_chunks(data: bytes, sound: bytes, size_format: str) -> None:
    position = 12
    while position + 8 <= len(data):
        name = data[position : position + 4]
        (size,) = unpack_from(size_format, data, position + 4)
        present = len(data) - position - 8
        if size > present and name == sound:
            raise Truncated(f"truncated: the header claims {size} bytes of sound, the file has {present}")
        if name == sound:
            return
        position += 8 + size + size % 2
    raise NotAudio(f"no {sound.decode()!r} chunk in the file")


def _check_ogg(data: bytes) -> None:
    # A page is at most 65,307 bytes, so the last one begins within the last 64 KiB; bit 4 of its flags ends a stream.
    last = data.rfind(b"OggS", max(0, len(data) - 65_536))
    if last < 0 or last + 6 > len(data) or not data[last + 5] & _FINAL_PAGE:
        raise Truncated("truncated: the Ogg stream stops before its last page")
