"""Which lists of a replay may be swapped in, and what is remembered of it."""

from __future__ import annotations

import json

from streams.cutover import REPLAYED, Cutover, asked_for, due
from streams.operations import Operations
from streams.outgoing import Out
from streams.windows import Entry, Window, encode_window


def test_only_the_list_for_the_play_that_was_answered_last() -> None:
    replayed = {user: (offset, user.encode()) for user, offset in {"same": 7, "on": 5, "ahead": 9, "new": 3}.items()}
    answered = {"same": 7, "on": 6, "ahead": 8, "other": 1}
    assert due(replayed, answered) == {"same": b"same"}, "no newer list is replaced, none comes before its turn"
    assert due(replayed, answered, {"same"}) == {}, "nobody who is forgotten comes back"


class Lane:
    """What is used of a lane."""

    partition, mark = 0, 7

    def __init__(self) -> None:
        self.outs: list[Out] = []

    def commit(self, outs: list[Out], state: dict[bytes, bytes], mark: int) -> None:
        assert (state, mark) == ({}, 7), "windows and mark stay"
        self.outs = outs


class Windows(dict[bytes, bytes]):
    """What is used of a table's store."""

    def get(self, partition: int, key: bytes) -> bytes | None:  # type: ignore[override]
        return super().get(key)


def window(offset: int) -> bytes:
    return encode_window(Window((Entry(1.0, offset, "t", 0),), ((0, offset),)))


def test_who_plays_on_between_the_look_and_the_swap_keeps_the_newer_list() -> None:
    windows = Windows({user: window(7) for user in (b"stays", b"plays", b"goes", b"erased")})
    replayed = {user: (7, user.encode()) for user in ("stays", "plays", "goes", "erased", "unknown")}
    gone: set[str] = set()
    work = Cutover.prepare("backfill", 0, replayed, windows, gone)  # type: ignore[arg-type]
    windows[b"plays"] = window(8)
    del windows[b"erased"]
    gone.add("goes")
    lane = Lane()
    work(lane)  # type: ignore[arg-type]
    made, done = lane.outs
    assert (made.topic, made.key, made.value, made.partition) == ("recommendations", b"stays", b"stays", 0)
    assert list(made.headers) == [(REPLAYED, b"backfill")]
    assert (done.topic, done.key, done.partition) == ("operations", b"cutover/backfill/0", 0)
    figures = json.loads(done.value or b"")
    assert (figures["swapped"], figures["left"]) == (1, 4)


def test_what_is_remembered() -> None:
    found = Operations()
    for key in (b"cutover/one", b"cutover/two", b"cutover/two/0", b"cutover/two/11", b"forgotten/ab", b"unknown/one"):
        found.fold(key, b"{}")
    assert found.cutovers == {"one": {}, "two": {0: b"{}", 11: b"{}"}}
    assert [key for key in (b"cutover/one", b"cutover/one/3", b"redriven/1@2") if asked_for(key)] == [b"cutover/one"]
