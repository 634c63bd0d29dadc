"""The command `msam` with two faults planted in its consumer.

Every third taking of plays is dropped on its way: Faust does so itself in some rebalances, without a word. And where a
partition begins is learned slowly: meanwhile it stands nowhere, which must not end the worker.
"""

import asyncio
from typing import Any

from aiokafka.consumer.fetcher import Fetcher

from streams import cli
from streams.group import CommittedConsumer
from streams.topics import PLAYS

_wait_next_records = CommittedConsumer._wait_next_records
_proc_offset_request = Fetcher._proc_offset_request
_SLOW = 3.0  # seconds; Faust would look for stalls every 2.5
_taken = 0


async def wait_next_records(self: CommittedConsumer, timeout: float) -> Any:
    """As the consumer does, or nothing, although it has gone past."""
    global _taken
    records, active = await _wait_next_records(self, timeout)
    if records and any(tp.topic == PLAYS for tp in records):
        _taken += 1
        if _taken % 3 == 0:
            records = None
    return records, active


async def proc_offset_request(self: Fetcher, *args: Any) -> Any:
    """As the consumer asks for the offsets where partitions begin, but late."""
    await asyncio.sleep(_SLOW)
    return await _proc_offset_request(self, *args)


if __name__ == "__main__":
    CommittedConsumer._wait_next_records = wait_next_records  # type: ignore[method-assign]
    Fetcher._proc_offset_request = proc_offset_request
    cli.main()
