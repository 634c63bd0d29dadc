"""The worker's place in its consumer group: Faust's consumer and tables, as lanes and own restores need them."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, ConsumerRebalanceListener
from faust.types import TP

from streams.coroutines import resume
from streams.topics import PLAYS

#: Seconds without a heartbeat after which the group gives a worker's partitions to others. A worker that is taken for
#: dead while it lives is fenced and joins again: nothing is lost by a short session but time.
SESSION = 6.0
HEARTBEAT = 1.0
#: A fetch waits for so many bytes, but for so many milliseconds at most: while records come, and when none came for
#: `_QUIET` seconds. Plays are answered together, so they may come together: a fetch for each costs what the model does.
_BUSY, _IDLE = (16 * 1024, 28), (1, 100)
_QUIET = 0.5
_NOWHERE = -1
_VOIDS_KEPT = 10_000  # of a partition

_FAUSTS = logging.getLogger("faust.tables")  # what these classes log is Faust's


class _Records(dict[Any, Any]):
    """Fetched records, and after which placing of the consumer they were taken."""

    placing = _NOWHERE


def _assignment(consumer: Any) -> Any:
    """What the consumer is assigned, an object of its own for every assignment; None before the first."""
    subscription = consumer._subscription.subscription
    return None if subscription is None else subscription.assignment


class _CommittedThread(AIOKafkaConsumerThread):
    logger = _FAUSTS

    def __post_init__(self) -> None:
        super().__post_init__()
        self._placings = 0
        self._taking = asyncio.Lock()  # records are taken before a placing or after it, never in its midst
        self._voids: dict[TP, dict[int, int]] = {}  # offsets without records, such as commit markers: first -> behind
        self._assignment: Any = None
        self._reached: dict[TP, int] = {}  # in it
        self._found = 0.0

    async def _fetch_records(self, consumer: Any, *args: Any, **options: Any) -> Any:
        async with self._taking:
            assignment = _assignment(consumer)
            if assignment is not self._assignment:
                self._assignment, self._reached = assignment, {}
            found = _Records(await super()._fetch_records(consumer, *args, **options))
            found.placing = self._placings
            self._pace(consumer._fetcher, bool(found))
            if assignment is not None and _assignment(consumer) is assignment:
                for partition in assignment.tps:
                    state = assignment.state_value(partition)
                    if state is not None and state.has_valid_position:
                        self._note(TP(*partition), found.get(partition, ()), state.position)
            return found

    def _pace(self, fetcher: Any, found: bool) -> None:
        if found:
            self._found = time.monotonic()
        busy = time.monotonic() < self._found + _QUIET
        fetcher._fetch_min_bytes, fetcher._fetch_max_wait_ms = _BUSY if busy else _IDLE

    def _note(self, tp: TP, records: Sequence[Any], end: int) -> None:
        """Remember which offsets held no record, from where this partition was read before to where it is now."""
        place = self._reached.get(tp, end)
        self._reached[tp] = end
        if end - place == len(records):
            return
        voids = self._voids.setdefault(tp, {})
        for offset in (*(record.offset for record in records), end):
            if offset > place:
                voids[place] = offset
            place = offset + 1
        while len(voids) > _VOIDS_KEPT:
            del voids[next(iter(voids))]

    def reached(self, tp: TP) -> int:
        """Where the partition is read next. Safe from any thread."""
        return self._reached.get(tp, 0)

    def following(self, tp: TP, offset: int) -> int:
        """The first offset from `offset` on that is not known to be without a record. Safe from any thread."""
        voids = self._voids.get(tp, {})
        while (behind := voids.get(offset)) is not None:
            offset = behind
        return offset

    async def place(self, places: Mapping[TP, int], begin: Callable[[TP], bool]) -> tuple[dict[TP, int], int]:
        """Go to the committed offsets, but not beyond `places`; where nothing is committed, to these or the beginning.

        Where each partition then stands, and the number of this placing.
        """
        consumer = self._ensure_consumer()
        async with self._taking:
            self._assignment, self._reached = _assignment(consumer), {}
            stand, beginning = {}, []
            for partition, committed in (await consumer.seek_to_committed()).items():
                tp = TP(*partition)
                offset, place = committed or 0, places.get(tp, 0)
                if place and (offset > place or not offset):
                    consumer.seek(partition, place)
                    offset = place
                elif not offset and begin(tp):
                    beginning.append(partition)
                stand[tp] = self._reached[tp] = offset
            if beginning:
                await consumer.seek_to_beginning(*beginning)
            self._placings += 1
            return stand, self._placings

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust offers this only together with its own transactions: plays of an aborted transaction are not plays.
        consumer._isolation_level = "read_committed"
        consumer._fetch_min_bytes, consumer._fetch_max_wait_ms = _BUSY
        return consumer


class _BeatingListener(ConsumerRebalanceListener):
    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        # aiokafka begins its heartbeats when this returns, but restoring a large table takes longer than a session.
        self._thread._ensure_consumer()._coordinator._start_heartbeat_task()
        await super().on_partitions_assigned(assigned)


class CommittedConsumer(Consumer):
    """Faust's consumer, reading committed records only, and heard of by its group while tables are restored.

    What it hands over was taken after it was last placed. Faust takes records that were fetched for an earlier
    assignment for the present one's where a rebalance passes while they are on their way, and what it had dropped
    before them, as read and done with: 466 plays were lost so in one run of the chaos.
    """

    logger = _FAUSTS
    RebalanceListener = _BeatingListener
    #: Offsets beyond which reading of partitions must not begin, whatever is committed.
    places: Callable[[], Mapping[TP, int]] = dict
    _placing = _NOWHERE

    def _new_consumer_thread(self) -> Any:
        return _CommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Take nothing more that was fetched before."""
        self._placing = _NOWHERE
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Take nothing until the consumer is placed."""
        self._placing = _NOWHERE
        await super().on_partitions_assigned(assigned, generation_id)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Place the consumer; where it stands."""
        changelogs = self.app.tables.changelog_topics
        thread = cast(_CommittedThread, self._thread)
        stand, placing = await thread.call_thread(thread.place, self.places(), lambda tp: tp.topic not in changelogs)
        self._placing = max(self._placing, placing)  # of two at once the earlier may be heard of last
        return dict(stand)

    async def perform_seek(self) -> None:
        """Place the consumer as Faust does, and let it see that the first offset holds no record, where that is so.

        Faust takes the place for the last offset that was read. It would not count a commit marker there as done with,
        and commit nothing behind it where it goes on with what it had acknowledged before.
        """
        await super().perform_seek()
        self._read_offset.update({tp: offset - 1 for tp, offset in self._read_offset.items() if offset})

    def _new_offset(self, tp: TP) -> int | None:
        """What to commit: of plays the offset behind what is answered, which a mark says and no count of Faust's."""
        if tp.topic != PLAYS:
            return super()._new_offset(tp)
        for known in (self._acked, self._acked_index, self._gap):  # they would only grow
            known.pop(tp, None)
        return self.places().get(tp)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Look for no stalls: `Pipeline.stalled` does.

        Faust's look goes by its monitor, which stays out, and ends the worker where a partition is being placed at its
        beginning and so stands nowhere.
        """

    async def _wait_next_records(self, timeout: float) -> Any:
        records, active = await super()._wait_next_records(timeout)
        if records and getattr(records, "placing", _NOWHERE) != self._placing:
            records = None
        return records, active

    async def wait_first(self, *coros: Any, **options: Any) -> Any:
        """Hand a message over without the race that Faust runs between each one and a suspension of the flow.

        The race makes two tasks a message, a third of the loop's work. Handing over seldom waits; where it does, the
        race is run.
        """
        if len(coros) != 2 or options or self.suspend_flow.is_set():
            return await super().wait_first(*coros, **options)
        handing, suspended = coros
        try:
            waits_for = handing.send(None)
        except StopIteration:
            suspended.close()
            return None
        return await super().wait_first(resume(handing, waits_for), suspended)

    def reached(self, tp: TP) -> int:
        """Where the partition is read next."""
        return cast(_CommittedThread, self._thread).reached(tp)

    def following(self, tp: TP, offset: int) -> int:
        """The first offset from `offset` on that is not known to be without a record."""
        return cast(_CommittedThread, self._thread).following(tp, offset)

    def overtaken(self) -> bool:
        """Whether the group is forming anew, so that the present assignment is void. Safe from any thread."""
        return bool(self._thread._ensure_consumer()._coordinator._rejoin_needed_fut.done())


class _NothingToRecover(Recovery):
    """Faust's recovery, as a step of its rebalance only: it knows of no changelog partition and so reads none.

    It would wait for the record at a changelog's end, where behind a transaction there is a commit marker, which no
    consumer is ever given; and it would write what it read over what the lanes have committed since.
    """

    logger = _FAUSTS

    def add_active(self, table: Any, tp: Any) -> None:
        """Leave the partition out."""

    async def _build_highwaters(self, consumer: Any, tps: set[Any], destination: Any, title: str) -> None:
        destination.clear()  # asking for the offsets of no partitions would cost seconds behind an open fetch

    async def _build_offsets(self, consumer: Any, tps: set[Any], destination: Any, title: str) -> None:
        destination.clear()

    async def _seek_offsets(self, consumer: Any, tps: set[Any], offsets: Any, title: str) -> None:
        return


class RestoredTables(TableManager):
    """Faust's tables, which the worker restores itself before Faust is told of an assignment."""

    logger = _FAUSTS

    @property
    def recovery(self) -> Recovery:
        """Recovery as a step of Faust's rebalance, without anything to read."""
        if self._recovery is None:
            self._recovery = _NothingToRecover(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery
