"""Parts of a user's plays: read back what was written, whatever the limit, and only what was committed."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from msam.counts import key_of
from streams.histories import PART, PREFIX, Histories
from streams.stores import TableStore


class Rows:
    """A store in memory."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, bytes], bytes] = {}

    def get(self, partition: int, key: bytes) -> bytes | None:
        return self.rows.get((partition, key))


def play(histories: Histories, rows: Rows, count: int, start: int = 0) -> None:
    for n in range(start, start + count):
        key, value = histories.add(0, "alice", f"t{n}", float(n))
        rows.rows[0, key] = value()


@pytest.mark.parametrize("count", [0, 1, PART - 1, PART, PART + 1, 3 * PART, 7 * PART + 13])
@pytest.mark.parametrize("limit", [1, PART, 2 * PART + 10])
def test_a_worker_that_starts_knows_the_same_plays(count: int, limit: int) -> None:
    rows = Rows()
    histories = Histories(cast(TableStore, rows), limit)
    play(histories, rows, count)
    again = Histories(cast(TableStore, rows), limit)
    for made in (histories, again):
        tracks, times = made.get(0, "alice")
        wanted = range(max(count - limit, 0), count)
        assert tracks.tolist() == [key_of(f"t{n}") for n in wanted] and times.tolist() == [float(n) for n in wanted]
    assert len(rows.rows) <= -(-limit // PART) + 1, "parts are overwritten in turn"
    assert all(key.startswith(PREFIX) for _, key in rows.rows)
    play(again, rows, 2 * PART, count)
    assert (
        again.get(0, "alice").tracks.tolist()
        == Histories(cast(TableStore, rows), limit).get(0, "alice").tracks.tolist()
    )


def test_plays_that_were_not_committed_are_forgotten() -> None:
    rows = Rows()
    histories = Histories(cast(TableStore, rows), 10)
    play(histories, rows, 3)
    before = histories.get(0, "alice")
    histories.add(0, "alice", "lost", 9.0)
    assert len(histories.get(0, "alice").tracks) == 4 and len(before.tracks) == 3, "what was asked for stays as it was"
    histories.forget([1])
    assert len(histories.get(0, "alice").tracks) == 4
    histories.forget([0])
    assert np.array_equal(histories.get(0, "alice").tracks, before.tracks)


def test_users_do_not_share_plays() -> None:
    histories = Histories(cast(TableStore, Rows()), 10)
    keys = {histories.add(partition, user, "t", 1.0)[0] for partition in (0, 1) for user in ("alice", "bob")}
    assert len(keys) == 2 and len(histories.get(1, "bob").tracks) == 1 and len(histories.get(0, "carol").tracks) == 0
