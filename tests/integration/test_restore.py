"""Restores on a real broker: they end, and the store stands at the end, whatever the log's last record is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from streams.lanes import Lane
from streams.local_kafka import LocalKafka
from streams.log_reader import end_offsets
from streams.outgoing import Out
from streams.restore import restore
from streams.stores import ROCKSDB_OPTIONS, TableStore
from streams.topics import TopicSpec, create_topics
from streams.windows import MARK_KEY, encode_mark

Config = dict[str, str]


@dataclass
class Rows:
    """A table in memory that notes every write."""

    rows: dict[tuple[int, bytes], bytes] = field(default_factory=dict)
    positions: dict[int, int] = field(default_factory=dict)
    writes: int = 0

    def get(self, partition: int, key: bytes) -> bytes | None:
        return self.rows.get((partition, key))

    def position(self, partition: int) -> int:
        return self.positions.get(partition, -1)

    def write(self, partition: int, records: list[tuple[bytes, bytes | None]], position: int) -> None:
        assert position >= self.positions.get(partition, -1), "a store never goes back"
        for key, value in records:
            if value is None:
                self.rows.pop((partition, key), None)
            else:
                self.rows[partition, key] = value
        self.positions[partition] = position
        self.writes += 1


@pytest.fixture
def config(kafka: LocalKafka) -> Config:
    return {"bootstrap.servers": kafka.bootstrap, "log_level": "0"}


@pytest.fixture
def changelog(config: Config, unique: str) -> str:
    create_topics(config, [TopicSpec(unique, "user_id", 2, "compact")])
    return unique


def quick(config: Config, topic: str, target: Any, partitions: tuple[int, ...] = (0, 1), **more: Any) -> int:
    """A restore that is done within 20 seconds."""
    deadline = time.monotonic() + 20
    count = restore(config, topic, list(partitions), target, stop=lambda: time.monotonic() > deadline, **more)
    assert time.monotonic() < deadline, "the restore did not find the end"
    return count


def ends(config: Config, topic: str) -> dict[int, int]:
    return {partition: end - 1 for partition, end in end_offsets(config, topic).items()}


def plain(config: Config, topic: str, records: list[tuple[int, bytes, bytes | None]]) -> None:
    producer = Producer({**config, "linger.ms": 0})
    for partition, key, value in records:
        producer.produce(topic, value, key, partition=partition)
    assert producer.flush(20) == 0


def transact(config: Config, name: str, topic: str, records: list[tuple[int, bytes, bytes]], commit: bool) -> None:
    producer = Producer({**config, "transactional.id": name})
    producer.init_transactions(20)
    producer.begin_transaction()
    for partition, key, value in records:
        producer.produce(topic, value, key, partition=partition)
    producer.flush(20)
    before = end_offsets({**config, "isolation.level": "read_uncommitted"}, topic)
    if commit:
        producer.commit_transaction(20)
    else:
        producer.abort_transaction(20)
    touched = {partition for partition, _, _ in records}
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:  # the marker follows the answer by milliseconds
        now = end_offsets({**config, "isolation.level": "read_uncommitted"}, topic)
        if all(now[partition] > before[partition] for partition in touched):
            return
        time.sleep(0.02)
    raise AssertionError("the marker did not come")


def test_an_empty_changelog_ends_at_once(config: Config, changelog: str) -> None:
    rows = Rows()
    assert quick(config, changelog, rows) == 0
    assert rows.rows == {} and set(rows.positions.values()) == {-1}


def test_plain_records_and_tombstones(config: Config, changelog: str) -> None:
    plain(config, changelog, [(0, b"a", b"1"), (0, b"b", b"2"), (1, b"c", b"3"), (0, b"a", None), (0, b"b", b"4")])
    rows = Rows()
    heard: list[int] = []
    assert quick(config, changelog, rows, progress=heard.append) == 5
    assert rows.rows == {(0, b"b"): b"4", (1, b"c"): b"3"} and rows.positions == ends(config, changelog) == {0: 3, 1: 0}
    assert heard == sorted(heard) and heard[-1] == 5


def test_a_commit_marker_at_the_end(config: Config, changelog: str) -> None:
    transact(config, changelog, changelog, [(0, b"a", b"1"), (1, b"b", b"2"), (1, b"c", b"3")], commit=True)
    rows = Rows()
    assert quick(config, changelog, rows) == 3
    assert rows.rows == {(0, b"a"): b"1", (1, b"b"): b"2", (1, b"c"): b"3"}
    assert rows.positions == ends(config, changelog) == {0: 1, 1: 2}, "the marker is counted"


def test_aborted_transactions_at_the_end(config: Config, changelog: str) -> None:
    plain(config, changelog, [(0, b"a", b"1"), (1, b"a", b"1")])
    for number in range(3):
        transact(config, changelog, changelog, [(0, b"a", b"void"), (0, b"x", b"%d" % number)], commit=False)
    rows = Rows()
    assert quick(config, changelog, rows) == 2
    assert rows.rows == {(0, b"a"): b"1", (1, b"a"): b"1"}
    assert rows.positions == ends(config, changelog) == {0: 9, 1: 0}


def test_nothing_but_an_aborted_transaction(config: Config, changelog: str) -> None:
    transact(config, changelog, changelog, [(0, b"a", b"void")], commit=False)
    rows = Rows()
    assert quick(config, changelog, rows) == 0
    assert rows.rows == {} and rows.positions == ends(config, changelog) == {0: 1, 1: -1}


def test_a_restore_goes_on_from_the_position(config: Config, changelog: str) -> None:
    transact(config, changelog, changelog, [(0, b"a", b"1"), (0, b"b", b"2"), (1, b"c", b"3")], commit=True)
    rows = Rows()
    quick(config, changelog, rows)
    assert quick(config, changelog, rows) == 0, "nothing is applied twice"
    transact(config, changelog, changelog, [(0, b"b", b"5")], commit=True)
    rows.rows.pop((0, b"a"))  # to see that what lies before the position is not read again
    assert quick(config, changelog, rows) == 1
    assert rows.rows == {(0, b"b"): b"5", (1, b"c"): b"3"} and rows.positions == ends(config, changelog)


def test_a_position_beyond_the_end_is_read_from_the_start(config: Config, changelog: str) -> None:
    """The topic was made anew since: its offsets mean something else now."""
    plain(config, changelog, [(0, b"a", b"1")])

    class Ahead(Rows):
        def position(self, partition: int) -> int:
            return 1000

    assert quick(config, changelog, Ahead()) == 1


def test_only_the_asked_partitions(config: Config, changelog: str) -> None:
    plain(config, changelog, [(0, b"a", b"1"), (1, b"b", b"2")])
    rows = Rows()
    assert quick(config, changelog, rows, (1,)) == 1 and rows.rows == {(1, b"b"): b"2"}


def test_small_batches_give_the_same_table(config: Config, changelog: str) -> None:
    plain(config, changelog, [(n % 2, b"k%d" % (n % 7), b"%d" % n) for n in range(24)])
    one, two = Rows(), Rows()
    assert quick(config, changelog, one) == quick(config, changelog, two, batch=5) == 24
    assert one.rows == two.rows and one.positions == two.positions and two.writes > one.writes


def test_a_restore_can_be_stopped(config: Config, changelog: str) -> None:
    """An open transaction holds the end back; a worker that is told to stop must not wait for it."""
    producer = Producer({**config, "transactional.id": changelog})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(changelog, b"1", b"a", partition=0)
    producer.flush(20)
    stopped = threading.Event()
    threading.Timer(0.5, stopped.set).start()
    rows = Rows()
    assert restore(config, changelog, [0, 1], rows, stop=stopped.is_set) == 0
    assert stopped.is_set() and rows.rows == {}
    producer.abort_transaction(20)
    assert quick(config, changelog, rows) == 0 and rows.positions[0] == ends(config, changelog)[0] == 1


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Callable[[str], TableStore]]:
    """Makes the RocksDB store that a worker's table has, anew each time, over the same files."""
    import faust

    opened: list[Any] = []

    def close() -> None:
        """Release the files, as the end of a worker's process does."""
        while opened:
            store = opened.pop()
            for database in store._dbs.values():
                database.close()
            store._dbs.clear()

    def make(topic: str) -> TableStore:
        close()
        app = faust.App("restore", store="rocksdb://", datadir=str(tmp_path), web_enabled=False, topic_partitions=2)
        table = app.Table("windows", key_type=bytes, value_type=bytes, partitions=2, options=dict(ROCKSDB_OPTIONS))
        store: Any = table.data
        opened.append(store)
        store.path.mkdir(parents=True, exist_ok=True)
        return TableStore(table, topic)

    yield make
    close()


def test_a_real_store_survives_and_goes_on(config: Config, changelog: str, tables: Callable[[str], TableStore]) -> None:
    """RocksDB as the worker uses it: written by a lane, lost, restored, opened again."""
    store = tables(changelog)
    assert store.position(0) == -1
    lane = Lane(config, changelog, 0, store, changelog)
    lane.fence()
    lists = f"{changelog}-lists"
    create_topics(config, [TopicSpec(lists, "user_id", 1, "delete")])
    lane.commit([Out(lists, b"u", b"list", 0)], {b"u": b"window"}, 11)
    assert store.get(0, b"u") == b"window" and store.position(0) == 1, "the mark's own offset"
    assert quick(config, changelog, store, (0,)) == 0 and store.position(0) == ends(config, changelog)[0] == 2
    again = tables(changelog)
    assert again.get(0, b"u") == b"window" and again.position(0) == 2, "kept on disk"
    transact(config, f"{changelog}-x", changelog, [(0, b"u", b"newer"), (1, b"v", b"other")], commit=True)
    plain(config, changelog, [(1, b"v", None)])
    assert quick(config, changelog, again) == 3
    assert again.get(0, b"u") == b"newer" and again.get(1, b"v") is None
    assert {p: again.position(p) for p in (0, 1)} == ends(config, changelog)
    successor = Lane(config, changelog, 0, again, changelog)
    successor.load()
    assert successor.mark == 11 and again.get(0, MARK_KEY) == encode_mark(11)


def test_writes_are_seen_whole(tables: Callable[[str], TableStore]) -> None:
    store = tables("t")
    store.write(0, [(b"a", b"1"), (b"b", b"2")], 5)
    store.write(0, [(b"a", None), (b"c", b"3")], 6)
    assert [store.get(0, key) for key in (b"a", b"b", b"c")] == [None, b"2", b"3"]
    assert store.position(0) == 6 and store.position(1) == -1 and store.get(1, b"b") is None
