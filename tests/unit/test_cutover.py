"""Which lists of a replay may be swapped in, and what is remembered of it."""

from __future__ import annotations

from streams.cutover import asked_for, due
from streams.operations import Operations


def test_only_the_list_for_the_play_that_was_answered_last() -> None:
    replayed = {user: (offset, user.encode()) for user, offset in {"same": 7, "on": 5, "ahead": 9, "new": 3}.items()}
    answered = {"same": 7, "on": 6, "ahead": 8, "other": 1}
    assert due(replayed, answered) == {"same": b"same"}, "no newer list is replaced, none comes before its turn"
    assert due(replayed, answered, {"same"}) == {}, "nobody who is forgotten comes back"


def test_what_is_remembered() -> None:
    found = Operations()
    for key in (b"cutover/one", b"cutover/two", b"cutover/two/0", b"cutover/two/11", b"forgotten/ab", b"unknown/one"):
        found.fold(key, b"{}")
    assert found.cutovers == {"one": {}, "two": {0: b"{}", 11: b"{}"}}
    assert [key for key in (b"cutover/one", b"cutover/one/3", b"redriven/1@2") if asked_for(key)] == [b"cutover/one"]
