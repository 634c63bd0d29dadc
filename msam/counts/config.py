"""Limits of the counts; part of a model, because a scorer is only right for the inputs that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from msam.config import ConfigError

_KINDS = ("followed", "favourites", "ruled", "unheard", "fresh", "recent", "liked", "each")


@dataclass(frozen=True, slots=True)
class CountsConfig:
    """What is counted and which tracks become candidates.

    history: plays kept per user. gap: seconds without a play that end a session. back: plays back from which rules
    are learned and read. successors: most followers kept per track, and tracks per artist. pairs: log2 of the places
    for second-order counts.

    Most candidates of each kind: `newest` own tracks, `followed` own ones that came after one of the last plays before,
    `favourites`: most played own ones, `ruled`: by everyone's rules, and by artists that this user plays `unheard`: tracks
    that only others played, and `fresh` ones that nobody has. The artists are the `recent` last ones and the `liked` most
    played ones, and each gives at most `each` of a kind.
    """

    history: int = 1000
    gap: float = 1800.0
    back: int = 8
    successors: int = 64
    pairs: int = 20
    newest: int = 150
    favourites: int = 40
    followed: int = 24
    ruled: int = 80
    unheard: int = 40
    fresh: int = 40
    recent: int = 4
    liked: int = 8
    each: int = 12

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in _KINDS else 1
            if isinstance(value, bool) or not value >= least:
                raise ConfigError(f"{field.name} must be at least {least}, not {value!r}")
        if self.back > 8:
            raise ConfigError(f"back must be at most 8, not {self.back!r}")

    @property
    def most(self) -> int:
        """Most candidates of one play, those asked for by the caller aside."""
        return self.newest + self.followed + self.favourites + self.ruled + self.unheard + self.fresh

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready mapping for a manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; raises ConfigError for unknown or bad settings."""
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"CountsConfig: {error}") from error
