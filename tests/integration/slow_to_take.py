"""The command `msam` with a pipeline that seldom looks for a new model; a ready worker has lists all the same."""

import asyncio

from streams import cli
from streams.pipeline import Pipeline

_SELDOM = 5.0  # seconds; the pipeline would look every 0.05


async def woken(self: Pipeline, seconds: float) -> bool:
    """As when nothing came, but much later."""
    await asyncio.sleep(_SELDOM)
    return False


if __name__ == "__main__":
    Pipeline._woken = woken  # type: ignore[method-assign]
    cli.main()
