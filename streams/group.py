"""The worker's place in its consumer group: Faust's consumer and tables, as lanes and own restores need them."""

import logging
from collections.abc import Iterable
from typing import Any

from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, ConsumerRebalanceListener

from streams.coroutines import resume

#: Seconds without a heartbeat after which the group gives a worker's partitions to others. A worker that is taken for
#: dead while it lives is fenced and joins again: nothing is lost by a short session but time.
SESSION = 10.0
HEARTBEAT = 1.0
_FETCH_BYTES, _FETCH_WAIT_MS = 16 * 1024, 20


_FAUSTS = logging.getLogger("faust.tables")  # what these classes log is Faust's


class _CommittedThread(AIOKafkaConsumerThread):
    logger = _FAUSTS

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust offers this only together with its own transactions: plays of an aborted transaction are not plays.
        consumer._isolation_level = "read_committed"
        # Plays are answered together, so they may come together: a fetch for each costs as much as the model.
        consumer._fetch_min_bytes = _FETCH_BYTES
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS
        return consumer


class _BeatingListener(ConsumerRebalanceListener):
    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        # aiokafka begins its heartbeats when this returns, but restoring a large table takes longer than a session.
        self._thread._ensure_consumer()._coordinator._start_heartbeat_task()
        await super().on_partitions_assigned(assigned)


class CommittedConsumer(Consumer):
    """Faust's consumer, reading committed records only, and heard of by its group while tables are restored."""

    logger = _FAUSTS
    RebalanceListener = _BeatingListener

    def _new_consumer_thread(self) -> Any:
        return _CommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def wait_first(self, *coros: Any, timeout: Any = None) -> Any:
        """Hand a message over without the race that Faust runs between each one and a suspension of the flow.

        The race makes two tasks a message, a third of the loop's work. Handing over seldom waits; where it does, the
        race is run.
        """
        if len(coros) != 2 or timeout is not None or self.suspend_flow.is_set():
            return await super().wait_first(*coros, timeout=timeout)
        handing, suspended = coros
        try:
            waits_for = handing.send(None)
        except StopIteration:
            suspended.close()
            return None
        return await super().wait_first(resume(handing, waits_for), suspended, timeout=timeout)

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
