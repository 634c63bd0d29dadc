"""Rows of the profiles table: words are read as they were made, and made anew only where they must be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msam.features.text import TextEncoder, may_be
from streams.profiles import NOBODY, Profile, Profiles, ProfileWords, pack, pack_unread, profile_words
from streams.records import UserProfile
from streams.serialization import encode

OURS = "mini:0123456789ab:word-mean-1"
VALUE = encode(UserProfile("u", "f", 24, "Austria"))
WORDS: ProfileWords = (("f", "austria"), np.arange(6, dtype=np.float16).reshape(2, 3))
ANEW: ProfileWords = (("anew",), np.ones((1, 3), dtype=np.float16))


class Table(dict[bytes, bytes]):
    """As much of a table's store as profiles read."""

    def get(self, partition: int, key: bytes) -> bytes | None:  # type: ignore[override]
        return super().get(key)


def found(row: bytes) -> tuple[Profile, list[UserProfile]]:
    """What is read from a row, and which profiles had to be encoded."""
    asked: list[UserProfile] = []

    def encoded(profile: UserProfile) -> ProfileWords:
        asked.append(profile)
        return ANEW

    table: Any = Table({b"u": row})
    return Profiles(table, encoded, OURS.__eq__)(0, "u"), asked


def same(profile: Profile, version: int, made: ProfileWords) -> bool:
    """Whether it has this version, these words and, bit by bit, these vectors."""
    words, vectors = made
    assert profile.vectors is None or profile.vectors.dtype == np.float16
    return (profile.version, profile.words) == (version, words) and np.array_equal(
        np.zeros(0) if profile.vectors is None else profile.vectors, np.zeros(0) if vectors is None else vectors
    )


def test_words_are_read_as_they_were_made() -> None:
    profile, asked = found(pack(6, VALUE, OURS, WORDS))
    assert same(profile, 7, WORDS) and asked == []


def test_a_profile_of_which_nothing_is_known() -> None:
    profile, asked = found(pack(6, VALUE, OURS, ((), None)))
    assert same(profile, 7, ((), None)) and asked == []


@pytest.mark.parametrize("row", [pack(6, VALUE, "other:0123456789ab:word-mean-1", WORDS), pack_unread(6, VALUE)])
def test_words_of_another_encoder_or_of_none_are_made_anew(row: bytes) -> None:
    profile, asked = found(row)
    assert same(profile, 7, ANEW) and asked == [UserProfile("u", "f", 24, "Austria")]


@pytest.mark.parametrize("row", [pack_unread(6, b"no profile"), pack(6, VALUE, OURS, WORDS)[:-3], b"\xc3\x01unknown"])
def test_a_row_that_cannot_be_read_leaves_its_user_without_words(row: bytes) -> None:
    profile, asked = found(row)
    assert profile.words == () and profile.version in (0, 7) and asked == []


def test_a_user_without_a_row_is_nobody() -> None:
    table: Any = Table()
    assert Profiles(table, lambda profile: ANEW, OURS.__eq__)(0, "u") is NOBODY


def test_the_id_of_an_encoder_is_told_by_its_name(tmp_path: Path) -> None:
    encoder = TextEncoder()
    assert may_be(encoder.id, None)
    assert not may_be(encoder.id, str(tmp_path / "other"))
    assert not may_be(encoder.id.replace("word-mean-1", "word-mean-0"), None)
    assert may_be("other:0123456789ab:word-mean-1", str(tmp_path / "other"))
    (made,) = profile_words(encoder, [UserProfile("u", "f", 24, "Austria")])
    table: Any = Table({b"u": pack(6, VALUE, encoder.id, made)})
    assert same(Profiles(table, lambda profile: ANEW, lambda name: may_be(name, None))(0, "u"), 7, made)
