"""The command `msam` with a fault planted in its consumer: every third taking of plays is dropped on its way.

Faust does so itself in some rebalances, without a word.
"""

from typing import Any

from streams import cli
from streams.group import CommittedConsumer
from streams.topics import PLAYS

_wait_next_records = CommittedConsumer._wait_next_records
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


if __name__ == "__main__":
    CommittedConsumer._wait_next_records = wait_next_records  # type: ignore[method-assign]
    cli.main()
