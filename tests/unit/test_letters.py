"""Dead letters read back, judged and shown."""

from __future__ import annotations

import pytest

from streams import topics
from streams.dead_letters import SIZE, WHOLE_BYTES, dead_letter
from streams.errors import ConfigError
from streams.letters import Letter, place_of, wanted
from streams.operations import Forgotten, Operations, digest, forgotten, redriven
from streams.records import Play
from streams.redrive import Verdict, verdict
from streams.sealing import Keyring, seal
from streams.serialization import encode
from streams.show import letter_details, letter_line, letter_object, letter_verdict, preview, printable

GOOD = encode(Play("u1", "t1", 1000.0))


def letter(
    topic: str | None = topics.PLAYS,
    place: tuple[int, int] | None = (2, 7),
    key: bytes | None = b"u1",
    value: bytes | None = GOOD,
    reason: str = "truncated: bad",
    whole: bool = True,
) -> Letter:
    partition, offset = place or (None, None)
    size = len(value or b"") if whole else 99_999
    headers = (("trace", b"\x00\xff"), ("empty", None))
    return Letter(3, 41, topic, partition, offset, "streams.DecodeError", reason, key, value, headers, size, whole, 0.0)


def test_verdicts() -> None:
    nothing, new = Operations(), Operations()
    for out in (redriven(3, 41), forgotten("gone")):
        new.fold(out.key or b"", out.value or b"")
    assert verdict(letter(), nothing, {}, False) is Verdict.send
    assert verdict(letter(), new, {}, False) is Verdict.before
    assert verdict(letter(), new, {}, True) is Verdict.send
    assert verdict(letter(key=b"gone"), new, {}, True) is Verdict.forgotten
    for stranger in (letter("elsewhere"), letter(None), letter(place=None), letter(topics.RECOMMENDATIONS)):
        assert verdict(stranger, nothing, {}, True) is Verdict.unknown
    profile = letter(topics.USER_PROFILES)
    place = (topics.USER_PROFILES, 2, b"u1")
    assert verdict(profile, nothing, {place: 7}, False) is Verdict.send, "it is the newest itself"
    assert verdict(profile, nothing, {place: 8}, False) is Verdict.superseded


def test_what_is_remembered() -> None:
    found = Operations()
    for key in (b"redriven/1@2", b"redriven/x@2", b"redriven/12", b"forgotten/" + digest("u").encode(), b"later/kind"):
        found.fold(key, b"{}")
    assert found.redriven == {(1, 2)} and "u" in found.forgotten and "v" not in found.forgotten
    assert not found.forgotten.fold(b"forgotten/" + digest("u").encode()), "not new"
    assert len(found.forgotten) == 1 and "u" not in Forgotten()
    out = forgotten("somebody")
    assert b"somebody" not in (out.key or b"") + (out.value or b"") and out.partition == 0


def test_what_is_asked_for() -> None:
    assert wanted(None, None, frozenset())(letter())
    assert wanted(topics.PLAYS, "TRUNCATED", frozenset({(3, 41)}))(letter())
    assert wanted(None, "decodeerror", frozenset())(letter()), "the kind of error too"
    assert not wanted(topics.TRACK_METADATA, None, frozenset())(letter())
    assert not wanted(None, "another", frozenset())(letter())
    assert not wanted(None, None, frozenset({(3, 40)}))(letter())


@pytest.mark.parametrize("name", ["", "3", "3@", "@3", "plays[3]@41", "3@-1", "3@1 ", "9" * 30 + "@1"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ConfigError, match="msam dlq list"):
        place_of(name)


def test_nothing_that_is_shown_moves_the_cursor() -> None:
    nasty = "\x1b[2J\r\nfake line\u202e\x07"
    shown = letter(key=nasty.encode(), value=nasty.encode() * 40, reason=nasty)
    for line in letter_details(shown, False, nasty).splitlines():
        assert line.isprintable(), line
    assert letter_line(shown, False).isprintable() and printable(nasty).isprintable()
    assert "bytes more" in preview(bytes(300)) and "bytes more" not in preview(bytes(256)) and preview(b"") == ""
    assert preview(b"A\x00z").split() == ["00000000", "41", "00", "7a", "|A.z|"]


def test_whether_it_can_be_read_now() -> None:
    assert letter_verdict(letter(), None) == "its bytes can be read"
    assert letter_verdict(letter(value=GOOD[:-2]), None).startswith("still wrong: play: truncated")
    assert letter_verdict(letter(value=None), None) == "a tombstone"
    ring = Keyring(bytes(32))
    ring.give("u1")
    closed = letter(value=encode(seal(Play("u1", "t1", 5.0), *(ring.newest("u1") or ("", b"")))))
    assert "MSAM_MASTER_KEY_FILE" in letter_verdict(closed, None)
    assert letter_verdict(closed, None, Keyring(bytes(32))).startswith("still wrong: a sealed play")
    assert letter_verdict(closed, None, ring) == "its bytes can be read"
    assert letter_verdict(letter("elsewhere"), None) == "its source is none of our topics"
    assert letter_verdict(letter(whole=False), None) == "too large for its letter"


def test_json_forms() -> None:
    brief, whole = letter_object(letter(), True), letter_object(letter(), False, whole=True)
    assert (brief["letter"], brief["redriven"], brief["bytes"]) == ("3@41", True, len(GOOD))
    assert "value" not in brief and "headers" not in brief
    assert whole["headers"] == [{"name": "trace", "value": "\x00\\xff"}, {"name": "empty", "value": None}]
    assert whole["value"] and whole["preview"].startswith("00000000  c3 01")


@pytest.mark.parametrize("key", [b"u1", b"k" * (WHOLE_BYTES + 1)])
def test_a_letter_holds_at_most_so_much(key: bytes) -> None:
    """More than any topic takes: what a compressed batch can unfold to."""
    value = bytes(WHOLE_BYTES + 1)
    made = dead_letter(
        topic="plays", partition=0, offset=1, key=key, value=value, headers=[("a", b"1"), (SIZE, b"a lie")],
        timestamp_ms=1, error=ValueError("x"),
    )  # fmt: skip
    named = [(name, content) for name, content in made.headers if not name.startswith("__streams.errors.")]
    assert [content for name, content in named if name == SIZE] == [b"%d" % len(value)]
    assert made.value is not None and value.startswith(made.value) and key.startswith(made.key or b"")
    size = len(made.key or b"") + len(made.value) + sum(len(n) + len(c or b"") for n, c in named)
    assert WHOLE_BYTES // 2 <= size <= WHOLE_BYTES + 64


def test_a_record_that_fits_is_kept_whole() -> None:
    value = bytes(WHOLE_BYTES - 2)
    made = dead_letter(
        topic="plays", partition=0, offset=1, key=b"u1", value=value, headers=None, timestamp_ms=1, error=ValueError()
    )  # fmt: skip
    assert (made.key, made.value) == (b"u1", value) and SIZE not in dict(made.headers)
