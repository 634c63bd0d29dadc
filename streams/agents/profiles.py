"""user-profiles: the newest profile of each user, in a table beside the windows."""

import logging
from collections.abc import Awaitable, Callable, Container
from typing import Any

import faust

from msam.errors import MethodError
from streams import topics
from streams.errors import MsamError
from streams.metrics import Metrics
from streams.pipeline import SourceMessage
from streams.profiles import ProfileWords, pack, pack_unread
from streams.publishing import Publisher
from streams.records import UserProfile
from streams.serialization import Registry, decode
from streams.serving import log_dead, to_out

log = logging.getLogger(__name__)


class WrongProfile(MsamError):
    """A profile that its producer must send differently."""


def read(key: bytes | None, value: bytes, registry: Registry | None) -> UserProfile:
    """The profile in a record; raises when it is none of the user that its key names."""
    profile = decode(UserProfile, value, registry=registry)
    if key != profile.user_id.encode():
        raise WrongProfile("the record's key must be the profile's user_id in UTF-8")
    return profile


def attach(
    app: faust.App,
    topic: Any,
    table: Any,
    publisher: Publisher,
    metrics: Metrics,
    registry: Registry | None,
    encode: Callable[[UserProfile], Awaitable[tuple[str, ProfileWords]]],
    changed: Callable[[int, str], None],
    forgotten: Container[str] = (),
) -> None:
    """Keep the table and tell `changed` (partition, user_id) of it; what cannot be read goes to dead-letters.

    `encode` names the text encoder and gives a profile's words. They are kept with it: a worker that takes a partition
    over needs seconds to load an encoder. A profile of a forgotten listener goes nowhere.
    """

    async def read_row(message: SourceMessage) -> bytes | None:
        if (message.key or b"").decode("utf-8", "replace") in forgotten:
            return None
        value = message.value or b""
        profile = await app.loop.run_in_executor(None, read, message.key, value, registry)
        try:
            return pack(message.offset, value, *await encode(profile))
        except MethodError as error:
            log.warning("the words of a profile are made when they are needed: %s", error)
            return pack_unread(message.offset, value)

    @app.agent(topic, name="profiles")
    async def profiles(stream: Any) -> None:
        async for event in stream.noack().events():
            message = event.message
            try:
                row = None if message.value is None else await read_row(message)
                if message.generation_id != app.consumer_generation_id:
                    continue  # the group formed anew meanwhile: the record comes again, here or at another worker
                if row is not None and message.key.decode() not in forgotten:
                    table[message.key] = row
                elif message.key is not None:
                    table.pop(message.key, None)
                if message.key is not None:
                    changed(message.partition, message.key.decode(errors="replace"))
            except MsamError as error:
                metrics.dead.labels(topics.USER_PROFILES).inc()
                log_dead(topics.USER_PROFILES, message, error)
                await app.loop.run_in_executor(None, publisher.send, [to_out(topics.USER_PROFILES, message, error)])
            event.ack()
