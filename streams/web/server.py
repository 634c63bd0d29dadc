"""The worker's HTTP endpoint: /health/live, /health/ready, /metrics and /recommendations/{user_id}. Nothing else."""

import hmac
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from streams.errors import ConfigError
from streams.metrics import Metrics

log = logging.getLogger(__name__)
Ready = Callable[[], tuple[bool, dict[str, Any]]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Lists = Callable[[str, int], Awaitable[tuple[int, dict[str, Any]]]]


class WebServer:
    """Serves until stopped."""

    def __init__(
        self, host: str, port: int, metrics: Metrics, ready: Ready, lists: Lists, token: str | None = None
    ) -> None:
        if token is None and not is_loopback(host):
            raise ConfigError(
                f"web_host {host}: whoever reaches it could read listening histories; set web_token_file, or bind a "
                "loopback address"
            )
        self._host, self._port, self._token = host, port, token
        self._metrics, self._ready, self._lists = metrics, ready, lists
        self._runner: web.AppRunner | None = None
        self.url: str | None = None

    async def start(self) -> None:
        """Bind and serve."""
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/health/live", self._live)
        app.router.add_get("/health/ready", self._readiness)
        app.router.add_get("/metrics", self._expose)
        app.router.add_get("/recommendations/{user_id}", self._list)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            raise ConfigError(
                f"port {self._port} of {self._host} is taken; choose another with --web-port (0: any free one)"
            ) from error
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        log.info("health, metrics and lists at %s", self.url)

    async def stop(self) -> None:
        """Stop serving."""
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """With a token, nothing but health is answered without it; without one, only callers who name this machine.

        A web page may resolve its own name to 127.0.0.1 and then read what answers there (DNS rebinding): its requests
        carry that name.
        """
        if self._token is None:
            if not is_loopback(request.url.host or ""):
                return web.json_response({"error": "this endpoint is for this machine only"}, status=403)
        elif not request.path.startswith("/health/") and not self._shown(request):
            error = {"error": "a bearer token is needed: Authorization: Bearer ..."}
            return web.json_response(error, status=401, headers={"WWW-Authenticate": "Bearer"})
        return await handler(request)

    def _shown(self, request: web.Request) -> bool:
        """Whether the request carries the token."""
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        assert self._token is not None
        return kind.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._token.encode())

    async def _live(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "live"})

    async def _readiness(self, request: web.Request) -> web.Response:
        good, detail = self._ready()
        if self._token is not None and not self._shown(request):
            detail = {}
        return web.json_response({"status": "ready" if good else "not ready", **detail}, status=200 if good else 503)

    async def _expose(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _list(self, request: web.Request) -> web.Response:
        try:
            n = int(request.query.get("n", "20"))
        except ValueError:
            n = 0
        if not 1 <= n <= 1000:
            return web.json_response({"error": "n must be a whole number from 1 to 1000"}, status=400)
        status, body = await self._lists(request.match_info["user_id"], n)
        return web.json_response(body, status=status)


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
