"""What operators did that has to be remembered: letters sent again, who is forgotten, which replays are swapped in.

The topic `operations` is compacted and has one partition. A key says all; the value is JSON with the time.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from streams import topics
from streams.log_reader import key_of, read_to_end
from streams.outgoing import Out

REDRIVEN = b"redriven/"
FORGOTTEN = b"forgotten/"
CUTOVER = b"cutover/"  # <topic> is asked for, <topic>/<partition> is done
Place = tuple[int, int]  # partition and offset in dead-letters


def digest(user_id: str) -> str:
    """What is kept of a forgotten listener: the SHA-256 of the id, in hexadecimal."""
    return hashlib.sha256(user_id.encode()).hexdigest()


class Forgotten:
    """The listeners whose data must not come back, by the hash of their ids. Written by one thread, read by any."""

    def __init__(self, digests: Iterable[str] = ()) -> None:
        self._digests = set(digests)

    def __contains__(self, user_id: object) -> bool:
        # The set is empty almost everywhere: then nothing is hashed.
        return bool(self._digests) and isinstance(user_id, str) and digest(user_id) in self._digests

    def __len__(self) -> int:
        return len(self._digests)

    def fold(self, key: bytes) -> bool:
        """Take in the key of a record of `operations`; whether it named somebody new."""
        if not key.startswith(FORGOTTEN):
            return False
        name = key.removeprefix(FORGOTTEN).decode("ascii", "replace")
        if name in self._digests:
            return False
        self._digests.add(name)
        return True


@dataclass(slots=True)
class Operations:
    """Everything that the topic holds. `cutovers`: by topic, what was recorded of the partitions that are done."""

    redriven: set[Place] = field(default_factory=set)
    forgotten: Forgotten = field(default_factory=Forgotten)
    cutovers: dict[str, dict[int, bytes]] = field(default_factory=dict)

    def fold(self, key: bytes, value: bytes) -> None:
        """Take in one record; keys of kinds that this program does not know are passed over."""
        if self.forgotten.fold(key):
            return
        if key.startswith(REDRIVEN):
            partition, _, offset = key.removeprefix(REDRIVEN).partition(b"@")
            if partition.isdigit() and offset.isdigit():
                self.redriven.add((int(partition), int(offset)))
        elif key.startswith(CUTOVER):
            topic, _, place = key.removeprefix(CUTOVER).decode("ascii", "replace").partition("/")
            done = self.cutovers.setdefault(topic, {})
            if place.isdigit():
                done[int(place)] = value


def read_operations(config: Mapping[str, str]) -> Operations:
    """What is remembered now."""
    found = Operations()
    for message in read_to_end(config, topics.OPERATIONS):
        key, value = key_of(message), message.value()
        if key is not None and value is not None:
            found.fold(key, value)
    return found


def redriven(partition: int, offset: int) -> Out:
    """The record that marks a letter as sent again."""
    return _record(REDRIVEN + b"%d@%d" % (partition, offset))


def forgotten(user_id: str) -> Out:
    """The record that keeps a listener from coming back."""
    return _record(FORGOTTEN + digest(user_id).encode())


def _record(key: bytes) -> Out:
    return Out(topics.OPERATIONS, key, json.dumps({"at": round(time.time(), 3)}).encode(), 0)
