"""What the network is given: tensors of track and user content, built from numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msam.config import MSAMConfig
from msam.errors import MethodError

TITLE, ARTIST, LABEL = 0, 1, 2
FIELDS = 3

Vectors = NDArray[np.float16] | NDArray[np.float32]


class InputError(MethodError):
    """Content of a track or user has the wrong shape or is not finite."""


@dataclass(frozen=True, slots=True)
class TrackContent:
    """One track's content; None (or no words) is a missing modality, which is masked.

    words [p, E] with fields [p] (0 title, 1 artist, 2 label), audio [G, A], factor and artist_factor [d].
    """

    words: Vectors | None = None
    fields: Sequence[int] = ()
    audio: NDArray[np.float32] | None = None
    factor: NDArray[np.float32] | None = None
    artist_factor: NDArray[np.float32] | None = None


def _checked(what: str, row: int, values: NDArray[np.floating], shape: tuple[int, ...]) -> NDArray[np.floating]:
    array = np.asarray(values)
    if array.shape != shape:
        raise InputError(f"{what} of row {row} has shape {array.shape}, expected {shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{what} of row {row} is not finite")
    return array


def _fill(what: str, rows: Sequence[NDArray[np.floating] | None], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Stack optional arrays into float32 [n, *shape] and a bool mask [n] of those present."""
    out = np.zeros((len(rows), *shape), dtype=np.float32)
    mask = np.zeros(len(rows), dtype=np.bool_)
    for row, values in enumerate(rows):
        if values is not None:
            out[row] = _checked(what, row, values, shape)
            mask[row] = True
    return torch.from_numpy(out), torch.from_numpy(mask)


def _fill_words(rows: Sequence[Vectors | None], limit: int, width: int) -> tuple[Tensor, NDArray[np.int64]]:
    """Word vectors [n, limit, width] as float16, and the number of words kept of each row [n]."""
    out = np.zeros((len(rows), limit, width), dtype=np.float16)
    kept = np.zeros(len(rows), dtype=np.int64)
    for row, words in enumerate(rows):
        if words is not None and len(words):
            values = np.asarray(words)[:limit]
            kept[row] = len(values)
            with np.errstate(over="ignore"):
                out[row, : len(values)] = _checked("words", row, values.astype(np.float16), (len(values), width))
    return torch.from_numpy(out), kept


def spans(count: int, size: int) -> list[Tensor]:
    """0..count-1 in runs of at most `size`, each an index tensor."""
    return [torch.arange(start, min(start + size, count)) for start in range(0, count, size)]


class TrackInputs(NamedTuple):
    """Content of n tracks. Words are held as float16 (their form on the wire) and computed with as float32."""

    words: Tensor  # float16 [n, P, E]
    fields: Tensor  # int64 [n, P], -1 where there is no word
    audio: Tensor  # float32 [n, G, A]
    audio_mask: Tensor  # bool [n]
    factor: Tensor  # float32 [n, d]
    factor_mask: Tensor  # bool [n]
    artist_factor: Tensor  # float32 [n, d]
    artist_mask: Tensor  # bool [n]

    @classmethod
    def build(cls, tracks: Sequence[TrackContent], config: MSAMConfig) -> TrackInputs:
        """Tensors from arrays; words beyond `max_words` are cut. Raises InputError for a wrong shape or value."""
        words, kept = _fill_words([track.words for track in tracks], config.max_words, config.text_dim)
        fields = np.full((len(tracks), config.max_words), -1, dtype=np.int64)
        for row, track in enumerate(tracks):
            given = np.asarray(track.fields, dtype=np.int64)
            if track.words is not None and len(given) != len(track.words):
                raise InputError(f"row {row} has {len(track.words)} words but {len(given)} fields")
            fields[row, : kept[row]] = given[: kept[row]]
            if not ((fields[row, : kept[row]] >= 0) & (fields[row, : kept[row]] < FIELDS)).all():
                raise InputError(f"row {row} has a word field outside 0..{FIELDS - 1}")
        audio = _fill("audio", [track.audio for track in tracks], (config.audio_groups, config.audio_width))
        factor = _fill("factor", [track.factor for track in tracks], (config.dim,))
        artist = _fill("artist factor", [track.artist_factor for track in tracks], (config.dim,))
        return cls(words, torch.from_numpy(fields), *audio, *factor, *artist)

    @property
    def word_mask(self) -> Tensor:
        """bool [n, P]: where there is a word."""
        return self.fields >= 0

    def __len__(self) -> int:
        return self.words.shape[0]

    def select(self, index: Tensor) -> TrackInputs:
        """The tracks at `index` (int64 [m])."""
        return TrackInputs(*(tensor.index_select(0, index) for tensor in self))

    def pooled(self) -> tuple[Tensor, Tensor]:
        """Mean word vector per field (title, artist, labels) float32 [n, 3, E], and which fields have words [n, 3]."""
        member = torch.nn.functional.one_hot(self.fields + 1, FIELDS + 1)[..., 1:].float()  # [n, P, 3]
        count = member.sum(1)  # [n, 3]
        total = torch.bmm(member.transpose(1, 2), self.words.float())  # [n, 3, E]
        return total / count.clamp(min=1.0).unsqueeze(-1), count > 0

    def padded(self, size: int) -> TrackInputs:
        """The same tracks followed by empty ones up to `size`, so that every model call has one shape."""
        missing = size - len(self)
        if missing < 0:
            raise InputError(f"{len(self)} tracks do not fit a batch of {size}")
        pads = (-1 if name == "fields" else 0 for name in self._fields)
        return TrackInputs(
            *(
                torch.cat([tensor, tensor.new_full((missing, *tensor.shape[1:]), pad)])
                for tensor, pad in zip(self, pads, strict=True)
            )
        )


class UserInputs(NamedTuple):
    """Profile words of n users: gender, age, country."""

    words: Tensor  # float16 [n, Pu, E]
    mask: Tensor  # bool [n, Pu]

    @classmethod
    def build(cls, users: Sequence[Vectors | None], config: MSAMConfig) -> UserInputs:
        """Tensors from each user's word vectors [p, E]; None: no profile."""
        words, kept = _fill_words(users, config.max_user_words, config.text_dim)
        mask = np.arange(config.max_user_words) < kept[:, None]
        return cls(words, torch.from_numpy(mask))

    def __len__(self) -> int:
        return self.words.shape[0]

    def select(self, index: Tensor) -> UserInputs:
        """The users at `index` (int64 [m])."""
        return UserInputs(self.words.index_select(0, index), self.mask.index_select(0, index))

    def padded(self, size: int) -> UserInputs:
        """The same users followed by ones without a profile up to `size`."""
        missing = size - len(self)
        if missing < 0:
            raise InputError(f"{len(self)} users do not fit a batch of {size}")
        return UserInputs(*(torch.cat([tensor, tensor.new_zeros((missing, *tensor.shape[1:]))]) for tensor in self))
