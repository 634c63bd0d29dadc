"""The micro-batcher: order and one transaction at a time per lane, a bound, and clean hand-overs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.lanes import Lane, LaneFenced
from streams.outgoing import Out
from streams.pipeline import Answer, Pipeline, Result, SourceEvent

T = TypeVar("T")


@dataclass
class Message:
    """A consumed record."""

    partition: int
    offset: int
    timestamp: float = 1.0
    key: bytes | None = b"k"
    value: bytes | None = b"v"
    headers: Any = None


@dataclass
class Event:
    """A consumed record and how often it was acknowledged."""

    message: Message
    acks: int = 0

    def ack(self) -> bool:
        self.acks += 1
        return True


class Committing:
    """A lane that keeps what is committed; `gate` holds commits back, `error` makes them fail."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.mark = -1
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.commits: list[list[int]] = []
        self.entered = 0
        self.inside = 0
        self.most_inside = 0

    def commit(self, outs: Sequence[Out], state: Mapping[bytes, bytes], mark: int) -> None:
        self.entered += 1
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        assert self.gate.wait(10)
        self.inside -= 1
        if self.error is not None:
            raise self.error
        self.commits.append([int(out.value or b"-1") for out in outs])
        self.mark = mark

    @property
    def offsets(self) -> list[int]:
        return [offset for commit in self.commits for offset in commit]


@dataclass
class Echo:
    """A step whose outputs are the offsets of what came in."""

    is_ready: bool = True
    gate: threading.Event = field(default_factory=threading.Event)
    batches: list[list[tuple[int, int]]] = field(default_factory=list)
    forgotten: list[list[int]] = field(default_factory=list)
    idles: int = 0
    error: Exception | None = None
    silent: bool = False
    running: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    def ask(self, lanes: Mapping[int, Lane], batch: Sequence[SourceEvent]) -> Answer:
        return partial(self.answer, lanes, batch)

    def answer(self, lanes: Mapping[int, Lane], batch: Sequence[SourceEvent]) -> dict[int, Result]:
        self.running += 1
        assert self.gate.wait(10)
        self.running -= 1
        if self.error is not None:
            raise self.error
        self.batches.append([(event.message.partition, event.message.offset) for event in batch])
        results = {partition: Result() for partition in lanes}
        for event in batch:
            message = event.message
            if message.offset > lanes[message.partition].mark and not self.silent:
                results[message.partition].outs.append(partial(Out, "t", b"k", str(message.offset).encode()))
        return results

    def forget(self, partitions: Iterable[int]) -> None:
        self.forgotten.append(list(partitions))

    def news(self) -> bool:
        return True

    def idle(self) -> None:
        self.idles += 1
        assert not self.running

    def ready(self) -> bool:
        return self.is_ready


class Bench:
    """A pipeline, its step and its lanes, running."""

    def __init__(self, partitions: int = 1, batch: int = 4, bound: int = 512, linger: float = 0.0) -> None:
        self.step = Echo()
        self.pipeline = Pipeline(self.step, batch=batch, linger=linger, bound=bound)
        self.lanes = [Committing(partition) for partition in range(partitions)]
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.pipeline.assign(cast("list[Lane]", self.lanes))
        self.task = asyncio.create_task(self.pipeline.run())

    async def put(self, *events: Event) -> None:
        for event in events:
            await self.pipeline.put(cast(SourceEvent, event), lambda: True)

    async def end(self) -> None:
        """Let everything through, stop and wait."""
        self.step.gate.set()
        for lane in self.lanes:
            lane.gate.set()
        while self.task is not None and not self.task.done():
            self.task.cancel()
            await asyncio.wait([self.task], timeout=0.5)
        self.pipeline.close()


def events(partition: int, *offsets: int) -> list[Event]:
    return [Event(Message(partition, offset)) for offset in offsets]


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    for _ in range(int(seconds / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to that")


async def settled(seconds: float = 0.08) -> None:
    """Long enough for anything that could happen to happen."""
    await asyncio.sleep(seconds)


def run(test: Callable[[Bench], Awaitable[T]], bench: Callable[[], Bench] = Bench) -> T:
    async def whole() -> T:
        made = bench()
        try:
            return await asyncio.wait_for(test(made), 20)
        finally:
            await made.end()

    return asyncio.run(whole())


def test_everything_is_committed_in_order_and_acknowledged_once() -> None:
    async def test(bench: Bench) -> None:
        bench.start()
        made = {partition: events(partition, *range(20)) for partition in range(3)}
        for offset in range(20):
            for partition in range(3):
                await bench.put(made[partition][offset])
        await until(lambda: all(event.acks for some in made.values() for event in some))
        for lane in bench.lanes:
            assert lane.offsets == list(range(20)) and lane.mark == 19 and lane.most_inside == 1
        assert all(event.acks == 1 for some in made.values() for event in some)
        assert max(map(len, bench.step.batches)) <= 4 and bench.pipeline.stalled() == 0.0

    run(test, lambda: Bench(partitions=3))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(order=st.lists(st.integers(0, 2), max_size=60), batch=st.integers(1, 7), bound=st.integers(1, 20))
def test_order_holds_for_any_arrival(order: list[int], batch: int, bound: int) -> None:
    async def test(bench: Bench) -> None:
        bench.start()
        ends = [0, 0, 0]
        made: list[Event] = []
        for partition in order:
            made += events(partition, ends[partition])
            ends[partition] += 1
            await bench.put(made[-1])
        await until(lambda: all(event.acks for event in made))
        assert [lane.offsets for lane in bench.lanes] == [list(range(end)) for end in ends]
        assert all(event.acks == 1 for event in made) and all(lane.most_inside <= 1 for lane in bench.lanes)
        assert all(len(some) <= batch for some in bench.step.batches)

    run(test, lambda: Bench(partitions=3, batch=batch, bound=bound))


def test_a_lane_has_one_transaction_at_a_time_and_the_others_go_on() -> None:
    async def test(bench: Bench) -> None:
        slow, quick = bench.lanes
        slow.gate.clear()
        bench.start()
        first, second = events(0, *range(40)), events(1, *range(10))
        await bench.put(*first, *second)
        await until(lambda: quick.mark == 9)
        await settled()
        assert slow.entered == 1 and slow.commits == [] and all(event.acks == 0 for event in first)
        assert all(event.acks == 1 for event in second)
        taken = [offset for some in bench.step.batches for partition, offset in some if partition == 0]
        assert taken == list(range(len(taken)))
        slow.gate.set()
        await until(lambda: slow.mark == 39)
        assert len(taken) <= len(slow.commits[0]) + 3 * 4, "what is in flight, and three batches that wait for it"
        assert slow.offsets == list(range(40)) and slow.most_inside == 1
        assert slow.commits[1] == taken[len(slow.commits[0]) :], "what waited shares one transaction"

    run(test, lambda: Bench(partitions=2, batch=4))


def test_the_next_batch_is_inferred_while_the_last_is_committed() -> None:
    async def test(bench: Bench) -> None:
        bench.lanes[0].gate.clear()
        bench.start()
        await bench.put(*events(0, 0))
        await until(lambda: bench.lanes[0].inside == 1)
        await bench.put(*events(1, 0))
        await until(lambda: bench.lanes[1].mark == 0)
        assert bench.lanes[0].inside == 1

    run(test, lambda: Bench(partitions=2))


def test_the_longest_waiting_lane_comes_first() -> None:
    async def test(bench: Bench) -> None:
        bench.step.is_ready = False
        bench.start()
        young, old = events(0, *range(50)), events(1, *range(3))
        for place, event in enumerate((*old, *young)):
            event.message.timestamp = float(place)
        await bench.put(*young, *old)
        bench.step.is_ready = True
        await until(lambda: bench.step.batches)
        assert [partition for partition, _ in bench.step.batches[0]] == [1] * 3 + [0] * 6
        await until(lambda: bench.lanes[0].mark == 49)
        assert bench.lanes[1].mark == 2

    run(test, lambda: Bench(partitions=3, batch=9))


def test_a_full_pipeline_makes_the_consumer_wait() -> None:
    async def test(bench: Bench) -> None:
        bench.lanes[0].gate.clear()
        bench.start()
        waiting = events(0, *range(60))
        done: list[int] = []

        async def produce() -> None:
            for event in waiting:
                await bench.put(event)
                done.append(event.message.offset)

        task = asyncio.create_task(produce())
        await until(lambda: bench.lanes[0].entered == 1)
        await settled()
        assert len(done) <= 10 + 6 * 4, "the bound, up to three batches that are being committed, and three that wait"
        assert not task.done()
        bench.lanes[0].gate.set()
        await task
        await until(lambda: bench.lanes[0].mark == 59)
        assert bench.lanes[0].offsets == list(range(60))

    run(test, lambda: Bench(bound=10))


def test_plays_wait_until_there_is_a_model() -> None:
    async def test(bench: Bench) -> None:
        bench.step.is_ready = False
        bench.start()
        (event,) = events(0, 0)
        await bench.put(event)
        await until(lambda: bench.step.idles >= 2)
        assert bench.step.batches == [] and event.acks == 0 and bench.pipeline.stalled() > 0
        bench.step.is_ready = True
        await until(lambda: event.acks)
        await until(lambda: bench.pipeline.stalled() == 0.0)

    run(test)


def test_events_of_partitions_that_are_not_ours_are_dropped() -> None:
    async def test(bench: Bench) -> None:
        bench.start()
        (foreign,), (stale,), (good,) = events(7, 0), events(0, 0), events(0, 0)
        await bench.put(foreign)
        await bench.pipeline.put(cast(SourceEvent, stale), lambda: False)
        await bench.put(good)
        await until(lambda: good.acks)
        assert foreign.acks == stale.acks == 0 and bench.lanes[0].offsets == [0]
        assert bench.pipeline.partitions == {0}

    run(test)


def test_a_redelivery_without_output_is_acknowledged_without_a_transaction() -> None:
    async def test(bench: Bench) -> None:
        bench.lanes[0].mark = 5
        bench.start()
        old, new = events(0, 3, 4, 5), events(0, 6)
        await bench.put(*old)
        await until(lambda: all(event.acks == 1 for event in old))
        assert bench.lanes[0].entered == 0 and bench.lanes[0].mark == 5
        bench.step.silent = True
        await bench.put(*new)
        await until(lambda: new[0].acks == 1)
        assert bench.lanes[0].commits == [[]] and bench.lanes[0].mark == 6, "the mark moves on even without output"

    run(test)


class Rereading(Bench):
    """A bench whose log holds `there`; to read anew puts all of it that is not answered, as a consumer would."""

    def __init__(self, *there: int, voids: Mapping[int, int] | None = None) -> None:
        super().__init__()
        self.there, self.voids, self.rereads = there, voids or {}, 0
        self.pipeline = Pipeline(
            self.step,
            batch=4,
            reread=self.reread,
            following=lambda partition, offset: self.voids.get(offset, offset),
            reached=lambda partition: max(there) + 1,
        )

    async def reread(self) -> None:
        self.rereads += 1
        later = [offset for offset in self.there if offset > self.lanes[0].mark]
        asyncio.get_running_loop().call_later(0.02, lambda: asyncio.ensure_future(self.put(*events(0, *later))))


def test_what_the_consumer_dropped_is_read_again_before_what_follows() -> None:
    async def test(bench: Rereading) -> None:
        bench.start()
        await bench.put(*events(0, 0, 1))
        await bench.put(*events(0, 5, 6))  # 2, 3 and 4 were dropped on their way
        await until(lambda: bench.lanes[0].mark == 7)
        assert bench.lanes[0].offsets == list(range(8)) and bench.rereads == 1

    run(test, lambda: Rereading(*range(8)))


def test_the_first_play_of_an_assignment_must_follow_the_mark() -> None:
    async def test(bench: Rereading) -> None:
        bench.lanes[0].mark = 3
        bench.start()
        await bench.put(*events(0, 6, 7))
        await until(lambda: bench.lanes[0].mark == 7)
        assert bench.lanes[0].offsets == [4, 5, 6, 7]

    run(test, lambda: Rereading(*range(8)))


def test_what_was_dropped_last_is_missed_too() -> None:
    async def test(bench: Rereading) -> None:
        bench.start()
        await bench.put(*events(0, 0, 1))  # 2 and 3 were dropped on their way, and nothing follows
        await until(lambda: bench.lanes[0].mark == 3)
        assert bench.lanes[0].offsets == [0, 1, 2, 3]

    run(test, lambda: Rereading(0, 1, 2, 3))


def test_nothing_is_missed_while_partitions_are_let_go_of() -> None:
    async def test(bench: Rereading) -> None:
        bench.lanes[0].gate.clear()
        bench.start()
        await bench.put(*events(0, 0))
        await until(lambda: bench.lanes[0].inside)
        letting_go = asyncio.create_task(bench.pipeline.revoke())
        for _ in range(3):
            bench.pipeline._looked = 0.0
            await settled()
        assert bench.task is not None and not bench.task.done() and not bench.rereads
        bench.lanes[0].gate.set()
        await letting_go

    run(test, lambda: Rereading(0, 1, 2))


def test_a_failed_reading_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(bench: Rereading) -> None:
        good = bench.reread

        async def bad() -> None:
            monkeypatch.setattr(bench.pipeline, "_reread", good)
            raise ConnectionError("no broker")

        monkeypatch.setattr(bench.pipeline, "_reread", bad)
        bench.start()
        await bench.put(*events(0, 2))
        await until(lambda: bench.lanes[0].mark == 2)
        assert bench.lanes[0].offsets == [0, 1, 2]

    run(test, lambda: Rereading(0, 1, 2))


def test_offsets_that_are_known_to_hold_no_record_are_passed_over() -> None:
    async def test(bench: Rereading) -> None:
        bench.start()
        await bench.put(*events(0, 0, 1, 3))  # 2 is a commit marker
        await until(lambda: bench.lanes[0].mark == 3)
        assert bench.lanes[0].offsets == [0, 1, 3] and not bench.rereads

    run(test, lambda: Rereading(0, 1, 3, voids={2: 3}))


def test_a_second_copy_of_what_is_being_answered_is_dropped() -> None:
    """The consumer may be placed again behind the mark while plays are on their way."""

    async def test(bench: Bench) -> None:
        (lane,) = bench.lanes
        lane.gate.clear()
        bench.start()
        first, again, new = events(0, *range(6)), events(0, *range(6)), events(0, 6, 7)
        await bench.put(*first, *again, *new)
        await settled()
        lane.gate.set()
        await until(lambda: lane.mark == 7)
        assert lane.offsets == list(range(8)) and all(event.acks == 1 for event in (*first, *new))
        assert all(event.acks == 0 for event in again)
        await bench.pipeline.revoke()
        bench.pipeline.assign(cast("list[Lane]", bench.lanes))
        late = events(0, 7, 8)
        await bench.put(*late)
        await until(lambda: all(event.acks for event in late))
        assert lane.offsets == list(range(9)), "after a new assignment the mark decides"

    run(test)


def test_revoke_drops_what_waits_and_waits_for_what_is_in_flight() -> None:
    async def test(bench: Bench) -> None:
        bench.lanes[0].gate.clear()
        bench.start()
        made = events(0, *range(10))
        await bench.put(*made)
        await until(lambda: bench.lanes[0].inside == 1)
        revoking = asyncio.create_task(bench.pipeline.revoke())
        await settled()
        assert not revoking.done(), "a commit is in flight"
        bench.lanes[0].gate.set()
        await revoking
        await settled()
        count = len(bench.lanes[0].offsets)
        assert 1 <= count <= 10 and bench.lanes[0].offsets == list(range(count)) and bench.lanes[0].entered <= 2
        assert [event.acks for event in made] == [1] * count + [0] * (10 - count)
        assert bench.step.forgotten == [[0]] and bench.pipeline.partitions == set()
        (late,) = events(0, 10)
        await bench.put(late)
        await settled()
        assert late.acks == 0 and bench.pipeline.stalled() == 0.0

    run(test)


def test_revoke_waits_for_the_inference_too() -> None:
    async def test(bench: Bench) -> None:
        bench.step.gate.clear()
        bench.start()
        made = events(0, *range(3))
        await bench.put(*made)
        await until(lambda: bench.step.running == 1)
        revoking = asyncio.create_task(bench.pipeline.revoke())
        await settled()
        assert not revoking.done() and bench.lanes[0].entered == 0
        bench.step.gate.set()
        await revoking
        count = len(bench.lanes[0].offsets)
        assert 1 <= count <= 3 and [event.acks for event in made] == [1] * count + [0] * (3 - count)

    run(test)


def test_revoke_lets_a_waiting_consumer_go() -> None:
    async def test(bench: Bench) -> None:
        bench.step.is_ready = False
        bench.start()
        await bench.put(*events(0, 0, 1))
        mine = True
        (stuck,) = events(0, 2)
        putting = asyncio.create_task(bench.pipeline.put(cast(SourceEvent, stuck), lambda: mine))
        await settled()
        assert not putting.done()
        mine = False
        await bench.pipeline.revoke()
        await asyncio.wait_for(putting, 5)
        bench.step.is_ready = True
        bench.pipeline.assign(cast("list[Lane]", bench.lanes))
        (fresh,) = events(0, 0)
        await bench.put(fresh)
        await until(lambda: fresh.acks)
        assert bench.lanes[0].offsets == [0], "only what came after the hand-over"

    run(test, lambda: Bench(bound=2))


def test_what_comes_together_is_taken_together_and_nothing_waits_for_more() -> None:
    async def test(bench: Bench) -> None:
        bench.start()
        await settled(0.02)
        for event in events(0, 0, 1, 2):
            await bench.put(event)
            await asyncio.sleep(0)
        await until(lambda: bench.lanes[0].mark == 2)
        await bench.put(*events(0, 3))
        await until(lambda: bench.lanes[0].mark == 3)
        assert bench.lanes[0].commits == [[0, 1, 2], [3]]

    run(test, lambda: Bench(linger=60))


def test_a_settled_pipeline_takes_nothing_more_and_still_knows_its_marks() -> None:
    async def test(bench: Bench) -> None:
        bench.lanes[0].gate.clear()
        bench.start()
        await bench.put(*events(0, 0, 1))
        await until(lambda: bench.lanes[0].entered)
        settling = asyncio.create_task(bench.pipeline.settle())
        await settled()
        assert not settling.done()
        bench.lanes[0].gate.set()
        await asyncio.wait_for(settling, 5)
        await bench.put(*events(0, 2, 3))
        worked: list[Lane] = []
        await bench.pipeline.exclusively(cast(Lane, bench.lanes[0]), worked.append)
        await settled()
        assert bench.lanes[0].offsets == [0, 1] and not worked
        assert bench.pipeline.marks() == {0: 1}, "what is committed to the group at a worker's end"

    run(test)


def test_revoke_after_the_run_was_cancelled_in_the_middle_of_a_call() -> None:
    async def test(bench: Bench) -> None:
        bench.step.gate.clear()
        bench.start()
        await bench.put(*events(0, 0))
        await until(lambda: bench.step.running == 1)
        assert bench.task is not None
        bench.task.cancel()
        await asyncio.gather(bench.task, return_exceptions=True)
        bench.step.gate.set()
        await asyncio.wait_for(bench.pipeline.revoke(), 1)

    run(test)


def test_a_cancelled_run_ends_whatever_happens_at_that_moment() -> None:
    async def test(bench: Bench) -> None:
        for turns in range(5):
            bench.task = asyncio.create_task(bench.pipeline.run())
            await settled(0.02)
            bench.pipeline._work.set()
            for _ in range(turns):
                await asyncio.sleep(0)
            bench.task.cancel()
            await asyncio.wait([bench.task], timeout=1)
            assert bench.task.done(), turns

    run(test)


def test_a_fenced_lane_stops_and_the_others_go_on() -> None:
    async def test(bench: Bench) -> None:
        fenced, other = bench.lanes
        fenced.error = LaneFenced("partition 0 was taken over")
        bench.start()
        mine, theirs = events(0, *range(6)), events(1, *range(6))
        await bench.put(*mine, *theirs)
        await until(lambda: other.mark == 5)
        await until(lambda: bench.pipeline.lost == {0})
        assert bench.step.forgotten == [[0]]
        await bench.put(*events(0, 6))
        await settled()
        assert fenced.entered == 1 and all(event.acks == 0 for event in mine)
        assert all(event.acks == 1 for event in theirs) and bench.task is not None and not bench.task.done()
        await bench.pipeline.revoke()
        assert bench.pipeline.lost == set()
        fenced.error = None
        bench.pipeline.assign(cast("list[Lane]", bench.lanes))
        again = events(0, *range(7))
        await bench.put(*again)
        await until(lambda: fenced.mark == 6)
        assert fenced.offsets == list(range(7)) and all(event.acks == 1 for event in again)

    run(test, lambda: Bench(partitions=2))


def test_what_waits_on_a_fenced_lane_does_not_block_the_others() -> None:
    async def test(bench: Bench) -> None:
        fenced, other = bench.lanes
        fenced.error = LaneFenced("partition 0 was taken over")
        bench.start()
        await bench.put(*events(0, 0))
        await until(lambda: bench.pipeline.lost == {0})
        theirs = events(1, *range(20))
        for count in range(20):
            await asyncio.wait_for(bench.put(*events(0, 1 + count), theirs[count]), 1)
        await until(lambda: other.mark == 19)

    run(test, lambda: Bench(partitions=2, bound=8))


@pytest.mark.parametrize("where", ["commit", "step"])
def test_a_failure_stops_the_pipeline(where: str) -> None:
    async def test(bench: Bench) -> None:
        broken = OSError("disk full")
        if where == "commit":
            bench.lanes[0].error = broken
        else:
            bench.step.error = broken
        bench.start()
        made = events(0, *range(9))
        await bench.put(*made)
        assert bench.task is not None
        with pytest.raises(OSError, match="disk full"):
            await asyncio.wait_for(bench.task, 10)
        assert all(event.acks == 0 for event in made) and bench.lanes[0].commits == []
        assert bench.pipeline.lost == {0}, "nothing goes on past the loss"
        await asyncio.wait_for(bench.pipeline.revoke(), 5)

    run(test)


def test_work_on_a_lane_runs_alone_and_between_two_batches() -> None:
    async def test(bench: Bench) -> None:
        lane, other = bench.lanes
        seen: list[tuple[int, int]] = []
        lane.gate.clear()
        bench.start()
        await bench.put(*events(0, 0, 1))
        await until(lambda: lane.entered)

        def look(found: Lane) -> None:
            seen.append((found.mark, cast(Committing, found).inside))

        work = asyncio.create_task(bench.pipeline.exclusively(bench.pipeline.lanes()[0], look))
        await bench.put(*events(1, 0))
        await until(lambda: other.offsets == [0])
        assert not seen, "the batch in flight comes first, other lanes go on"
        lane.gate.set()
        await work
        assert seen == [(1, 0)] and bench.step.forgotten == [[0]]
        await bench.put(*events(0, 2))
        await until(lambda: lane.offsets == [0, 1, 2])
        await bench.pipeline.exclusively(cast(Lane, Committing(0)), look)
        assert len(seen) == 1, "a lane of an earlier assignment"

    run(test, lambda: Bench(partitions=2))


def test_work_on_a_lane_that_was_taken_over() -> None:
    def fenced(lane: Lane) -> None:
        raise LaneFenced("taken over")

    async def test(bench: Bench) -> None:
        bench.start()
        await bench.pipeline.exclusively(bench.pipeline.lanes()[0], fenced)
        assert bench.pipeline.lost == {0} and bench.task is not None and not bench.task.done()

    run(test)
