"""Forgets a listener: a record that stays and holds no more than a hash, and tombstones over what is there.

The plays themselves cannot be deleted one by one: they go by the retention of `plays`. Those that were sealed can no
longer be read, as the tombstones take their keys. From now on workers pass them
over, trainers leave them out and replays too, so that none of them brings the listener back.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from confluent_kafka.admin import AdminClient

from streams import topics
from streams.catalogue import SIGHTING
from streams.checks import check_id
from streams.log_reader import bounds, key_of, read_to_end
from streams.operations import digest, forgotten
from streams.outgoing import Out
from streams.partitioner import partition_for
from streams.publishing import Publisher
from streams.records import TrackFeature
from streams.serialization import decode, encode
from streams.user_keys import close_segment, tombstones

Config = Mapping[str, str]
_SUFFIXES = ("-windows-changelog", "-profiles-changelog")


@dataclass(frozen=True, slots=True)
class Report:
    """What was done: sightings without the name, keys deleted.

    `pending` names changelogs in which a worker has yet to delete the listener.
    """

    hash: str
    sightings: int
    keys: int
    pending: list[str] = field(default_factory=list)


def forget(config: Config, user_id: str, wait: float = 30.0) -> Report:
    """Publish the record and the tombstones, and wait up to `wait` seconds for workers to erase what they hold."""
    check_id("user_id", user_id)
    key, publisher = user_id.encode(), Publisher(config)
    publisher.send([forgotten(user_id), Out(topics.USER_PROFILES, key, None)])
    pending = _await_erasure(config, key, wait)
    sightings = list(_sightings(config, user_id))
    keys = tombstones(config, user_id)  # by now workers pass the plays over: none that lost its key becomes a letter
    publisher.send([Out(topics.RECOMMENDATIONS, key, None), *sightings, *keys])
    if keys:
        close_segment(publisher)
    return Report(digest(user_id), len(sightings), len(keys), pending)


def _await_erasure(config: Config, key: bytes, wait: float) -> list[str]:
    """The changelogs whose newest record of this key is no tombstone, once there is none or the time is over."""
    names = AdminClient({"log_level": 4, **config}).list_topics(timeout=30).topics
    pending = sorted(name for name in names if name.endswith(_SUFFIXES))
    deadline = time.monotonic() + wait
    while True:
        pending = [name for name in pending if _holds(config, name, key)]
        if not pending or time.monotonic() > deadline:
            return pending
        time.sleep(0.5)


def _holds(config: Config, changelog: str, key: bytes) -> bool:
    edges = bounds(config, changelog)
    home = partition_for(key, len(edges))
    start = {p: high for p, (_, high) in edges.items()} | {home: 0}
    value = None
    for message in read_to_end(config, changelog, start):
        if key_of(message) == key:
            value = message.value()
    return value is not None


def _sightings(config: Config, user_id: str) -> Iterator[Out]:
    """The sightings that name the listener, again without the name."""
    newest: dict[bytes, bytes | None] = {}
    for message in read_to_end(config, topics.TRACK_FEATURES):
        key = key_of(message)
        if key is not None and key.startswith(f"{SIGHTING}/".encode()):
            newest[key] = message.value()
    for key, value in newest.items():
        feature = None if value is None else decode(TrackFeature, value)
        if feature is not None and user_id in feature.users:
            users = tuple(user for user in feature.users if user != user_id)
            yield Out(topics.TRACK_FEATURES, key, encode(replace(feature, users=users)), 0)
