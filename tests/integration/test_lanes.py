"""Lanes on a real broker: outputs, changelog and mark are one transaction, and a replaced owner is shut out."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from streams.lanes import Lane, LaneFenced
from streams.local_kafka import LocalKafka
from streams.log_reader import key_of, read_to_end
from streams.outgoing import Out
from streams.stores import TableStore
from streams.topics import TopicSpec, create_topics
from streams.windows import MARK_KEY, decode_mark, encode_mark

PARTITIONS = 3


@dataclass
class Rows:
    """A table in memory, with its position in the changelog."""

    rows: dict[tuple[int, bytes], bytes | None] = field(default_factory=dict)
    positions: dict[int, int] = field(default_factory=dict)

    def get(self, partition: int, key: bytes) -> bytes | None:
        return self.rows.get((partition, key))

    def write(self, partition: int, records: list[tuple[bytes, bytes | None]], position: int) -> None:
        self.rows.update({(partition, key): value for key, value in records})
        self.positions[partition] = position


@dataclass
class Place:
    """A broker with two topics of a test's own."""

    config: dict[str, str]
    group: str
    lists: str
    changelog: str

    def lane(self, partition: int = 0, rows: Rows | None = None) -> Lane:
        made = Lane(self.config, self.group, partition, cast(TableStore, rows or Rows()), self.changelog)
        made.fence()
        return made

    def read(self, topic: str, count: int = 0) -> list[Message]:
        """What a read_committed reader sees; waits for `count` records (markers follow the commit by milliseconds)."""
        deadline = time.monotonic() + 10
        while len(found := list(read_to_end(self.config, topic))) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def values(self, topic: str, count: int = 0) -> list[bytes | None]:
        return [message.value() for message in self.read(topic, count)]

    def raw(self, topic: str, partition: int = 0) -> list[bytes | None]:
        """Everything in a partition, aborted records too."""
        reader = Consumer(
            {
                **self.config,
                "group.id": f"{self.group}-raw",
                "isolation.level": "read_uncommitted",
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
            }
        )
        try:
            reader.assign([TopicPartition(topic, partition, 0)])
            found: list[bytes | None] = []
            while (message := reader.poll(20)) is not None and message.error() is None:
                found.append(message.value())
            assert message is not None, "the end was reached"
            return found
        finally:
            reader.close()


@pytest.fixture
def place(kafka: LocalKafka, unique: str) -> Iterator[Place]:
    config = {"bootstrap.servers": kafka.bootstrap, "log_level": "0"}
    made = Place(config, unique, f"{unique}-lists", f"{unique}-windows")
    specs = [
        TopicSpec(made.lists, "user_id", PARTITIONS, "delete"),
        TopicSpec(made.changelog, "user_id", PARTITIONS, "compact"),
    ]
    create_topics(config, specs)
    yield made


def out(place: Place, value: bytes, partition: int | None = 0) -> Out:
    return Out(place.lists, b"alice", value, partition, [("h", b"1")], 1_700_000_000_123)


def test_outputs_changelog_and_mark_appear_at_once(place: Place) -> None:
    rows = Rows()
    lane = place.lane(2, rows)
    assert place.values(place.lists) == place.values(place.changelog) == []
    lane.commit([out(place, b"one", 2), out(place, b"two", 1)], {b"alice": b"window"}, 7)
    lists = place.read(place.lists, 2)
    assert sorted((m.partition(), m.value()) for m in lists) == [(1, b"two"), (2, b"one")]
    assert {m.headers()[0] for m in lists if isinstance(m.headers(), list)} == {("h", b"1")}  # type: ignore[index]
    assert {m.timestamp()[1] for m in lists} == {1_700_000_000_123} and {key_of(m) for m in lists} == {b"alice"}
    kept = place.read(place.changelog, 2)
    assert [(m.partition(), key_of(m), m.value()) for m in kept] == [
        (2, b"alice", b"window"),
        (2, MARK_KEY, encode_mark(7)),
    ]
    assert lane.mark == 7 and rows.rows == {(2, b"alice"): b"window", (2, MARK_KEY): encode_mark(7)}
    assert rows.positions == {2: kept[-1].offset()}, "the store stands at the mark's place in the changelog"


def test_commits_follow_one_another(place: Place) -> None:
    rows = Rows()
    lane = place.lane(0, rows)
    for number in range(5):
        lane.commit([out(place, b"%d" % number)], {b"u%d" % (number % 2): b"%d" % number}, number * 10)
    assert place.values(place.lists, 5) == [b"%d" % number for number in range(5)]
    marks = [m for m in place.read(place.changelog, 10) if key_of(m) == MARK_KEY]
    assert [decode_mark(m.value()) for m in marks] == [0, 10, 20, 30, 40]
    assert rows.rows[0, b"u0"] == b"4" and rows.rows[0, b"u1"] == b"3" and rows.positions[0] == marks[-1].offset()
    fresh = Lane(place.config, place.group, 0, cast(TableStore, rows), place.changelog)
    assert fresh.mark == -1
    fresh.load()
    assert fresh.mark == 40


def test_a_batch_without_outputs_still_moves_the_mark(place: Place) -> None:
    lane = place.lane()
    lane.commit([], {}, 3)
    assert place.values(place.changelog, 1) == [encode_mark(3)] and place.values(place.lists) == []


def test_an_open_transaction_is_invisible(place: Place) -> None:
    lane = place.lane()
    lane._producer.begin_transaction()
    lane._producer.produce(place.lists, b"half", b"alice", partition=0)
    lane._producer.flush(20)
    assert place.raw(place.lists) == [b"half"], "it is in the log"
    assert place.values(place.lists) == [], "but not to be seen"
    place.lane()
    assert place.values(place.lists) == [] and place.raw(place.lists) == [b"half"], "the new owner aborted it"


def test_a_second_owner_shuts_the_first_one_out(place: Place) -> None:
    rows = Rows()
    first = place.lane(1, rows)
    first.commit([out(place, b"first")], {b"alice": b"1"}, 1)
    before = dict(rows.rows)
    second = place.lane(1)
    with pytest.raises(LaneFenced, match="partition 1"):
        first.commit([out(place, b"void")], {b"alice": b"void"}, 2)
    assert first.mark == 1 and rows.rows == before, "nothing of it was stored"
    with pytest.raises(LaneFenced):
        first.commit([out(place, b"void again")], {}, 2)
    second.commit([out(place, b"second")], {b"alice": b"2"}, 2)
    assert place.values(place.lists, 2) == [b"first", b"second"]
    assert [m.value() for m in place.read(place.changelog, 4) if key_of(m) == b"alice"] == [b"1", b"2"]


def test_other_partitions_and_groups_are_not_shut_out(place: Place) -> None:
    mine, neighbour = place.lane(0), place.lane(1)
    other = Lane(place.config, f"{place.group}-other", 0, cast(TableStore, Rows()), place.changelog)
    other.fence()
    for number, lane in enumerate((mine, neighbour, other)):
        lane.commit([out(place, b"%d" % number)], {}, 0)
    assert sorted(str(v) for v in place.values(place.lists, 3)) == ["b'0'", "b'1'", "b'2'"]


def test_a_fenced_lane_in_the_middle_of_its_transaction(place: Place) -> None:
    """The new owner comes between the old one's records and its commit: they are never seen."""
    first = place.lane()
    produce = first._producer.flush

    def taken_over(timeout: float) -> int:
        left = produce(timeout)
        place.lane().commit([out(place, b"new")], {}, 5)
        return left

    class Between:
        """The producer of the first lane, which is held up after its records were sent."""

        def __getattr__(self, name: str) -> object:
            return taken_over if name == "flush" else getattr(producer, name)

    producer = first._producer
    first._producer = Between()  # type: ignore[assignment]
    with pytest.raises(LaneFenced):
        first.commit([out(place, b"old")], {b"alice": b"old"}, 5)
    assert place.values(place.lists, 1) == [b"new"] and b"old" in place.raw(place.lists)
    assert [key_of(m) for m in place.read(place.changelog, 1)] == [MARK_KEY]


LARGE = """
import sys
from streams.lanes import Lane
from streams.outgoing import Out
from tests.integration.test_lanes import Rows
bootstrap, group, lists, changelog, size = sys.argv[1:]
rows = Rows()
lane = Lane({"bootstrap.servers": bootstrap}, group, 0, rows, changelog)
lane.fence()
outs = [Out(lists, b"a", b"small", 0), Out(lists, b"a", bytes(int(size)), 0)]
try:
    lane.commit(outs, {b"a": b"w"}, 1)
    print("committed", lane.mark)
except Exception as error:
    print("raised", type(error).__name__, rows.rows)
"""


def commit_large(place: Place, size: int, topic: str) -> str:
    """What a lane of its own process does with a small and a large record; "hangs" when it is not done in 8 s."""
    arguments = [place.config["bootstrap.servers"], place.group, topic, place.changelog, str(size)]
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(
            [sys.executable, "-c", LARGE, *arguments], cwd=root, capture_output=True, text=True, timeout=8
        )
    except subprocess.TimeoutExpired:
        return "hangs"
    return done.stdout.strip()


def test_a_record_that_the_broker_refuses_is_an_error(place: Place) -> None:
    small = f"{place.lists}-small"
    create_topics(place.config, [TopicSpec(small, "k", 1, "delete", {"max.message.bytes": "2000"})])
    noise = 500_000  # within the client's limit; zeros shrink to less than the topic's when compressed
    assert commit_large(place, noise, place.lists) == "committed 1"
    assert commit_large(place, 5_000_000, small).startswith("raised")
    assert place.values(small) == []


def test_the_largest_dead_letter_fits(place: Place) -> None:
    """A dead letter is a play of up to the topic's 1 MiB with its error headers: it must not stop the lane."""
    letters = f"{place.lists}-letters"
    create_topics(place.config, [TopicSpec(letters, "k", 1, "delete", {"max.message.bytes": str(12 * 2**20)})])
    assert commit_large(place, 2**20 + 20_000, letters) == "committed 1"
    assert [len(value or b"") for value in place.values(letters, 2)] == [5, 2**20 + 20_000]
