"""Gathers the events of an agent into small batches and acknowledges them once their results are published."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from streams.pipeline import SourceEvent

Handler = Callable[[Sequence[SourceEvent]], Awaitable[None]]


class Batcher:
    """At-least-once: a batch is acknowledged after its handler returns; a handler that raises stops the worker."""

    def __init__(self, handler: Handler, *, size: int = 64, bound: int = 256) -> None:
        self._handler = handler
        self._size = size
        self._queue: asyncio.Queue[SourceEvent] = asyncio.Queue(bound)

    async def put(self, event: SourceEvent) -> None:
        """Take one event; waits while the queue is full."""
        await self._queue.put(event)

    async def run(self) -> None:
        """Handle batches until cancelled."""
        while True:
            batch = [await self._queue.get()]
            while len(batch) < self._size and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await self._handler(batch)
            for event in batch:
                event.ack()
