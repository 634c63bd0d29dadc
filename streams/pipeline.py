"""The bounded micro-batcher between Faust's events and the lanes.

The event loop only collects and acknowledges. One thread reads the plays of a batch and gathers what the model needs
for them, another calls the model, others commit: at any time one batch is being gathered, the one before it ranked, and
those before that committed. A lane has one transaction at a time, which keeps its order; what is inferred meanwhile
waits for the next, which takes it all.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

from streams.lanes import Lane, LaneFenced
from streams.outgoing import Out

log = logging.getLogger(__name__)
T = TypeVar("T")
_TOGETHER = 0.003  # seconds without another play after which a fetch has been handed over
_MISSED_AGAIN = 1.0  # seconds after which a play that is missing is asked for once more
_AHEAD = 3  # batches of a lane that are not yet being committed: more would only make its lists later


class SourceMessage(Protocol):
    """What is used of a consumed Kafka record."""

    partition: int
    offset: int
    timestamp: float
    key: bytes | None
    value: bytes | None
    headers: Any  # pairs, a mapping or None


class SourceEvent(Protocol):
    """A Faust event: its record, and the acknowledgement that lets its offset be committed."""

    @property
    def message(self) -> SourceMessage: ...

    def ack(self) -> bool: ...


@dataclass(slots=True)
class Result:
    """What follows from the records of one lane in one batch; bytes are made only when it is committed.

    The model's thread is the scarce one, and turning records into bytes needs nothing of the model.
    """

    outs: list[Callable[[], Out]] = field(default_factory=list)
    state: dict[bytes, Callable[[], bytes]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.outs or self.state)

    def add(self, later: "Result") -> None:
        """Take in what follows from later records of the same lane."""
        self.outs.extend(later.outs)
        self.state.update(later.state)

    def commit(self, lane: Lane, mark: int) -> None:
        """Make the bytes and commit them in one transaction. Blocking."""
        lane.commit([out() for out in self.outs], {key: value() for key, value in self.state.items()}, mark)


@dataclass(slots=True)
class _Taken:
    """Records of one lane that are being answered; `result` is there once the model has spoken."""

    events: list[SourceEvent]
    result: Result | None = None


Answer = Callable[[], dict[int, Result]]  # what follows from a batch, by lane; called on the model's thread


class Step(Protocol):
    """The logic between records and outputs; runs on the asking thread, but for what `ask` returns."""

    def ask(self, lanes: Mapping[int, Lane], batch: Sequence[SourceEvent]) -> Answer:
        """Read the records and gather what the model needs; the answers are called in the order of the questions."""

    def forget(self, partitions: Iterable[int]) -> None:
        """Drop what is cached of partitions that are no longer ours or whose last batch failed."""

    def news(self) -> bool:
        """Whether something arrived beside the plays (features, models)."""

    def idle(self) -> None:
        """Take it in; nothing that was asked is unanswered meanwhile."""

    def ready(self) -> bool:
        """Whether plays can be handled (a model is there)."""


async def _nothing() -> None:
    """Reading anew where nothing reads."""


class Pipeline:
    """Collects events, infers in micro-batches, commits lane by lane, then acknowledges.

    `reread` lets the consumer begin again behind what is answered; `following` says which offset of a partition is the
    next to hold a record, as far as the consumer knows of offsets without one (commit markers); `reached`, where the
    consumer reads next.
    """

    def __init__(
        self,
        step: Step,
        *,
        batch: int,
        linger: float = 0.0,
        bound: int = 512,
        threads: int = 4,
        reread: Callable[[], Awaitable[None]] = _nothing,
        following: Callable[[int, int], int] = lambda partition, offset: offset,
        reached: Callable[[int], int] = lambda partition: 0,
    ) -> None:
        self._reread, self._following, self._reached = reread, following, reached
        self._missed: set[int] = set()  # partitions of which something did not come
        self._behind: dict[int, int] = {}  # what had not come when it was last looked at
        self._looked = 0.0
        self._mending: asyncio.Task[None] | None = None
        self._step = step
        self._batch = batch
        self._linger = linger
        self._bound = bound
        self._lanes: dict[int, Lane] = {}
        self._pending: dict[int, deque[SourceEvent]] = {}
        self._newest: dict[int, int] = {}
        self._taken: dict[int, deque[_Taken]] = {}
        self._committing: dict[int, asyncio.Task[None]] = {}
        self._inferring: set[asyncio.Task[None]] = set()
        self._waiting = 0
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._asking = ThreadPoolExecutor(1, "ask")
        self._infer = ThreadPoolExecutor(1, "infer")
        self.io = ThreadPoolExecutor(threads, "commit")
        self.lost: set[int] = set()
        self._held: set[int] = set()  # somebody works on the lane, or waits for it
        self._failure: Exception | None = None
        self._progress = time.monotonic()

    async def put(self, event: SourceEvent, current: Callable[[], bool]) -> None:
        """Take one event; waits while the bound is reached. Dropped (not acknowledged) once `current` says no."""
        partition = event.message.partition
        while self._waiting >= self._bound and current() and partition not in self.lost:
            self._room.clear()
            await self._room.wait()
        pending = self._pending.get(partition)
        if pending is None or partition in self.lost or not current():
            return
        offset, newest = event.message.offset, self._newest.get(partition, -1)
        if offset <= newest:
            return  # a second copy of one that waits or is being answered; the first is acknowledged
        if offset > max(newest, self._lanes[partition].mark) + 1:
            wanted = self._wanted(partition)
            if offset > wanted:
                return self._miss(partition, wanted)
        self._missed.discard(partition)
        self._newest[partition] = offset
        pending.append(event)
        if not self._busy():
            self._progress = time.monotonic()
        self._waiting += 1
        self._work.set()

    def _wanted(self, partition: int) -> int:
        """The offset of the play that must come next."""
        last = max(self._newest.get(partition, -1), self._lanes[partition].mark)
        return self._following(partition, last + 1)

    def _miss(self, partition: int, wanted: int) -> None:
        """Have everything read again from a missing play on, rather than go on behind it.

        Faust drops messages in a rebalance, in more than one place; to take what follows them would lose them.
        """
        self._missed.add(partition)
        if self._mending is None:
            log.warning("partition %d: the play at %d did not come; reading anew", partition, wanted)
            self._mending = asyncio.ensure_future(self._mend())

    async def _mend(self) -> None:
        try:
            while self._missed and self._lanes:
                self._missed.clear()
                try:
                    await self._reread()
                except Exception as error:  # the broker may be away; what is missing shows again
                    log.warning("reading anew failed: %r", error)
                await asyncio.sleep(_MISSED_AGAIN)  # what had been read before is still on its way
        finally:
            self._mending = None

    def _look(self) -> None:
        """See whether what was read a while ago has not come: nothing may follow it that would show that."""
        if time.monotonic() < self._looked + 2 * _MISSED_AGAIN:
            return
        self._looked = time.monotonic()
        for partition, pending in self._pending.items():  # none while partitions are let go of
            if pending or self._taken[partition] or self._waiting >= self._bound or partition in self.lost:
                continue
            if (wanted := self._wanted(partition)) < self._reached(partition):
                if self._behind.get(partition) == wanted:
                    self._miss(partition, wanted)
                self._behind[partition] = wanted

    @property
    def partitions(self) -> set[int]:
        """The partitions that are served here."""
        return set(self._lanes)

    def marks(self) -> dict[int, int]:
        """The last answered offset of every partition that is served here."""
        return {partition: lane.mark for partition, lane in self._lanes.items()}

    def stalled(self) -> float:
        """Seconds for which plays have been waiting without any being answered."""
        return time.monotonic() - self._progress if self._busy() else 0.0

    def _busy(self) -> bool:
        return bool(self._waiting or self._committing or self._inferring)

    def assign(self, lanes: Iterable[Lane]) -> None:
        """Start on these partitions; their stores are restored and their earlier owners fenced."""
        for lane in lanes:
            self._lanes[lane.partition] = lane
            self._pending[lane.partition] = deque()
            self._taken[lane.partition] = deque()
            self._newest.pop(lane.partition, None)

    async def settle(self) -> None:
        """Start nothing new; wait for what is inferred or being committed. The marks are then what was answered."""
        self._pending.clear()
        self._missed.clear()
        self._waiting = 0
        self._room.set()
        while going := [*self._committing.values(), *self._inferring]:
            await asyncio.wait(going)

    async def revoke(self) -> None:
        """Settle, and let go of every partition."""
        await self.settle()
        partitions, self._lanes = list(self._lanes), {}
        self._behind.clear()
        self.lost.clear()
        await self._call(self._step.forget, partitions)

    async def run(self) -> None:
        """Serve until cancelled; raises what went wrong beyond repair."""
        while True:
            if self._failure is not None:
                raise self._failure
            self._look()
            await self._gather()
            batch = self._take() if self._step.ready() else {}
            if batch:
                self._inferring.add(asyncio.ensure_future(self._handle(batch)))
                if len(self._inferring) > 1 or self._waiting < self._batch:
                    await asyncio.wait(self._inferring, return_when=asyncio.FIRST_COMPLETED)
                continue
            self._work.clear()
            if not await self._woken(0.05):
                await self._call(self._take_in)

    async def _woken(self, seconds: float) -> bool:
        """Whether there is work before the time is over. (wait_for may swallow a cancellation in Python 3.11.)"""
        wait = asyncio.ensure_future(self._work.wait())
        try:
            done, _ = await asyncio.wait([wait], timeout=seconds)
            return bool(done)
        finally:
            wait.cancel()

    async def _gather(self) -> None:
        """Let what was fetched together be taken together, for up to `linger` seconds.

        Each batch costs a transaction a lane; but waiting for more would come on top of the fetch's own wait.
        """
        deadline = time.monotonic() + self._linger
        while 0 < self._waiting < self._batch and time.monotonic() < deadline:
            before = self._waiting
            await asyncio.sleep(_TOGETHER)
            if self._waiting == before:
                return

    def _take(self) -> dict[int, _Taken]:
        """Up to one batch, by partition, from the lanes that are not behind with committing, the longest waiting first.

        Under load one lane fills a batch: one transaction for it, and the other lanes' batch is inferred meanwhile.
        """
        batch: dict[int, _Taken] = {}
        room = self._batch
        shut = self.lost | self._held
        free = [p for p in self._pending if self._pending[p] and len(self._taken[p]) < _AHEAD and p not in shut]
        for partition in sorted(free, key=lambda p: self._pending[p][0].message.timestamp):
            pending = self._pending[partition]
            events = [pending.popleft() for _ in range(min(room, len(pending)))]
            batch[partition] = _Taken(events)
            self._taken[partition].append(batch[partition])
            room -= len(events)
            if not room:
                break
        if batch:
            self._waiting -= self._batch - room
            self._room.set()
        return batch

    async def _handle(self, batch: Mapping[int, _Taken]) -> None:
        """Infer one batch and leave its results to the lanes' commits."""
        events = [event for taken in batch.values() for event in taken.events]
        try:
            answer = await self._call(self._ask, {p: self._lanes[p] for p in batch}, events)
            results = await asyncio.wrap_future(answer)
            for partition, taken in batch.items():
                taken.result = results[partition]
                if partition not in self._committing and partition not in self.lost:
                    self._committing[partition] = asyncio.ensure_future(self._commit(self._lanes[partition]))
        except Exception as error:  # a bug: stop rather than go on past the loss
            self._failure = error
            self.lost.update(batch)
        finally:
            self._inferring.remove(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _commit(self, lane: Lane) -> None:
        """Commit what is made for a lane, all of it in one transaction, until nothing is left."""
        taken = self._taken[lane.partition]
        try:
            while taken and taken[0].result is not None:
                events, result = [], Result()
                while taken and (made := taken[0].result) is not None:
                    events += taken.popleft().events
                    result.add(made)
                self._work.set()
                mark = max(events[-1].message.offset, lane.mark)
                if result or mark > lane.mark:
                    await asyncio.get_running_loop().run_in_executor(self.io, result.commit, lane, mark)
                for event in events:
                    event.ack()
                self._progress = time.monotonic()
        except LaneFenced as error:
            log.warning("%s", error)
            self._lose(lane.partition)
            await self._call(self._step.forget, [lane.partition])
        except Exception as error:  # a bug or a broken disk: stop rather than go on past the loss
            self._failure = error
            self.lost.add(lane.partition)
        finally:
            del self._committing[lane.partition]
            self._work.set()

    def lanes(self) -> dict[int, Lane]:
        """The lanes of the present assignment."""
        return dict(self._lanes)

    async def exclusively(self, expected: Lane, work: Callable[[Lane], object]) -> None:
        """Run `work` on a lane between two of its batches, and drop what is cached of its partition.

        Nothing is run where another assignment has come meanwhile: that one's owner has to see for itself.
        """
        partition = expected.partition
        self._held.add(partition)
        try:
            while partition not in self.lost and (self._taken.get(partition) or partition in self._committing):
                going = [*self._inferring, *([one] if (one := self._committing.get(partition)) else [])]
                await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
            lane = self._lanes.get(partition)
            if lane is expected and partition in self._pending and partition not in self.lost:  # nor is it settled
                self._committing[partition] = asyncio.ensure_future(self._alone(lane, work))
                await self._committing[partition]
        finally:
            self._held.discard(partition)
            self._work.set()

    async def _alone(self, lane: Lane, work: Callable[[Lane], object]) -> None:
        partition = lane.partition
        try:
            await asyncio.get_running_loop().run_in_executor(self.io, work, lane)
            await self._call(self._step.forget, [partition])
        except LaneFenced as error:
            log.warning("%s", error)
            self._lose(partition)
        except Exception as error:  # as in a commit: stop rather than go on past it
            self._failure = error
            self.lost.add(partition)
        finally:
            del self._committing[partition]

    def _lose(self, partition: int) -> None:
        """Drop what waits on a lane that another worker has: it must not take room from the others."""
        self.lost.add(partition)
        self._taken[partition].clear()
        pending = self._pending.get(partition)
        if pending:
            self._waiting -= len(pending)
            pending.clear()
        self._room.set()

    async def beside(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function on the asking thread, with all that arrived taken in."""

        def called() -> T:
            self._take_in()
            return function(*args)

        return await self._call(called)

    def _ask(self, lanes: Mapping[int, Lane], events: Sequence[SourceEvent]) -> "Future[dict[int, Result]]":
        self._take_in()
        return self._infer.submit(self._step.ask(lanes, events))

    def _take_in(self) -> None:
        if self._step.news():
            self._infer.submit(lambda: None).result()  # what is being answered must not change under the model
            self._step.idle()

    async def _call(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._asking, function, *args)

    def close(self) -> None:
        """Stop the threads."""
        self._asking.shutdown(wait=True, cancel_futures=True)
        self._infer.shutdown(wait=True, cancel_futures=True)
        self.io.shutdown(wait=True, cancel_futures=True)
