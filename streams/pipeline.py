"""The bounded micro-batcher between Faust's events and the lanes.

The event loop only collects and acknowledges. Model calls run on one thread, transactions on others, so that the next
batch is inferred while the last is committed. A lane has at most one batch in flight, which keeps its order.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from streams.lanes import Lane, LaneFenced
from streams.outgoing import Out

log = logging.getLogger(__name__)
T = TypeVar("T")


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

    def commit(self, lane: Lane, mark: int) -> None:
        """Make the bytes and commit them in one transaction. Blocking."""
        lane.commit([out() for out in self.outs], {key: value() for key, value in self.state.items()}, mark)


class Step(Protocol):
    """The logic between records and outputs; runs on the inference thread."""

    def __call__(self, lanes: Mapping[int, Lane], batch: Sequence[SourceEvent]) -> dict[int, Result]: ...

    def forget(self, partitions: Iterable[int]) -> None:
        """Drop what is cached of partitions that are no longer ours or whose last batch failed."""

    def idle(self) -> None:
        """Take in what arrived beside the plays (features, models)."""

    def ready(self) -> bool:
        """Whether plays can be handled (a model is there)."""


class Pipeline:
    """Collects events, infers in micro-batches, commits lane by lane, then acknowledges."""

    def __init__(self, step: Step, *, batch: int, linger: float = 0.0, bound: int = 512, threads: int = 4) -> None:
        self._step = step
        self._batch = batch
        self._linger = linger
        self._last = 0.0
        self._bound = bound
        self._lanes: dict[int, Lane] = {}
        self._pending: dict[int, deque[SourceEvent]] = {}
        self._flying: dict[int, asyncio.Task[None]] = {}
        self._waiting = 0
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self.infer = ThreadPoolExecutor(1, "infer")
        self.io = ThreadPoolExecutor(threads, "commit")
        self.lost: set[int] = set()
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
        pending.append(event)
        if not self._waiting and not self._flying:
            self._progress = time.monotonic()
        self._waiting += 1
        self._work.set()

    @property
    def partitions(self) -> set[int]:
        """The partitions that are served here."""
        return set(self._lanes)

    def stalled(self) -> float:
        """Seconds for which plays have been waiting without any being answered."""
        return time.monotonic() - self._progress if self._waiting or self._flying else 0.0

    def assign(self, lanes: Iterable[Lane]) -> None:
        """Start on these partitions; their stores are restored and their earlier owners fenced."""
        for lane in lanes:
            self._lanes[lane.partition] = lane
            self._pending[lane.partition] = deque()

    async def revoke(self) -> None:
        """Let go of every partition: nothing new starts, what is being committed is waited for."""
        self._pending.clear()
        self._waiting = 0
        self._room.set()
        while self._flying:
            await asyncio.wait(self._flying.values())
        partitions, self._lanes = list(self._lanes), {}
        self.lost.clear()
        await self._call(self._step.forget, partitions)

    async def run(self) -> None:
        """Serve until cancelled; raises what went wrong beyond repair."""
        while True:
            if self._failure is not None:
                raise self._failure
            await self._gather()
            batch = self._take() if self._step.ready() else []
            if batch:
                await self._handle(batch)
                continue
            self._work.clear()
            if not await self._woken(0.05):
                await self._call(self._step.idle)

    async def _woken(self, seconds: float) -> bool:
        """Whether there is work before the time is over. (wait_for may swallow a cancellation in Python 3.11.)"""
        wait = asyncio.ensure_future(self._work.wait())
        try:
            done, _ = await asyncio.wait([wait], timeout=seconds)
            return bool(done)
        finally:
            wait.cancel()

    async def _gather(self) -> None:
        """Let plays come together for up to `linger` seconds from the last batch: each costs a transaction a lane."""
        left = self._last + self._linger - time.monotonic()
        if left > 0 and self._waiting < self._batch:
            await asyncio.sleep(left)

    def _take(self) -> list[SourceEvent]:
        """Up to one batch, from the lanes that have nothing in flight, the longest waiting first.

        Under load one lane fills a batch: one transaction for it, and the other lanes' batch is inferred meanwhile.
        """
        batch: list[SourceEvent] = []
        free = [p for p in self._pending if p not in self._flying and p not in self.lost and self._pending[p]]
        for partition in sorted(free, key=lambda p: self._pending[p][0].message.timestamp):
            pending = self._pending[partition]
            batch.extend(pending.popleft() for _ in range(min(self._batch - len(batch), len(pending))))
        if batch:
            self._last = time.monotonic()
            self._waiting -= len(batch)
            self._room.set()
        return batch

    async def _handle(self, batch: list[SourceEvent]) -> None:
        lanes = {p: self._lanes[p] for p in {event.message.partition for event in batch}}
        barrier = asyncio.get_running_loop().create_future()
        for partition in lanes:  # in flight from here on, so that a revoke waits for the inference too
            self._flying[partition] = asyncio.ensure_future(self._commit_when(barrier, lanes[partition], batch))
        try:
            barrier.set_result(await self._call(self._step, lanes, batch))
        except asyncio.CancelledError:
            barrier.cancel()
            raise
        except Exception as error:
            barrier.set_exception(error)

    async def _commit_when(
        self, barrier: "asyncio.Future[dict[int, Result]]", lane: Lane, batch: Sequence[SourceEvent]
    ) -> None:
        partition = lane.partition
        mine = [event for event in batch if event.message.partition == partition]
        try:
            result = (await barrier)[partition]
            mark = max(mine[-1].message.offset, lane.mark)
            loop = asyncio.get_running_loop()
            if result or mark > lane.mark:
                await loop.run_in_executor(self.io, result.commit, lane, mark)
            for event in mine:
                event.ack()
            self._progress = time.monotonic()
        except LaneFenced as error:
            log.warning("%s", error)
            self._lose(partition)
            await self._call(self._step.forget, [partition])
        except asyncio.CancelledError:
            if not barrier.cancelled():
                raise
        except Exception as error:  # a bug or a broken disk: stop rather than go on past the loss
            self._failure = error
            self.lost.add(partition)
        finally:
            del self._flying[partition]
            self._work.set()

    def _lose(self, partition: int) -> None:
        """Drop what waits on a lane that another worker has: it must not take room from the others."""
        self.lost.add(partition)
        pending = self._pending.get(partition)
        if pending:
            self._waiting -= len(pending)
            pending.clear()
        self._room.set()

    async def _call(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.infer, function, *args)

    def close(self) -> None:
        """Stop the threads."""
        self.infer.shutdown(wait=True, cancel_futures=True)
        self.io.shutdown(wait=True, cancel_futures=True)
