"""A short run of the chaos: kills in flight and a lost disk. Then its log is falsified, and the witness must see it."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos.run import plan, run
from tests.recompute_windows import MARK, Logs, Record, judge

FAULTS = ["kill", "rocksdb_loss", "kill"]
Ran = tuple[dict[str, Any], Logs]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    home = tmp_path_factory.mktemp("chaos")
    return run(home / "base", home / "run", FAULTS, seed=1, minutes=8, rate=40)


@pytest.mark.timeout(900)
def test_a_short_run_loses_nothing(ran: Ran) -> None:
    report, _ = ran
    assert report["ok"], {name: report[name] for name in ("kinds", "not_verified", "producer", "differences")}
    assert report["plays"] == report["recommendations"] + report["dead_letters"] > 2000
    assert (report["lost"], report["duplicates"], report["wrong_windows"], report["stale"]) == (0, 0, 0, 0)
    assert report["faults"]["kill"] == 2 and report["faults"]["rocksdb_loss"] == 1
    assert all(event["in_flight"] > 0 for event in report["events"] if event["kind"] == "kill")


def test_a_plan_is_the_seeds() -> None:
    assert plan(5, 2, 7) == plan(5, 2, 7) != plan(5, 2, 8)
    assert plan(5, 2, 7).count("kill") == 5 and plan(5, 2, 7).count("broker") == 2


STATE_KINDS = {"unreadable", "missing_window", "wrong_window", "wrong_history"}

# -- the witness on a falsified log -----------------------------------------------------------------------------------


def altered(logs: Logs, role: str, records: list[Record]) -> list[str]:
    """The kinds of differences that the witness finds when a topic holds these records instead."""
    return sorted({difference["kind"] for difference in judge({**logs, role: records})["differences"]})


def some(logs: Logs, role: str, chance: random.Random, fits: Callable[[Record], bool] = lambda r: True) -> int:
    """The number of a record of a topic."""
    return chance.choice([n for n, record in enumerate(logs[role]) if record.value is not None and fits(record)])


@pytest.fixture
def chance() -> random.Random:
    return random.Random(1)


def test_a_dropped_record_is_seen(ran: Ran, chance: random.Random) -> None:
    logs = ran[1]
    for role in ("recommendations", "dead-letters"):
        records = list(logs[role])
        records.pop(some(logs, role, chance))
        assert altered(logs, role, records) == ["lost"]


def test_a_doubled_record_is_seen(ran: Ran, chance: random.Random) -> None:
    logs = ran[1]
    for role in ("recommendations", "dead-letters"):
        n = some(logs, role, chance)
        records = [*logs[role][: n + 1], logs[role][n]._replace(offset=10**9), *logs[role][n + 1 :]]
        assert altered(logs, role, records) == ["doubled"]


def test_reordered_records_are_seen(ran: Ran, chance: random.Random) -> None:
    logs = ran[1]
    lists = logs["recommendations"]
    first = some(logs, "recommendations", chance, lambda r: sum(s.key == r.key for s in lists) > 1)
    mine = [n for n, record in enumerate(lists) if record.key == lists[first].key]
    one, other = sorted(chance.sample(mine, 2))
    records = list(lists)
    records[one], records[other] = records[other], records[one]
    assert altered(logs, "recommendations", records) == ["reordered"]


def test_a_truncated_list_is_seen(ran: Ran, chance: random.Random) -> None:
    logs = ran[1]
    n = some(logs, "recommendations", chance)
    records = list(logs["recommendations"])
    value = records[n].value or b""
    records[n] = records[n]._replace(value=value[: chance.randrange(1, len(value))])
    assert altered(logs, "recommendations", records) == ["lost", "unreadable"]


def test_a_list_of_another_play_is_seen(ran: Ran, chance: random.Random) -> None:
    """The bytes of another user's list under this record's key: readable, but not this play's."""
    logs = ran[1]
    n = some(logs, "recommendations", chance)
    records = list(logs["recommendations"])
    other = some(logs, "recommendations", chance, lambda r: r.key != records[n].key)
    records[n] = records[n]._replace(value=records[other].value)
    assert {"lost", "doubled"} <= set(altered(logs, "recommendations", records))


def test_any_flipped_byte_of_a_window_or_history_is_seen(ran: Ran, chance: random.Random) -> None:
    logs = ran[1]
    last = {(r.partition, r.key): n for n, r in enumerate(logs["changelog"])}
    n = chance.choice([n for (_, key), n in last.items() if key != MARK])
    value = logs["changelog"][n].value or b""
    for place in chance.sample(range(len(value)), 12):
        records = list(logs["changelog"])
        flipped = bytearray(value)
        flipped[place] ^= 1 << chance.randrange(8)
        records[n] = records[n]._replace(value=bytes(flipped))
        assert set(altered(logs, "changelog", records)) <= STATE_KINDS
        assert altered(logs, "changelog", records), f"byte {place} of {len(value)}"
