"""Half-run coroutines go on as if they had been awaited."""

import asyncio
from contextlib import closing

import pytest

from streams.coroutines import resume


def test_the_rest_runs_in_a_task_and_gives_its_result() -> None:
    async def whole() -> list[str]:
        gate, told = asyncio.Event(), list[str]()

        async def work() -> str:
            told.append("began")
            await gate.wait()
            await asyncio.sleep(0)
            told.append("ended")
            return "result"

        begun = work()
        waits_for = begun.send(None)
        assert told == ["began"]
        task = asyncio.create_task(resume(begun, waits_for))
        await asyncio.sleep(0)
        gate.set()
        told.append(await task)
        return told

    assert asyncio.run(whole()) == ["began", "ended", "result"]


def test_a_cancellation_reaches_it() -> None:
    async def whole() -> str:
        told = ""

        async def work() -> None:
            nonlocal told
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told = "cancelled"
                raise

        begun = work()
        with closing(begun):
            task = asyncio.create_task(resume(begun, begun.send(None)))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        return told

    assert asyncio.run(whole()) == "cancelled"


def test_its_error_is_raised() -> None:
    async def whole() -> None:
        async def work() -> None:
            await asyncio.sleep(0)
            raise ValueError("wrong")

        begun = work()
        await resume(begun, begun.send(None))

    with pytest.raises(ValueError, match="wrong"):
        asyncio.run(whole())
