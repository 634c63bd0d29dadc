"""The worker's endpoint: four routes on a loopback address and nothing else."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import aiohttp
import pytest

from streams.commands import recommend as command
from streams.errors import ConfigError, MsamError
from streams.metrics import Metrics
from streams.web.server import WebServer, is_loopback

T = TypeVar("T")
ITEM = {
    "track_id": "t1",
    "score": 0.25,
    "rank": 1,
    "reasons": {
        "kind": "similar",
        "because": "t2",
        "audio": 0.5,
        "text": 0.3,
        "sequence": 0.2,
        "audio_group": "pitch",
        "word": "blue",
    },
}


class Service:
    """What stands behind the endpoint."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.good = True
        self.asked: list[tuple[str, int]] = []

    def ready(self) -> tuple[bool, dict[str, Any]]:
        return self.good, {"model": "v1"}

    async def lists(self, user_id: str, n: int) -> tuple[int, dict[str, Any]]:
        self.asked.append((user_id, n))
        if user_id == "nobody":
            return 404, {"error": "user 'nobody' has not played anything yet"}
        return 200, {"user_id": user_id, "items": [ITEM], "model_version": "v1", "catalogue_version": 7}

    def server(self, host: str = "127.0.0.1", port: int = 0, token: str | None = None) -> WebServer:
        return WebServer(host, port, self.metrics, self.ready, self.lists, token)


Get = Callable[[str], Awaitable[tuple[int, str, str]]]


def served(test: Callable[[Service, Get], Awaitable[T]]) -> T:
    """Run a test against a server on a free port; its `get` gives status, content type and text."""

    async def whole() -> T:
        service = Service()
        server = service.server()
        await server.start()
        try:
            async with aiohttp.ClientSession() as session:

                async def get(path: str) -> tuple[int, str, str]:
                    from yarl import URL

                    async with session.get(URL(f"{server.url}{path}", encoded=True)) as answer:
                        return answer.status, answer.content_type, await answer.text()

                return await test(service, get)
        finally:
            await server.stop()

    return asyncio.run(whole())


def test_health() -> None:
    async def test(service: Service, get: Get) -> None:
        status, kind, text = await get("/health/live")
        assert (status, kind, json.loads(text)) == (200, "application/json", {"status": "live"})
        status, _, text = await get("/health/ready")
        assert (status, json.loads(text)) == (200, {"status": "ready", "model": "v1"})
        service.good = False
        status, _, text = await get("/health/ready")
        assert (status, json.loads(text)) == (503, {"status": "not ready", "model": "v1"})
        assert (await get("/health/live"))[0] == 200, "alive all the same"

    served(test)


def test_metrics_are_prometheus_text() -> None:
    async def test(service: Service, get: Get) -> None:
        service.metrics.plays.inc(3)
        service.metrics.dead.labels("plays").inc()
        status, kind, text = await get("/metrics")
        assert (status, kind) == (200, "text/plain")
        assert "msam_plays_total 3.0" in text and 'msam_dead_letters_total{topic="plays"} 1.0' in text
        assert "msam_play_delay_seconds_bucket" in text

    served(test)


def test_lists() -> None:
    async def test(service: Service, get: Get) -> None:
        status, _, text = await get("/recommendations/alice")
        assert status == 200 and json.loads(text)["items"] == [ITEM]
        await get("/recommendations/a%2Fb%20%C3%BC?n=3")
        assert service.asked == [("alice", 20), ("a/b ü", 3)]
        status, _, text = await get("/recommendations/nobody")
        assert status == 404 and "nobody" in json.loads(text)["error"]

    served(test)


@pytest.mark.parametrize("n", ["0", "-1", "1001", "many", "1.5", ""])
def test_a_wrong_length_is_refused(n: str) -> None:
    async def test(service: Service, get: Get) -> None:
        status, _, text = await get(f"/recommendations/alice?n={n}")
        assert status == 400 and "1 to 1000" in json.loads(text)["error"] and service.asked == []

    served(test)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/tables",
        "/tables/",
        "/tables/windows",
        "/windows/alice",
        "/router/",
        "/stats/",
        "/graph/",
        "/production",
        "/recommendations",
        "/recommendations/",
        "/recommendations/a/b",
        "/health",
        "/static/x",
        "/..%2f..%2fetc/passwd",
    ],
)
def test_nothing_else_is_there(path: str) -> None:
    """Table views as Faust's own web has them would show everybody's listening."""

    async def test(service: Service, get: Get) -> None:
        assert (await get(path))[0] == 404 and service.asked == []

    served(test)


def test_nothing_can_be_written() -> None:
    async def whole() -> None:
        server = Service().server()
        await server.start()
        async with aiohttp.ClientSession() as session:
            for method in ("post", "put", "delete", "patch"):
                async with session.request(method, f"{server.url}/recommendations/alice") as answer:
                    assert answer.status == 405
        await server.stop()

    asyncio.run(whole())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "10.0.0.1", "example.com", "", "127.0.0.1.nip.io"])
def test_only_this_machine_is_served(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigError, match="loopback"):
        Service().server(host)


TOKEN = "0123456789abcdef"


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/recommendations/alice", 401, None),
        ("/metrics", 401, None),
        ("/tables", 401, None),
        ("/health/live", 200, {"status": "live"}),
        ("/health/ready", 200, {"status": "ready"}),
    ],
)
@pytest.mark.parametrize("shown", [None, f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN])
def test_an_outsider_without_the_token_reads_nothing(
    path: str, status: int, body: dict[str, str] | None, shown: str | None
) -> None:
    async def whole() -> None:
        service = Service()
        server = service.server("0.0.0.0", token=TOKEN)
        await server.start()
        try:
            async with aiohttp.ClientSession() as session:
                port = str(server.url).rpartition(":")[2]
                headers = {} if shown is None else {"Authorization": shown}
                async with session.get(f"http://127.0.0.1:{port}{path}", headers=headers) as answer:
                    assert answer.status == status
                    found = await answer.json()
                    assert found == body if body else list(found) == ["error"]
                headers = {"Authorization": f"Bearer {TOKEN}"}
                async with session.get(f"http://127.0.0.1:{port}{path}", headers=headers) as answer:
                    assert answer.status == (404 if path == "/tables" else 200)
                    assert path != "/health/ready" or await answer.json() == {"status": "ready", "model": "v1"}
        finally:
            await server.stop()
        assert service.asked == ([("alice", 20)] if path.startswith("/recommendations") else [])

    asyncio.run(whole())


def test_a_name_that_was_bent_to_this_machine_is_refused() -> None:
    """DNS rebinding: a web page reaches the address, but its requests carry its own name."""

    async def whole() -> None:
        server = Service().server()
        await server.start()
        async with aiohttp.ClientSession() as session:
            for host, status in (("evil.example:80", 403), ("localhost:1", 200), ("127.0.0.1", 200), ("[::1]", 200)):
                async with session.get(f"{server.url}/recommendations/alice", headers={"Host": host}) as answer:
                    assert answer.status == status, host
        await server.stop()

    asyncio.run(whole())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.9.1"])
def test_loopback_addresses(host: str) -> None:
    assert is_loopback(host)
    Service().server(host)


def test_a_taken_port_is_named() -> None:
    async def whole(port: int) -> None:
        server = Service().server(port=port)
        try:
            with pytest.raises(ConfigError, match=rf"{port}.*--web-port"):
                await server.start()
        finally:
            await server.stop()

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        asyncio.run(whole(taken.getsockname()[1]))


@contextmanager
def worker() -> Iterator[str]:
    """A served endpoint for code that blocks."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = Service().server()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        yield str(server.url)
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def test_the_recommend_command(capsys: pytest.CaptureFixture[str]) -> None:
    with worker() as url:
        command.recommend("a/b ü", n=5, explain=False, worker=f"{url}/", as_json=True)
        found = json.loads(capsys.readouterr().out)
        assert found["user_id"] == "a/b ü" and found["items"] == [ITEM]
        command.recommend("alice", n=5, explain=True, worker=url, as_json=False)
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "alice: model v1, catalogue 7"
        assert (
            "t1" in lines[1] and "similar, near t2 (sound 0.50, words 0.30, order 0.20; heard pitch; read" in lines[1]
        )
        with pytest.raises(MsamError, match="has not played anything yet"):
            command.recommend("nobody", n=5, explain=False, worker=url, as_json=True)


def test_the_recommend_command_without_a_worker() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(MsamError, match="start one with `msam worker`"):
            command.recommend("alice", n=5, explain=False, worker=url, as_json=True)


def test_the_recommend_command_with_a_wrong_url() -> None:
    with pytest.raises(MsamError, match="worker"):
        command.recommend("alice", n=5, explain=False, worker="localhost", as_json=True)


def test_the_recommend_command_at_another_server() -> None:
    with worker() as url, pytest.raises(MsamError, match="worker"):
        command.recommend("alice", n=5, explain=False, worker=f"{url}/elsewhere", as_json=True)
