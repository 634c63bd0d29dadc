"""A Schema Registry of one schema that answers over real HTTP, as Confluent's API does."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PLAY_ID = 1
_PLAY = Path(__file__).resolve().parents[2] / "schemas" / "play.avsc"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/subjects":
            return self._answer(["plays-value"])
        ids: set[int] = self.server.ids  # type: ignore[attr-defined]
        known = self.path in {f"/schemas/ids/{number}" for number in ids}
        self._answer({"schema": _PLAY.read_text()} if known else {"error_code": 40403, "message": "Schema not found"})

    def do_POST(self) -> None:
        """Register: every time a new id, from 100 on. Compatible is what has the play's name."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.startswith("/compatibility/"):
            return self._answer({"is_compatible": json.loads(body["schema"])["name"] == "Play"})
        ids: set[int] = self.server.ids  # type: ignore[attr-defined]
        number = max(ids | {99}) + 1
        ids.add(number)
        return self._answer({"id": number})

    def _answer(self, answer: dict[str, object] | list[str]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(404 if "error_code" in answer else 200)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@contextlib.contextmanager
def registry() -> Iterator[str]:
    """Serves the play schema under id 1, and ids that are registered, for the length of the block; yields the URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.ids = {PLAY_ID}  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(10)
