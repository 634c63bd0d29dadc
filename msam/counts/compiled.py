"""The one way functions of this package are compiled: without Python's lock, kept on disk, no reordering of sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """`function` as machine code, made on its first call with new types (seconds) and read from disk after that."""
    return cast(F, numba.njit(cache=True, nogil=True)(function))
