"""Sealed plays: nobody reads them without the key, nothing of them can be changed or moved, no message tells of them.

What may fail, and is tried here: a changed or moved byte that still opens; a play of one listener in the envelope of
another; a nonce that comes twice; wrong keys, names and lengths that end in anything but a DecodeError; a key that
outlives its tombstone, or is lost when the listener gets a second; an error, or a dead letter, that tells what was
played; a worker that waits for keys that it has, or that does not wait for one that is on its way.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from streams.dead_letters import dead_letter
from streams.findings import sealed_plays
from streams.records import Play, SealedPlay
from streams.sealing import Keyring, NotOpened, is_sealed, key_name, open_play, seal, unseal, unwrap, wrap
from streams.serialization import DecodeError, EncodeError, decode, encode, encode_json
from streams.user_keys import FollowedKeys
from tests.property.test_codecs import ids, maybe, numbers, texts, times

MASTER, KEY = bytes(range(32)), bytes(range(100, 132))
PLAY = Play("u1", "secret-track", 1187708111.0, 30.5, "secret-app")
plays = st.builds(Play, ids, ids, times, st.none() | numbers, maybe(texts))
key_ids = st.text("abcXYZ019._-", min_size=1, max_size=64)
keys = st.binary(min_size=32, max_size=32)


class Held:
    """One key, whoever asks; counts how often."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.asked = 0

    def get(self, user_id: str, key_id: str) -> bytes | None:
        """The next answer; the last one stays."""
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@given(plays, key_ids, keys)
def test_round_trip(play: Play, key_id: str, key: bytes) -> None:
    value = encode(seal(play, key_id, key))
    assert is_sealed(value) and open_play(value, keys=Held(key)) == play
    with pytest.raises(DecodeError, match="holds a sealed_play"):
        decode(Play, value)
    with pytest.raises(DecodeError):
        open_play(value, keys=Held(bytes(32) if key != bytes(32) else b"x" * 32))


def test_only_the_listener_is_in_the_clear() -> None:
    value = encode(seal(PLAY, "k", KEY))
    clear = encode(PLAY)
    assert b"u1" in value and b"secret" in clear
    for part in (b"secret", clear[-10:], clear[clear.index(b"secret-track") + 12 :][:8]):  # the time as a double
        assert part in clear and part not in value


@given(st.data())
def test_no_byte_can_be_changed_or_cut(data: st.DataObject) -> None:
    value = encode(seal(PLAY, "k1", KEY))
    place = data.draw(st.integers(0, len(value) - 1))
    changed = value[:place] + bytes([value[place] ^ data.draw(st.integers(1, 255))]) + value[place + 1 :]
    for broken in (changed, value[:place], value + b"\0"):
        with pytest.raises(DecodeError) as caught:
            open_play(broken, keys=Held(KEY))
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"user_id": "u2"}, {"key_id": "k2"}, {"nonce": bytes(12)}, {"ciphertext": bytes(40)}]
)
def test_nothing_can_be_moved_to_another_envelope(change: dict[str, Any]) -> None:
    with pytest.raises(DecodeError, match="changed since"):
        unseal(replace(seal(PLAY, "k1", KEY), **change), KEY)


def sealed_by_hand(inside: bytes, user: str = "u1", key: bytes = KEY) -> SealedPlay:
    nonce = os.urandom(12)
    return SealedPlay(user, "k1", nonce, AESGCM(key).encrypt(nonce, inside, key_name(user, "k1")))


def test_what_is_inside_is_a_play_of_the_same_listener() -> None:
    assert unseal(sealed_by_hand(encode(PLAY)), KEY) == PLAY
    assert unseal(sealed_by_hand(encode_json(PLAY)), KEY) == PLAY, "any encoding that needs no registry"
    with pytest.raises(DecodeError, match="another listener's"):
        unseal(sealed_by_hand(encode(PLAY), "u2"), KEY)
    for inside in (b"", b"secret", encode(PLAY)[:-1], encode(seal(PLAY, "k1", KEY)), b'{"track_id": "secret\x01"}'):
        with pytest.raises(DecodeError, match="no valid play"):
            unseal(sealed_by_hand(inside), KEY)


@pytest.mark.parametrize(
    "inside",
    [
        encode_json(PLAY).replace(b"secret-track", b"secret\\u0001"),
        encode_json(PLAY).replace(b"1187708111.0", b"1187708111000"),
        encode(replace(PLAY, user_id="u2")),
        encode(PLAY) + b"secret",
    ],
)
def test_a_dead_letter_tells_nothing_of_what_is_sealed(inside: bytes) -> None:
    value = encode(sealed_by_hand(inside))
    with pytest.raises(DecodeError) as caught:
        open_play(value, keys=Held(KEY))
    letter = dead_letter(
        topic="plays", partition=0, offset=1, key=b"u1", value=value, headers=None, timestamp_ms=1, error=caught.value
    )
    told = b"".join(content or b"" for _, content in letter.headers)
    assert b"no valid play" in told or b"another listener" in told
    for word in (b"secret", b"1187708111", b"1.18", b"u2"):
        assert word not in told


def test_nonces_do_not_repeat() -> None:
    many = [seal(PLAY, "k1", KEY) for _ in range(500)]
    assert len({one.nonce for one in many}) == len({one.ciphertext for one in many}) == 500
    wrapped = {wrap(MASTER, b"name", KEY)[:12] for _ in range(500)}
    assert len(wrapped) == 500


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key_id": ""}, "key_id ''"),
        ({"key_id": "a/b"}, "key_id 'a/b'"),
        ({"key_id": "x" * 65}, "key_id"),
        ({"nonce": bytes(11)}, "nonce has 11 bytes"),
        ({"ciphertext": bytes(15)}, "ciphertext has 15 bytes"),
        ({"user_id": ""}, "user_id is empty"),
    ],
)
def test_an_envelope_that_is_not_valid(change: dict[str, Any], message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        encode(replace(seal(PLAY, "k1", KEY), **change))


def test_clear_plays_need_no_keys() -> None:
    for value in (encode(PLAY), encode_json(PLAY)):
        asked = Held(KEY)
        assert open_play(value) == open_play(value, keys=asked) == PLAY and asked.asked == 0
    for value in (b"", b"garbage", b"\xc3\x01", b"\x00\x00\x00\x00\x01x"):
        with pytest.raises(DecodeError, match="play: "):
            open_play(value, keys=Held(KEY))


def test_without_a_key_it_says_what_to_do() -> None:
    value = encode(seal(PLAY, "k1", KEY))
    with pytest.raises(NotOpened, match="MSAM_MASTER_KEY_FILE"):
        open_play(value)
    with pytest.raises(NotOpened, match=r"no key k1 of its listener.*msam dlq redrive"):
        open_play(value, keys=Held(None))


@given(keys, keys, st.binary(max_size=20))
def test_a_wrapped_key_is_bound_to_master_key_and_name(master: bytes, key: bytes, name: bytes) -> None:
    value = wrap(master, name, key)
    assert len(value) == 60 and key not in value and unwrap(master, name, value) == key
    other = bytes([master[0] ^ 1]) + master[1:]
    wrong = [(other, name, value), (master, name + b"x", value), (master, name, value[:-1]), (master, name, b"")]
    wrong += [
        (master, name, value[:30] + bytes([value[30] ^ 1]) + value[31:]),
        (master, name, wrap(master, name, key[:16])),
    ]
    for given_ in wrong:
        with pytest.raises(DecodeError, match="cannot be unwrapped"):
            unwrap(*given_)


def test_a_ring_follows_its_topic() -> None:
    ring, other = Keyring(MASTER), Keyring(MASTER)
    assert ring.newest("u1") is None and ring.get("u1", "k1") is None
    first, second = ring.give("u1"), ring.give("u1")
    theirs = ring.give("u2")
    assert first[0] != second[0] and first[0].startswith(key_name("u1", ""))
    for name, value in (first, second, theirs, (b"segment-end", None), (b"\xff/\xfe", b"not a key"), (b"", b"")):
        other.fold(name, value)
    for found in (ring, other):
        newest = found.newest("u1")
        assert newest is not None and key_name("u1", newest[0]) == second[0]
        assert found.get("u1", newest[0]) == newest[1] == unwrap(MASTER, *second)
        assert found.get("u1", first[0].decode().partition("/")[2]) == unwrap(MASTER, *first), "both are known"
        assert found.get("u2", newest[0]) is None
    other.fold(second[0], None)
    newest = other.newest("u1")
    assert newest is not None and key_name("u1", newest[0]) == first[0]
    other.fold(first[0], None)
    other.fold(first[0], None)
    assert other.newest("u1") is None and other.newest("u2") is not None
    with pytest.raises(DecodeError, match="is this the master key"):
        ring_of([theirs], bytes(32)).newest("u2")


def ring_of(records: Iterable[tuple[bytes, bytes | None]], master: bytes = MASTER) -> Keyring:
    made = Keyring(master)
    for name, value in records:
        made.fold(name, value)
    return made


def test_no_printed_form_shows_a_key() -> None:
    ring = ring_of([Keyring(MASTER).give("u1")])
    assert MASTER.hex() not in repr(ring) and repr(MASTER)[2:-1] not in f"{ring!r} {vars(ring).keys()}"


def test_a_worker_waits_only_for_a_key_that_is_missing() -> None:
    waits: list[float] = []

    def catch_up(done: bool) -> Any:
        def wait(patience: float) -> bool:
            waits.append(patience)
            return done

        return wait

    assert FollowedKeys(Held(KEY), catch_up(True)).get("u1", "k1") == KEY and waits == []
    assert FollowedKeys(Held(None, KEY), catch_up(True)).get("u1", "k1") == KEY, "it was on its way"
    assert FollowedKeys(Held(None), catch_up(True)).get("u1", "k1") is None
    late = Held(None)
    assert FollowedKeys(late, catch_up(False)).get("u1", "k1") is None and late.asked == 1
    assert len(waits) == 3 and max(waits) <= 5


def test_what_the_doctor_makes_of_it() -> None:
    assert sealed_plays(0, [], False, False).ok and sealed_plays(3, [], True, True).ok
    for count, any_key in ((3, True), (3, False), (0, True)):
        found = sealed_plays(count, [], any_key, False)
        assert not found.ok and "no master key" in found.text and "MSAM_MASTER_KEY_FILE" in (found.remedy or "")
    broken = sealed_plays(3, ["cannot be unwrapped"], True, True)
    assert not broken.ok and "1 of 3" in broken.text and broken.remedy
