"""The topic `user-keys`: read to its end, followed, given new keys by who seals, tombstoned for who is forgotten."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from streams import topics
from streams.log_reader import key_of, read_to_end
from streams.operations import digest, read_operations
from streams.outgoing import Out
from streams.publishing import Publisher
from streams.records import Play
from streams.sealing import Keyring, Keys, seal
from streams.settings import Settings
from streams.sources import Event

_PATIENCE = 3.0  # seconds that a play waits for a feed that has not read all of the topic


def keyring_of(settings: Settings) -> Keyring | None:
    """Every key that there is now; None without a master key."""
    master = settings.master_key()
    return None if master is None else read_keys(settings.kafka_config(), master)


def read_keys(config: Mapping[str, str], master: bytes) -> Keyring:
    """Every key that there is now."""
    found = Keyring(master)
    for message in read_to_end(config, topics.USER_KEYS):
        found.fold(key_of(message) or b"", message.value())
    return found


class FollowedKeys:
    """Keys as a feed brings them in. A key comes before its plays: once the topic is read, one is truly missing."""

    def __init__(self, keys: Keys, catch_up: Callable[[float], bool]) -> None:
        self._keys, self._catch_up = keys, catch_up

    def get(self, user_id: str, key_id: str) -> bytes | None:
        """The key; None where there is none. Only then the feed is waited for, a few seconds at most."""
        key = self._keys.get(user_id, key_id)
        if key is None and self._catch_up(_PATIENCE):
            key = self._keys.get(user_id, key_id)
        return key


class Sealer:
    """Seals plays for a producer. A listener without a key gets one, which the broker has before the first play."""

    def __init__(self, config: Mapping[str, str], master: bytes) -> None:
        self._publisher = Publisher(config)
        self._keys = read_keys(config, master)
        self._forgotten = read_operations(config).forgotten
        self.left_out = 0  # plays of forgotten listeners: a new key would make them readable

    def __call__(self, events: Iterable[Event]) -> Iterator[Event]:
        """The events with their plays sealed."""
        for event in events:
            assert isinstance(event.record, Play)
            if event.record.user_id in self._forgotten:
                self.left_out += 1
                continue
            yield replace(event, record=seal(event.record, *self._key(event.record.user_id)))

    def _key(self, user_id: str) -> tuple[str, bytes]:
        found = self._keys.newest(user_id)
        if found is None:
            self._publisher.send([Out(topics.USER_KEYS, *self._keys.give(user_id), 0)])
            found = self._keys.newest(user_id)
            assert found is not None
        return found


def tombstones(config: Mapping[str, str], user_id: str) -> list[Out]:
    """What deletes every key that a listener has."""
    prefix, newest = f"{digest(user_id)}/".encode(), dict[bytes, bytes | None]()
    for message in read_to_end(config, topics.USER_KEYS):
        name = key_of(message) or b""
        if name.startswith(prefix):
            newest[name] = message.value()
    return [Out(topics.USER_KEYS, name, None, 0) for name, value in newest.items() if value is not None]


def close_segment(publisher: Publisher) -> None:
    """Let the broker close the segment that tombstones are in, which it does when a later record comes. Takes seconds.

    Only closed segments are compacted: on a quiet topic a deleted key would stay on the disk for ever.
    """
    time.sleep(topics.USER_KEYS_SEGMENT_MS / 1000 + 0.5)
    publisher.send([Out(topics.USER_KEYS, b"segment-end", None, 0)])
