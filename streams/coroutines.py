"""Running a coroutine as far as it goes, and the rest of it later."""

import types
from collections.abc import Coroutine, Generator
from typing import Any


@types.coroutine
def _rest(coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> Generator[Any, Any, Any]:
    try:
        while True:
            try:
                answer = yield waits_for
            except BaseException as error:
                waits_for = coroutine.throw(error)
            else:
                waits_for = coroutine.send(answer)
    except StopIteration as end:
        return end.value


async def resume(coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> Any:
    """Go on with a coroutine whose first `send` returned `waits_for`, from within a task."""
    return await _rest(coroutine, waits_for)
