"""What is known of a catalogue and its users beside the plays: words, sound, factors, artists."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from msam.config import MSAMConfig
from msam.network.inputs import TrackContent, TrackInputs, UserInputs

MEL_BANDS, MEL_FRAMES = 64, 32
"""A clip as a picture: mel bands by equal slices of its length."""


@dataclass(frozen=True, slots=True)
class Content:
    """Content of M items and U users; what is missing is masked.

    model: sizes of `tracks` and `users`, as MSAM takes them. mel float16 [M, MEL_BANDS, MEL_FRAMES] (dB / 40 + 1),
    `mel_mask` bool [M]. artist, album int64 [M]: numbers of the item's artist and album, -1 unknown (at artist level:
    none). narrow: SiMF factors [M, d] of items and of their artists for a network with a smaller d; None: no others.
    """

    model: MSAMConfig
    tracks: TrackInputs
    users: UserInputs
    mel: NDArray[np.float16]
    mel_mask: NDArray[np.bool_]
    artist: NDArray[np.int64]
    album: NDArray[np.int64]
    narrow: tuple[Tensor, Tensor] | None = None

    def narrowed(self) -> tuple[MSAMConfig, TrackInputs]:
        """Sizes and inputs of a network with the d of `narrow`, and as many hidden units; else `model` and `tracks`."""
        if self.narrow is None:
            return self.model, self.tracks
        factor, artist = self.narrow
        config = replace(self.model, dim=factor.shape[1], hidden=factor.shape[1])
        rest = self.tracks
        return config, TrackInputs(*rest[:4], factor, rest.factor_mask, artist, rest.artist_mask)

    @classmethod
    def empty(cls, items: int, users: int, config: MSAMConfig | None = None) -> Content:
        """Nothing known, in the smallest tensors."""
        model = config or MSAMConfig(text_dim=8, max_words=1, max_user_words=1)
        return cls(
            model,
            TrackInputs.build([TrackContent()] * items, model),
            UserInputs.build([None] * users, model),
            np.zeros((items, MEL_BANDS, MEL_FRAMES), dtype=np.float16),
            np.zeros(items, dtype=np.bool_),
            np.full(items, -1, dtype=np.int64),
            np.full(items, -1, dtype=np.int64),
        )
