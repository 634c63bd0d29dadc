"""Dead letters keep the record as it came and say what was wrong (KIP-1034)."""

from streams.dead_letters import PREFIX, TEXT_LIMIT, DeadLetter, Headers, dead_letter, error_headers
from streams.serialization import DecodeError


def raised(error: Exception) -> Exception:
    """The error with a traceback."""
    try:
        raise error
    except Exception as caught:
        return caught


def letter(error: Exception, headers: Headers = None, timestamp_ms: int | None = 1000) -> DeadLetter:
    """A letter for plays[3]@41."""
    return dead_letter(
        topic="plays",
        partition=3,
        offset=41,
        key=b"u1",
        value=b"\xff",
        headers=headers,
        timestamp_ms=timestamp_ms,
        error=error,
    )


def test_original_is_kept_and_the_six_headers_follow() -> None:
    made = letter(raised(DecodeError("bad bytes")), [("trace-id", b"7"), ("empty", None)])
    assert (made.topic, made.key, made.value, made.timestamp_ms) == ("dead-letters", b"u1", b"\xff", 1000)
    assert made.headers[:2] == (("trace-id", b"7"), ("empty", None))
    named = dict(made.headers[2:])
    stack = named.pop("__streams.errors.stacktrace")
    assert named == {
        "__streams.errors.exception": b"streams.serialization.DecodeError",
        "__streams.errors.message": b"bad bytes",
        "__streams.errors.topic": b"plays",
        "__streams.errors.partition": b"3",
        "__streams.errors.offset": b"41",
    }
    assert stack is not None and stack.startswith(b"Traceback") and stack.endswith(b"DecodeError: bad bytes\n")


def test_a_second_failure_replaces_the_first() -> None:
    first = letter(DecodeError("first"))
    second = letter(DecodeError("second"), first.headers)
    names = [name for name, _ in second.headers]
    assert len(names) == len(set(names)) == 6
    assert dict(second.headers)[f"{PREFIX}message"] == b"second"


def test_headers_as_mapping_none_and_stage() -> None:
    assert letter(ValueError("x"), {"a": b"1"}).headers[0] == ("a", b"1")
    assert len(letter(ValueError("x"), None).headers) == 6
    named = dict(error_headers(ValueError("x"), topic="plays", partition=0, offset=0, stage="decode"))
    assert named["__streams.errors.stage"] == b"decode"


def test_texts_are_bounded_and_whole_characters() -> None:
    named = dict(letter(raised(DecodeError("é" * TEXT_LIMIT))).headers)
    for name in ("message", "stacktrace"):
        text = named[PREFIX + name]
        assert text is not None and TEXT_LIMIT - 2 <= len(text) <= TEXT_LIMIT
        text.decode()


def test_text_that_is_not_unicode() -> None:
    assert dict(letter(ValueError("\ud800")).headers)[f"{PREFIX}message"] == b"\\ud800"


def test_a_record_without_a_time() -> None:
    assert letter(ValueError("x"), timestamp_ms=-1).timestamp_ms is None
