"""Frozen, validated settings of the network and of its training; no environment is read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

from msam.errors import MethodError

Optimiser = Literal["adam", "adamw"]
HOLDOUT = 0.1
"""Last part of each user's plays in training, by which networks choose their epoch; factors must not know it either."""


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


_KINDS = ("followed", "favourites", "ruled", "unheard", "fresh", "recent", "liked", "each")


@dataclass(frozen=True, slots=True)
class CountsConfig:
    """What the wide head counts and which tracks become candidates; part of a model, because a scorer is only right
    for the inputs that it was trained on.

    history: plays kept per user. gap: seconds without a play that end a session. back: plays back from which rules
    are learned and read. successors: most followers kept per track, and tracks per artist. pairs: log2 of the places
    for second-order counts.

    Most candidates of each kind: `newest` own tracks, `followed` own ones that came after one of the last plays
    before, `favourites`: most played own ones, `ruled`: by everyone's rules, and by artists that this user plays
    `unheard`: tracks that only others played, and `fresh` ones that nobody has. Those artists are the `recent` last
    ones and the `liked` most played ones, and each gives at most `each` of a kind.
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
        for name in (one.name for one in fields(self)):
            value, least = getattr(self, name), 0 if name in _KINDS else 1
            _require(not isinstance(value, bool) and value >= least, f"{name} must be at least {least}, not {value!r}")
        _require(self.back <= 8, f"back must be at most 8, not {self.back!r}")

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
            return cls(**_known(cls, values))
        except TypeError as error:
            raise ConfigError(f"CountsConfig: {error}") from error


EXTENSIONS = (
    "content_rows",
    "simf_rows",
    "tied_rows",
    "group_attention",
    "copy_head",
    "cold_calibration",
    "cold_share",
    "wide_head",
)
"""What `MSAMConfig` adds to the paper's model."""


@dataclass(frozen=True, slots=True)
class MSAMConfig:
    """Shape of the network. `published=True` is the paper's model alone and switches every extension off.

    dim is d, window is k; the recurrent state and the rows of U have size 2d. The extensions (`EXTENSIONS`) are
    `content_rows` (row of U = map of the track's content + a free residual) or, with free rows, `simf_rows` (they
    start as SiMF's factors of the track and its artist); `tied_rows` (a track's row of U is a part of its input, too);
    `group_attention` (likeness to the window in sound, with attention to the audio groups in which its plays agree);
    `copy_head` (pointer scores over the plays of the window); `cold_calibration` (scores of tracks that training did
    not meet are scaled and shifted by what the holdout shows), `cold_share` (shifted so far that lists hold as many of
    them as listeners play, rather than by likelihood) and `wide_head` (a scorer over `counts`, with `wide_inputs`
    inputs, added to the logits).

    For ablation alone: `attention=False` makes every softmax of Eq. 22-24 uniform, `order=False` shows the plays of the
    window in an order by chance instead of that of time.
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
    simf_rows: bool = False
    tied_rows: bool = False
    group_attention: bool = False
    copy_head: bool = True
    cold_calibration: bool = True
    cold_share: bool = False
    wide_head: bool = True
    wide_inputs: int = 36
    attention: bool = True
    order: bool = True
    counts: CountsConfig = field(default_factory=CountsConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernel_widths", tuple(self.kernel_widths))
        if isinstance(self.counts, Mapping):
            object.__setattr__(self, "counts", CountsConfig.from_dict(self.counts))
        if self.published:
            for name in EXTENSIONS:
                object.__setattr__(self, name, False)
        sizes = (
            "dim",
            "window",
            "hidden",
            "text_dim",
            "max_words",
            "max_user_words",
            "audio_groups",
            "audio_width",
            "wide_inputs",
        )
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
        _require(self.cold_calibration or not self.cold_share, "cold_share is a kind of cold_calibration: set both")

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
    negatives: 0 for the full softmax over all tracks of training (Eq. 27), or how many are drawn for each batch beside
    those of its windows and targets; each stands for as many as were not drawn, so that the normaliser is right on
    average. By default the full one up to 20,000 tracks of training, and 4,096 drawn ones beyond.
    residual_decay, residual_dropout: what keeps the free part of a content row from replacing the content.
    order_dropout: the part of the windows whose plays are read in an order by chance at each step, so that the network
    does not learn an order where there is none.
    average: what is checked, kept and served is the running mean of the weights, of which so much is left after a step
    (Polyak and Juditsky, 1992); 0: the weights as they are.
    """

    epochs: int = 10
    batch: int = 100
    learning_rate: float = 1e-3
    optimiser: Optimiser = "adam"
    weight_decay: float = 0.0
    residual_decay: float = 1e-5
    residual_dropout: float = 0.3
    order_dropout: float = 0.0
    average: float = 0.0
    clip: float = 5.0
    negatives: int | None = None
    chunk: int = 10
    seed: int = 0
    patience: int = 2
    holdout: float = HOLDOUT
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
        for name in ("residual_dropout", "order_dropout", "average"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"{name} must be in [0, 1), not {value!r}")
        _require(self.negatives is None or self.negatives >= 0, f"negatives must not be negative: {self.negatives!r}")
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
