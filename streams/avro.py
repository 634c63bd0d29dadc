"""Avro's binary primitives for what is written with every play; everything else goes through fastavro.

The layout is that of the schemas; tests compare each use with fastavro. (Avro specification, "Binary Encoding".)
"""

from struct import Struct

double = Struct("<d").pack
NULL = b"\x00"  # the first branch of a union with null
SOME = b"\x02"  # its second branch
END = b"\x00"  # of an array or a map


def long(value: int) -> bytes:
    """A zig-zag variable-length integer of up to 64 bits."""
    rest = (value << 1) ^ (value >> 63)
    if rest < 0x80:
        return bytes((rest,))
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def string(text: str) -> bytes:
    """Length and UTF-8 bytes."""
    data = text.encode()
    return long(len(data)) + data


def optional(text: str | None) -> bytes:
    """A string or null, null first."""
    return NULL if text is None else SOME + string(text)


def block(count: int, items: bytes) -> bytes:
    """An array or map of `count` items that are encoded already."""
    return long(count) + items + END if count else END
