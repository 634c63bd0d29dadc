"""A replay's plan: it survives being kept in pieces, and says what it will not do."""

import json

import pytest

from streams.commands.replay import bound
from streams.errors import ConfigError, MsamError
from streams.records import Recommendation, Source
from streams.replay import _Pace
from streams.replay_plan import Asked, ReplayPlan, check_target, digest
from streams.versions import Versions

PINNED = ReplayPlan(
    Asked("0", None, "v1", 7, digest(["a", "b"])),
    {0: (3, 90), 1: (0, 0), 2: (5, 6)},
    "v1",
    7,
    {0: 4, 1: 0, 2: 9},
    {0: 0, 1: 0, 2: 0},
    20,
    16,
    20,
    1000,
)
RECORDED = ReplayPlan(
    Asked("0", "9.5", None, None, None), {0: (0, 1), 1: (2, 3)}, None, None, {0: 1, 1: 1}, {0: 8, 1: 9}, 5, 2, 3, 100
)


@pytest.mark.parametrize("plan", [PINNED, RECORDED])
def test_a_plan_is_the_sum_of_its_shares(plan: ReplayPlan) -> None:
    assert ReplayPlan.joined({p: plan.part(p) for p in plan.offsets}) == plan
    assert all(len(plan.part(p)) < 4096 for p in plan.offsets), "Kafka takes 4 KiB of metadata an offset"


def test_what_a_plan_says() -> None:
    assert PINNED.records == 88 and not PINNED.as_recorded and RECORDED.as_recorded
    assert json.loads(PINNED.part(2))["offsets"] == [5, 6]


def test_the_users_digest_does_not_depend_on_order() -> None:
    assert digest(["a", "b"]) == digest({"b", "a"}) != digest(["ab"])


@pytest.mark.parametrize("topic", ["plays", "recommendations", "other-windows-changelog", "g-windows-changelog"])
def test_a_live_topic_is_refused(topic: str) -> None:
    with pytest.raises(MsamError, match="never writes to a live topic"):
        check_target(topic, "g")
    check_target("backfill", "g")


@pytest.mark.parametrize("text", ["offset:", "offset:x", "offset:-1", "offset:0=1,2", "offset:0=a"])
def test_offsets_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="write offset:120"):
        bound(text)


def test_bounds() -> None:
    assert bound("1970-01-01T00:01:00") == 60.0 and bound("12.5") == 12.5
    assert bound("offset:7") == 7 and bound("offset:3=1,0=2") == {3: 1, 0: 2}


def test_versions_go_into_a_record_and_come_out() -> None:
    source = Source("plays", 1, 2, 3.0, "t")
    versions = Versions("m", 4, 5, 6)
    record = versions.record("u", (), source)
    assert record == Recommendation("u", (), "m", 4, 5, 6, source) and Versions.of(record) == versions


def test_transactions_are_no_larger_than_a_seconds_lists() -> None:
    assert [_Pace(rate).size for rate in (None, 0.5, 10.0, 1e6)] == [256, 1, 10, 256]
