"""Words of tracks and users (inputs of Eq. 12): cleaning, bounds, and which words are kept."""

import math
import unicodedata
from collections.abc import Iterable, Sequence

P_MAX = 12
"""Most words of one track."""
USER_MAX = 4
"""Most words of one user."""
MAX_CHARS = 200
"""Most characters of one text."""
MAX_WORD_CHARS = 40
"""Most characters of one word."""

TITLE, ARTIST, LABEL = 0, 1, 2
"""Field numbers of a track's words."""

# Words that each field (title, artist, labels) may have in any case; what one leaves free goes to the others in order.
_SHARES = (5, 3, 4)
_SPARE_ORDER = (TITLE, LABEL, ARTIST)
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_GENDERS = {"m": "male", "f": "female", "n": "nonbinary"}

Field = tuple[int, str]


def clean(text: str | None) -> str:
    """One line of NFC text: control characters become spaces, blanks collapse, at most MAX_CHARS characters.

    Letters of every script and joiners stay; lone surrogates and bidirectional overrides go.

    >>> clean("Caf\\u0065\\u0301\\x00\\n del  Mar ")
    'Café del Mar'
    """
    if not text:
        return ""
    kept = (_keep(character) for character in text[: 4 * MAX_CHARS])
    normal = unicodedata.normalize("NFC", "".join(kept))
    words = (word[:MAX_WORD_CHARS] for word in normal.split())
    return " ".join(words)[:MAX_CHARS].rstrip()


def _keep(character: str) -> str:
    if character in _BIDI_CONTROLS:
        return ""
    category = unicodedata.category(character)
    if category == "Cs":
        return ""
    return " " if category == "Cc" else character


def track_fields(
    title: str | None = None,
    artist: str | None = None,
    labels: Iterable[str] = (),
    duration: float | None = None,
) -> tuple[Field, ...]:
    """A track's texts as (field number, text), together at most P_MAX words; duration (s) becomes a last label.

    >>> track_fields("Blue Train", "John Coltrane", ["hard bop"], 643.0)
    ((0, 'Blue Train'), (1, 'John Coltrane'), (2, 'hard bop'), (2, '11min'))
    """
    texts = [(TITLE, clean(title)), (ARTIST, clean(artist))]
    texts += [(LABEL, clean(label)) for label in dict.fromkeys(labels)]
    texts.append((LABEL, duration_word(duration)))
    wanted = [0, 0, 0]
    for field, text in texts:
        wanted[field] += len(text.split())
    left = _grants(wanted)
    fields: list[Field] = []
    for field, text in texts:
        words = text.split()[: left[field]]
        left[field] -= len(words)
        if words:
            fields.append((field, " ".join(words)))
    return tuple(fields)


def _grants(wanted: Sequence[int]) -> list[int]:
    grants = [min(want, share) for want, share in zip(wanted, _SHARES, strict=True)]
    for field in _SPARE_ORDER:
        grants[field] += min(wanted[field] - grants[field], P_MAX - sum(grants))
    return grants


def duration_word(seconds: float | None) -> str:
    """A duration as one word in whole minutes ("4min"); empty where it is unknown or makes no sense."""
    if seconds is None or not math.isfinite(seconds) or not 0 < seconds < 86_400:
        return ""
    return f"{max(1, round(seconds / 60))}min"


def user_words(gender: str | None = None, age: int | None = None, country: str | None = None) -> tuple[str, ...]:
    """A user's words, at most USER_MAX: gender, age as a word, country.

    >>> user_words("f", 24, "New Zealand")
    ('female', '24', 'New', 'Zealand')
    """
    gender = clean(gender)
    words = [_GENDERS.get(gender.lower(), gender)] if gender else []
    words = words[0].split()[:1] if words else []
    if age is not None and 0 < age < 130:
        words.append(str(age))
    return tuple([*words, *clean(country).split()][:USER_MAX])
