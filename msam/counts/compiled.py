"""The one way functions of this package are compiled: kept on disk, no reordering of sums.

The copy on disk is renewed when the file of the function that Python calls changes, not for those it calls in turn:
while working on them, remove `__pycache__`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """`function` as machine code, made on its first call with new types (seconds) and read from disk after that.

    It keeps Python's lock: a short call takes less time than getting the lock back under load.
    """
    return cast(F, numba.njit(cache=True)(function))


def unlocked(function: F) -> F:
    """`compiled`, but letting go of Python's lock: for calls of milliseconds, beside which others may go on."""
    return cast(F, numba.njit(cache=True, nogil=True)(function))


def inner(function: F) -> F:
    """A function that only compiled ones call: it needs no entry from Python, which saves most of its compilation."""
    options: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # last two untyped
    return cast(F, numba.njit(**options)(function))
