"""A TCP proxy on loopback whose line can be cut: connections dropped, or held without a byte passing."""

import asyncio
import contextlib
import threading
from typing import Literal

Mode = Literal["open", "dropped", "silent"]


class Proxy:
    """Forwards `port` to `target`. dropped: connections end and new ones are refused; silent: bytes wait."""

    def __init__(self, port: int, target: int) -> None:
        self.port, self._target = port, target
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._dropped = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"proxy-{port}", daemon=True)

    def start(self) -> "Proxy":
        """Begin to listen."""
        self._thread.start()
        self._ready.wait(10)
        return self

    def set(self, mode: Mode) -> None:
        """Change the state of the line."""
        asyncio.run_coroutine_threadsafe(self._set(mode), self._loop).result(10)

    def stop(self) -> None:
        """Close everything."""
        self.set("dropped")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _set(self, mode: Mode) -> None:
        self._dropped = mode == "dropped"
        if mode == "silent":
            self._open.clear()
        else:
            self._open.set()
        if self._dropped:
            for writer in list(self._writers):
                writer.transport.abort()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._open.set()
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._loop.set_exception_handler(lambda loop, context: None)  # asyncio reports what is cancelled here
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(asyncio.sleep(0.1))  # what is cut off ends, and closes its sockets
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._open.wait()
            if self._dropped:
                return
            with contextlib.suppress(OSError):
                there, back = await asyncio.open_connection("127.0.0.1", self._target)
                self._writers.add(back)
                try:
                    await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
                finally:
                    self._writers.discard(back)
                    back.transport.abort()
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await self._open.wait()
            sink.write(data)
            await sink.drain()
        sink.transport.abort()  # the other direction must not outlive this one
