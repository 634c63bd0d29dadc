"""The play step under hypothesis: every record has exactly one answer, and a letter holds it as it came."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams import topics
from streams.partitioner import partition_for
from streams.records import Play, Recommendation
from streams.serialization import decode, encode, encode_json
from tests.property.test_codecs import ids, times
from tests.unit.serving_data import TRACKS, catalogue, made
from tests.unit.test_serving import PARTITIONS, Event, Service

PREFIX = "__streams.errors."
users = st.sampled_from(["alice", "bob", "carol"]) | ids
tracks = st.integers(0, TRACKS - 1).map("t{}".format) | ids
plays = st.builds(Play, users, tracks, times)
headers = st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=2)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[int, bytes | None, bytes | None]:
    """Partition, key and value of a play in which something may be wrong."""
    play = draw(plays)
    key: bytes | None = play.user_id.encode()
    value: bytes | None = draw(st.sampled_from([encode, encode_json]))(play)
    partition = partition_for(play.user_id.encode(), PARTITIONS)
    match draw(st.integers(0, 6)):
        case 0:
            value = draw(st.none() | st.binary(max_size=60))
        case 1:
            assert value is not None
            place = draw(st.integers(0, len(value) - 1))
            value = value[:place] + bytes([draw(st.integers(0, 255))]) + value[place + 1 :]
        case 2:
            assert value is not None
            value = value[: draw(st.integers(0, len(value)))]
        case 3:
            key = draw(st.none() | st.binary(max_size=20))
        case 4:
            partition = draw(st.integers(0, PARTITIONS - 1))
    return partition, key, value


@cache
def service() -> Service:
    """One model for all cases; its windows grow from case to case."""
    found = Service(catalogue())
    found.go_live(made().version)
    return found


@pytest.fixture(scope="module", autouse=True)
def end() -> Iterator[None]:
    """Stop the model's thread after the last case."""
    yield
    service().watch.stop()


def answered(event: Event, outs: list[Any]) -> None:
    """`outs` is the one answer to an event."""
    message = event.message
    (out,) = outs
    if out.topic == topics.RECOMMENDATIONS:
        record = decode(Recommendation, out.value)
        assert out.key == message.key == record.user_id.encode() and out.partition == message.partition
        play = decode(Play, message.value or b"")
        assert (record.user_id, record.source.track_id) == (play.user_id, play.track_id)
        assert partition_for(message.key or b"", PARTITIONS) == message.partition
    else:
        assert (out.key, out.value) == (message.key, message.value)
        assert list(out.headers)[: len(message.headers)] == list(message.headers)
        named = {name: content for name, content in out.headers if name.startswith(PREFIX)}
        assert len(named) == 6 and all(content is not None for content in named.values())
        assert "streams." in (named[f"{PREFIX}exception"] or b"").decode()


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None, max_examples=60)
@given(st.lists(st.tuples(damaged(), headers), min_size=1, max_size=6))
def test_every_record_has_one_answer(batch: list[tuple[tuple[int, bytes | None, bytes | None], Any]]) -> None:
    step = service()
    events = [step.raw(*record, headers=kept) for record, kept in batch]
    results = step.answer(events, {p: -1 for p in range(PARTITIONS)})
    answers: dict[tuple[int, int], list[Any]] = {(e.message.partition, e.message.offset): [] for e in events}
    for partition, result in results.items():
        order = []
        for out in result.outs:
            if out.topic == topics.RECOMMENDATIONS:
                order.append(decode(Recommendation, out.value or b"").source.offset)
            elif out.topic == topics.DEAD_LETTERS:
                order.append(int(dict(out.headers)[f"{PREFIX}offset"] or b""))
            else:
                continue
            answers[partition, order[-1]].append(out)
        assert order == sorted(order), "in the order of the partition"
    for event in events:
        answered(event, answers[event.message.partition, event.message.offset])
