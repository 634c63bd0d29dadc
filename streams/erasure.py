"""Erases forgotten listeners from what a worker holds: windows, their changelog, the newest list."""

import logging

from streams import topics
from streams.histories import PREFIX
from streams.lanes import Lane
from streams.operations import Forgotten
from streams.outgoing import Out
from streams.stores import TableStore
from streams.windows import MARK_KEY

log = logging.getLogger(__name__)


class Eraser:
    """Goes through a partition's windows. Only the hash of a forgotten id is known, so every key is looked at."""

    def __init__(self, forgotten: Forgotten, windows: TableStore) -> None:
        self._forgotten, self._windows = forgotten, windows
        self._seen: dict[int, int] = {}  # partition -> how many were forgotten when it was last looked through

    def behind(self, partition: int) -> bool:
        """Whether somebody was forgotten since the partition was looked through."""
        return self._seen.get(partition) != len(self._forgotten)

    def __call__(self, lane: Lane) -> None:
        """Delete windows and publish tombstones, in one transaction of the lane. Blocking."""
        count = len(self._forgotten)
        keys = self._windows.keys(lane.partition) if count else iter(())
        gone = [key for key in keys if key != MARK_KEY and owner(key).decode("utf-8", "replace") in self._forgotten]
        if gone:
            users = dict.fromkeys(map(owner, gone))
            tombstones = [Out(topics.RECOMMENDATIONS, user, None, lane.partition) for user in users]
            lane.commit(tombstones, dict.fromkeys(gone), lane.mark)
            log.info("partition %d: %d listeners erased", lane.partition, len(users))
        self._seen[lane.partition] = count


def owner(key: bytes) -> bytes:
    """The listener whose row of the windows store this is: a window, or a part of a history.

    >>> owner(b"u1"), owner(bytes((1, 7)) + b"u1")
    (b'u1', b'u1')
    """
    return key[len(PREFIX) + 1 :] if key.startswith(PREFIX) else key
