"""The command `msam` with a worker that never comes to its end when it is told to."""

import asyncio

from streams import app, cli


async def on_stop(self: app.StreamApp) -> None:
    """Begin to stop, and wait for what does not come."""
    app.end_in(app._LEAVING)
    await asyncio.Event().wait()


if __name__ == "__main__":
    app._LEAVING = 3.0
    app.StreamApp.on_stop = on_stop  # type: ignore[method-assign]
    cli.main()
