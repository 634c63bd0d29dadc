"""A Schema Registry over Confluent's REST API, as `serialization.decode` uses it."""

import json
import logging
import threading
import time
import urllib.error
import urllib.request
from threading import Lock
from typing import Any, cast
from urllib.parse import quote

from fastavro.schema import parse_schema

import schemas
from streams.errors import ConfigError
from streams.serialization import DecodeError, Registry

log = logging.getLogger(__name__)
_CONTENT = "application/vnd.schemaregistry.v1+json"
_DOWN_S = 5.0  # how long an unreachable registry is not asked again, so that a burst of messages does not queue up


class RegistryUnavailable(DecodeError):
    """The registry did not answer; the message itself may be fine, so it is worth another try."""


class HttpRegistry:
    """Schemas by id, kept for good once seen: an id never changes its meaning. Safe to share between threads."""

    def __init__(self, url: str, *, timeout: float = 3.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"registry_url {url!r} is not an http:// or https:// address")
        self._url = url.rstrip("/")
        self._timeout = timeout
        self._schemas: dict[int, dict[str, Any]] = {}
        self._down_until = 0.0
        self._lock = Lock()

    def schema(self, schema_id: int) -> dict[str, Any]:
        """The parsed schema; DecodeError: unknown or not Avro; RegistryUnavailable: no answer."""
        found = self._schemas.get(schema_id)
        if found is None:
            with self._lock:
                found = self._schemas.get(schema_id) or self._schemas.setdefault(schema_id, self._fetch(schema_id))
        return found

    def register(self, subject: str, name: str) -> int:
        """Register the schema in force called `name` under a subject (`<topic>-value`); its id, new or old."""
        body = {"schema": json.dumps(schemas.raw(name)), "schemaType": "AVRO"}
        answer = self._ask(f"/subjects/{quote(subject, safe='')}/versions", body)
        return int(answer["id"])

    def subjects(self) -> list[str]:
        """Every subject; RegistryUnavailable where nobody answers."""
        return list(cast(list[str], self._ask("/subjects")))

    def compatible(self, subject: str, name: str) -> bool:
        """Whether the schema in force called `name` is compatible with the newest version of a subject."""
        body = {"schema": json.dumps(schemas.raw(name)), "schemaType": "AVRO"}
        answer = self._ask(f"/compatibility/subjects/{quote(subject, safe='')}/versions/latest", body)
        return bool(answer["is_compatible"])

    def _fetch(self, schema_id: int) -> dict[str, Any]:
        answer = self._ask(f"/schemas/ids/{schema_id}")
        kind = answer.get("schemaType", "AVRO")
        if kind != "AVRO":
            raise DecodeError(f"schema {schema_id} at {self._url} is {kind}; only AVRO is read")
        try:
            return cast(dict[str, Any], parse_schema(json.loads(answer["schema"])))
        except Exception as error:  # whatever a registry may hold: our message must not take the worker down
            raise DecodeError(f"schema {schema_id} at {self._url} is not a usable Avro schema: {error!r}") from error

    def _ask(self, path: str, body: dict[str, str] | None = None) -> dict[str, Any]:
        if time.monotonic() < self._down_until:
            raise RegistryUnavailable(f"Schema Registry {self._url} did not answer a moment ago; is it running?")
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Accept": _CONTENT, "Content-Type": _CONTENT})
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                return cast(dict[str, Any], json.load(response))
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(path, error.code, error.read(500)) from None
        except (OSError, ValueError) as error:
            self._down_until = time.monotonic() + _DOWN_S
            raise RegistryUnavailable(
                f"Schema Registry {self._url} does not answer ({error}); is it running?"
            ) from error

    def _refused(self, path: str, code: int, answer: bytes) -> DecodeError:
        if code >= 500:
            return RegistryUnavailable(f"Schema Registry {self._url} failed with HTTP {code}")
        if code == 404:
            return DecodeError(
                f"Schema Registry {self._url} has nothing at {path}: is the message from another registry?"
            )
        return DecodeError(f"Schema Registry {self._url}{path}: HTTP {code}: {answer.decode('utf-8', 'replace')}")


class PatientRegistry:
    """Asks again while the registry is away: an outage holds plays back, it does not turn them into dead letters."""

    def __init__(self, registry: Registry, stopped: threading.Event, pause: float = 1.0) -> None:
        self._registry, self._stopped, self._pause = registry, stopped, pause

    def schema(self, schema_id: int) -> dict[str, Any]:
        """The schema of an id; blocks while nobody answers. DecodeError for an id that the registry does not know."""
        while True:
            try:
                return self._registry.schema(schema_id)
            except RegistryUnavailable as error:
                log.warning("waiting for the registry: %s", error)
                if self._stopped.wait(self._pause):
                    raise
