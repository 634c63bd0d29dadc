"""A worker's memory stays level: glibc is kept from hoarding what threads have freed. Does nothing with another libc.

Every thread may get an arena of its own, and what is freed in one is of no use to the others: with fifty threads, and
RocksDB and Kafka allocating in some and freeing in others, resident memory climbs for hours though nothing leaks.
"""

import ctypes

EVERY = 60.0  # seconds from `trim` to `trim`
_ARENAS = 2  # one more than the interpreter's lock lets run at a time
_M_ARENA_MAX = -8  # malloc.h


def few_arenas() -> None:
    """Let threads share arenas (mallopt(3)); call it before there are threads."""
    if (mallopt := _libc("mallopt")) is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)


def trim() -> None:
    """Give free pages back to the system (malloc_trim(3)); takes milliseconds, on any thread."""
    if (malloc_trim := _libc("malloc_trim")) is not None:
        malloc_trim(ctypes.c_size_t(0))


def _libc(name: str) -> "ctypes._NamedFuncPointer | None":
    return getattr(ctypes.CDLL(None), name, None)
