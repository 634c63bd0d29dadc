"""user-profiles: the newest profile of each user, in a table beside the windows."""

from collections.abc import Callable, Container
from typing import Any

import faust

from streams import topics
from streams.errors import MsamError
from streams.metrics import Metrics
from streams.profiles import pack
from streams.publishing import Publisher
from streams.records import UserProfile
from streams.serialization import Registry, decode
from streams.serving import log_dead, to_out


class WrongProfile(MsamError):
    """A profile that its producer must send differently."""


def check(key: bytes | None, value: bytes, registry: Registry | None) -> None:
    """Raise when the record is not a profile of the user its key names."""
    profile = decode(UserProfile, value, registry=registry)
    if key != profile.user_id.encode():
        raise WrongProfile("the record's key must be the profile's user_id in UTF-8")


def attach(
    app: faust.App,
    topic: Any,
    table: Any,
    publisher: Publisher,
    metrics: Metrics,
    registry: Registry | None,
    changed: Callable[[int, str], None],
    forgotten: Container[str] = (),
) -> None:
    """Keep the table and tell `changed` (partition, user_id) of it; what cannot be read goes to dead-letters.

    A profile of a forgotten listener goes nowhere.
    """

    @app.agent(topic, name="profiles")
    async def profiles(stream: Any) -> None:
        async for event in stream.noack().events():
            message = event.message
            try:
                if message.value is None or (message.key or b"").decode("utf-8", "replace") in forgotten:
                    if message.key is not None:
                        table.pop(message.key, None)
                        changed(message.partition, message.key.decode(errors="replace"))
                else:
                    await app.loop.run_in_executor(None, check, message.key, message.value, registry)
                    table[message.key] = pack(message.offset, message.value)
                    changed(message.partition, message.key.decode())
            except MsamError as error:
                metrics.dead.labels(topics.USER_PROFILES).inc()
                log_dead(topics.USER_PROFILES, message, error)
                await app.loop.run_in_executor(None, publisher.send, [to_out(topics.USER_PROFILES, message, error)])
            event.ack()
