"""Frozen, validated settings of the network and of its training; no environment is read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from msam.errors import MethodError

Optimiser = Literal["adam", "adamw"]


class ConfigError(MethodError):
    """A setting is out of range, unknown or of the wrong type."""


def _require(good: bool, message: str) -> None:
    if not good:
        raise ConfigError(message)


def _known(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` as keyword arguments of `cls`, refusing names that it does not have."""
    names = {field.name for field in fields(cls)}
    unknown = sorted(set(values) - names)
    _require(not unknown, f"{cls.__name__}: unknown settings {', '.join(unknown)}")
    return dict(values)


@dataclass(frozen=True, slots=True)
class MSAMConfig:
    """Shape of the network. `published=True` is the paper's model alone and switches every extension off.

    dim is d, window is k; the recurrent state and the rows of U have size 2d. The extensions are
    `content_rows` (row of U = map of the track's content + a free residual) and `copy_head` (pointer scores over
    the plays of the window) and `cold_calibration` (scores of tracks that training did not meet are scaled and shifted
    by what the holdout shows).
    """

    dim: int = 100
    window: int = 20
    hidden: int = 100
    text_dim: int = 384
    max_words: int = 12
    max_user_words: int = 4
    audio_groups: int = 7
    audio_width: int = 64
    kernel_widths: tuple[int, ...] = (1, 2, 3)
    dropout: float = 0.2
    published: bool = False
    content_rows: bool = True
    copy_head: bool = True
    cold_calibration: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernel_widths", tuple(self.kernel_widths))
        if self.published:
            object.__setattr__(self, "content_rows", False)
            object.__setattr__(self, "copy_head", False)
            object.__setattr__(self, "cold_calibration", False)
        sizes = ("dim", "window", "hidden", "text_dim", "max_words", "max_user_words", "audio_groups", "audio_width")
        for name in sizes:
            value = getattr(self, name)
            _require(
                isinstance(value, int) and not isinstance(value, bool) and value >= 1,
                f"{name} must be a whole number of at least 1, not {value!r}",
            )
        widths = self.kernel_widths
        _require(
            bool(widths) and all(isinstance(width, int) and width >= 1 for width in widths),
            f"kernel_widths must be whole numbers of at least 1, not {widths!r}",
        )
        _require(0.0 <= self.dropout < 1.0, f"dropout must be in [0, 1), not {self.dropout!r}")

    @property
    def state(self) -> int:
        """Size of h* and of a row of U: 2d."""
        return 2 * self.dim

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready mapping for a manifest."""
        return {**asdict(self), "kernel_widths": list(self.kernel_widths)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; raises ConfigError for unknown or bad settings."""
        try:
            return cls(**_known(cls, values))
        except TypeError as error:
            raise ConfigError(f"MSAMConfig: {error}") from error


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a model is trained. Times in seconds; `max_seconds` is checked before every batch.

    holdout: last fraction of each user's plays, kept for early stopping (0: train on everything, no early stopping).
    chunk: windows of one user taken in a row into a batch, which shares their tracks and so saves encoding.
    residual_decay, residual_dropout: what keeps the free part of a content row from replacing the content.
    """

    epochs: int = 10
    batch: int = 100
    learning_rate: float = 1e-3
    optimiser: Optimiser = "adam"
    weight_decay: float = 0.0
    residual_decay: float = 1e-5
    residual_dropout: float = 0.3
    clip: float = 5.0
    chunk: int = 10
    seed: int = 0
    patience: int = 2
    holdout: float = 0.1
    max_holdout: int = 2000
    max_seconds: float | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "chunk", "patience", "max_holdout", "threads"):
            value = getattr(self, name)
            _require(
                isinstance(value, int) and not isinstance(value, bool) and value >= 1,
                f"{name} must be a whole number of at least 1, not {value!r}",
            )
        _require(self.learning_rate > 0, f"learning_rate must be above 0, not {self.learning_rate!r}")
        _require(self.optimiser in ("adam", "adamw"), f"optimiser must be adam or adamw, not {self.optimiser!r}")
        _require(min(self.weight_decay, self.residual_decay) >= 0, "weight decays must not be negative")
        _require(0 <= self.residual_dropout < 1, f"residual_dropout must be in [0, 1), not {self.residual_dropout!r}")
        _require(self.clip > 0, f"clip must be above 0, not {self.clip!r}")
        _require(0 <= self.holdout < 1, f"holdout must be in [0, 1), not {self.holdout!r}")
        _require(self.max_seconds is None or self.max_seconds > 0, f"max_seconds must be above 0: {self.max_seconds!r}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready mapping for a manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; raises ConfigError for unknown or bad settings."""
        try:
            return cls(**_known(cls, values))
        except TypeError as error:
            raise ConfigError(f"TrainConfig: {error}") from error
