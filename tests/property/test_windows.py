"""A window is the newest plays by (played_at, offset), whatever the order of arrival and however often they come."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import schemas
from streams.windows import (
    MARK_KEY,
    Entry,
    Window,
    decode_mark,
    decode_window,
    encode_mark,
    encode_window,
)

# Few distinct times, so that ties and late plays are common.
times = st.sampled_from([0.0, 1.0, 2.0, 3.0, 1.5e9, 1.5e9 + 0.5])
calm = settings(deadline=None, derandomize=True)  # a busy machine is no failure, and two runs see the same examples
tracks = st.sampled_from(["a", "b", "c", "ü", "d/e"])


@st.composite
def logs(draw: st.DrawFn, partitions: int = 1, most: int = 40) -> list[Entry]:
    """Plays of one user in the order of their log: offsets grow within a partition, times are in any order."""
    found, ends = [], dict.fromkeys(range(partitions), -1)
    for _ in range(draw(st.integers(0, most))):
        partition = draw(st.integers(0, partitions - 1))
        ends[partition] += draw(st.integers(1, 3))
        found.append(Entry(draw(times), ends[partition], draw(tracks), partition))
    return found


def plain(entries: list[Entry], keep: int) -> tuple[Entry, ...]:
    """The newest `keep` of the plays by a plain sort."""
    return tuple(sorted(entries, key=lambda e: (e.played_at, e.offset, e.track_id, e.partition))[-keep:])


@calm
@given(log=logs(partitions=2), keep=st.integers(1, 12), data=st.data())
def test_redeliveries_change_nothing_and_the_window_is_the_plain_sort(
    log: list[Entry], keep: int, data: st.DataObject
) -> None:
    """A consumer that goes back to any earlier offset, any number of times, ends where one pass does."""
    window, at = Window(), 0
    while at < len(log):
        window = window.apply(log[at], keep)
        assert window.entries == plain(log[: at + 1], keep)
        at += 1
        if data.draw(st.integers(0, 4)) == 0:
            back = data.draw(st.integers(0, at))
            before = window
            for entry in log[back:at]:
                window = window.apply(entry, keep)
            assert window is before
    for partition in (0, 1):
        assert window.last_offset(partition) == max((e.offset for e in log if e.partition == partition), default=-1)


@calm
@given(log=logs(), k=st.integers(1, 6), slack=st.integers(0, 6))
def test_as_of_is_the_window_right_after_that_offset(log: list[Entry], k: int, slack: int) -> None:
    """Exact for every offset with at most `slack` plays beyond it, at every moment of the log."""
    window = Window()
    for end, entry in enumerate(log, 1):
        window = window.apply(entry, k + slack)
        for place in range(max(end - 1 - slack, 0), end):
            assert window.as_of(0, log[place].offset, k) == plain(log[: place + 1], k)


def test_as_of_needs_the_slack() -> None:
    """With more than `slack` late-in-log, newer-in-time plays beyond an offset its window is no longer whole."""
    log = [Entry(float(n), n, f"t{n}", 0) for n in range(8)]
    window = Window()
    for entry in log:
        window = window.apply(entry, 2 + 3)
    assert [e.track_id for e in window.as_of(0, 4, 2)] == ["t3", "t4"]
    assert [e.track_id for e in window.as_of(0, 3, 2)] == ["t3"], "one play too many beyond it"


def test_as_of_leaves_other_partitions_alone() -> None:
    window = Window().apply(Entry(1.0, 9, "a", 1), 5).apply(Entry(2.0, 0, "b", 0), 5).apply(Entry(3.0, 1, "c", 0), 5)
    assert [e.track_id for e in window.as_of(0, 0, 5)] == ["a", "b"]
    assert [e.track_id for e in window.as_of(1, 8, 5)] == ["b", "c"]


@calm
@given(log=logs(), keep=st.integers(1, 5))
def test_a_play_too_late_for_the_window_leaves_only_its_offset(log: list[Entry], keep: int) -> None:
    window = Window()
    for number in range(keep):
        window = window.apply(Entry(2e9 + number, number, "new", 0), keep)
    full = window.entries
    for entry in log:
        late = Entry(entry.played_at, entry.offset + keep, entry.track_id, 0)
        window = window.apply(late, keep)
        assert window.entries == full and window.last_offset(0) == late.offset
    assert window.last_offset(1) == -1


@calm
@given(log=logs(partitions=3), keep=st.integers(1, 12))
def test_bytes_and_back(log: list[Entry], keep: int) -> None:
    window = Window()
    for entry in log:
        window = window.apply(entry, keep)
    assert decode_window(encode_window(window)) == window


@calm
@given(st.integers(0, 2**63 - 1))
def test_a_mark_and_back(offset: int) -> None:
    assert decode_mark(encode_mark(offset)) == offset


def test_no_mark_is_before_the_first_offset() -> None:
    assert decode_mark(None) == -1


def test_the_key_of_the_mark_can_be_no_user() -> None:
    from streams.records import Play, RecordError
    from streams.serialization import encode

    with pytest.raises(RecordError):
        encode(Play(MARK_KEY.decode(), "t", 1.0))


@calm
@given(st.binary(max_size=80))
def test_other_bytes_are_not_windows(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a window record"):
        decode_window(data)


@pytest.mark.parametrize("name", ["play", "recommendation"])
def test_records_of_other_schemas_are_not_windows(name: str) -> None:
    with pytest.raises(ValueError, match="not a window record"):
        decode_window(b"\xc3\x01" + schemas.fingerprint(name) + b"\x00" * 20)
