"""Swaps the lists that a replay made into `recommendations`, never over a newer one.

An operator asks for it by a record in `operations`. The worker that serves a partition does it there, between two of
its batches and in one transaction of the partition's lane: nobody else writes lists there, so what it has answered last
is the newest list there is. The record that says that the partition is done is part of the transaction, so it happens
once, whoever is killed.
"""

import json
import logging
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from confluent_kafka import KafkaException

from streams import topics
from streams.errors import MsamError
from streams.lanes import Lane
from streams.log_reader import key_of, partitions_of_topic, read_to_end, settled
from streams.operations import CUTOVER, read_operations
from streams.outgoing import Out
from streams.publishing import Publisher
from streams.records import Recommendation
from streams.serialization import decode
from streams.stores import TableStore
from streams.windows import decode_window

log = logging.getLogger(__name__)
REPLAYED = "msam.replayed-from"  # header of a list that was swapped in: the topic of the replay
Config = Mapping[str, str]
Requests = Mapping[str, Mapping[int, bytes]]
Newest = dict[str, tuple[int, bytes]]  # listener -> offset of the play that the newest list answers, and its bytes


@dataclass(frozen=True, slots=True)
class Counts:
    """Listeners of a replay: whose list is swapped in, and who has a newer one or none that it could replace."""

    swapped: int
    left: int


def newest(config: Config, topic: str, only: Iterable[int] | None = None) -> Newest:
    """The newest list of every listener, of all partitions or of some."""
    found: dict[bytes, bytes | None] = {}
    for message in read_to_end(config, topic, only=None if only is None else list(only)):
        key = key_of(message)
        if key is not None:
            found[key] = message.value()
    records = ((decode(Recommendation, value), value) for value in found.values() if value is not None)
    return {record.user_id: (record.source.offset, value) for record, value in records}


def due(replayed: Newest, last: Mapping[str, int], forgotten: Container[str] = ()) -> dict[str, bytes]:
    """The lists to be swapped in: those for the very play that was answered last, by `last`.

    Where a newer play was answered its list is the right one; where the play was not answered yet, its list comes.
    """
    return {
        user: value
        for user, (offset, value) in replayed.items()
        if last.get(user, -1) == offset and user not in forgotten
    }


def plan(config: Config, topic: str) -> Counts:
    """What would happen now."""
    replayed = newest(config, topic)
    last = {user: offset for user, (offset, _) in newest(config, topics.RECOMMENDATIONS).items()}
    swapped = len(due(replayed, last, read_operations(config).forgotten))
    return Counts(swapped, len(replayed) - swapped)


def request(config: Config, topic: str, wait: float = 60.0) -> tuple[Counts, list[int]]:
    """Ask the workers and wait up to `wait` seconds; the counts of partitions that are done, and those that are not.

    Asked again it only waits: a partition is done once.
    """
    wanted = set(partitions_of_topic(config, topics.PLAYS))
    if topic not in read_operations(config).cutovers:
        Publisher(config).send([Out(topics.OPERATIONS, CUTOVER + topic.encode(), _value(), 0)])
    deadline = time.monotonic() + wait
    while True:
        done = read_operations(config).cutovers.get(topic, {})
        missing = sorted(wanted - done.keys())
        if not missing or time.monotonic() > deadline:
            figures = [json.loads(value) for value in done.values()]
            return Counts(sum(f["swapped"] for f in figures), sum(f["left"] for f in figures)), missing
        time.sleep(0.5)


# -- in the worker --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cutover:
    """One partition's share, to be run on its lane between two batches, while the partition's plays wait.

    `lists` are due by the windows beside them; whether a window is still the same is quickly seen.
    """

    topic: str
    windows: TableStore
    forgotten: Container[str]
    lists: Mapping[str, tuple[bytes, bytes]]  # listener -> list, window
    replayed: int  # listeners

    @classmethod
    def prepare(
        cls, topic: str, partition: int, replayed: Newest, windows: TableStore, forgotten: Container[str]
    ) -> "Cutover":
        """Look at the windows of a partition's listeners as they stand."""
        seen = {user: data for user in replayed if (data := windows.get(partition, user.encode())) is not None}
        last = {user: decode_window(data).last_offset(partition) for user, data in seen.items()}
        lists = {user: (value, seen[user]) for user, value in due(replayed, last, forgotten).items()}
        return cls(topic, windows, forgotten, lists, len(replayed))

    def __call__(self, lane: Lane) -> None:
        """Publish the lists that are due still and the record that it is done, in one transaction. Blocking."""
        headers = ((REPLAYED, self.topic.encode()),)
        outs = [
            Out(topics.RECOMMENDATIONS, user.encode(), value, lane.partition, headers)
            for user, (value, window) in self.lists.items()
            if user not in self.forgotten and self.windows.get(lane.partition, user.encode()) == window
        ]
        counts = Counts(len(outs), self.replayed - len(outs))
        key = CUTOVER + f"{self.topic}/{lane.partition}".encode()
        done = Out(topics.OPERATIONS, key, _value(swapped=counts.swapped, left=counts.left), 0)
        lane.commit([*outs, done], {}, lane.mark)
        log.info("partition %d: %s of %s swapped in", lane.partition, counts, self.topic)


def asked_for(key: bytes) -> bool:
    """Whether this is the key of a request.

    >>> asked_for(b"cutover/backfill"), asked_for(b"cutover/backfill/3"), asked_for(b"redriven/3@41")
    (True, False, False)
    """
    return key.startswith(CUTOVER) and b"/" not in key.removeprefix(CUTOVER)


def requests(config: Config) -> Requests:
    """By topic, in the order in which they were asked for, the partitions that are done. Blocking: reads Kafka.

    To be called when the lanes in question are fenced: what their earlier owners committed is read then.
    """
    settled(config, topics.OPERATIONS)  # an open transaction of any lane hides what others committed behind it
    return read_operations(config).cutovers


def pending(
    config: Config, asked: Requests, partition: int, windows: TableStore, forgotten: Container[str]
) -> Iterator[Cutover]:
    """What is to be done in a partition. Blocking: reads Kafka."""
    for topic, done in asked.items():
        if partition not in done:
            try:
                yield Cutover.prepare(topic, partition, newest(config, topic, {partition}), windows, forgotten)
            except (MsamError, KafkaException) as error:
                log.error("partition %d: %s is not swapped in: %s", partition, topic, error)


def _value(**figures: int) -> bytes:
    return json.dumps({"at": round(time.time(), 3), **figures}).encode()
