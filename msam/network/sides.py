"""What is computed once per track or user and cached, and what a window gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class TrackSide(NamedTuple):
    """Everything of n tracks that does not depend on the window or the user; exact to cache."""

    series: Tensor  # [n, D] the part of X without the score, projected
    audio: Tensor  # [n, D] attended audio a_att (Eq. 22), 0 without audio
    audio_score: Tensor  # [n] its modality score
    audio_present: Tensor  # bool [n]
    beta: Tensor  # [n, G] weights of the audio groups
    text: Tensor  # [n, D] text attended over the track's own words
    text_lse: Tensor  # [n] log-sum-exp of the word scores, 0 without words
    text_present: Tensor  # bool [n]
    alpha: Tensor  # [n, P] weights of the words among the track's own
    content: Tensor  # [n, 2D] row of U from content alone, for a track that was not trained on
    groups: Tensor  # [n, G, R] its audio groups for `GroupAttention`; R = 0 without it

    def __len__(self) -> int:
        return self.series.shape[0]

    @classmethod
    def cat(cls, sides: Sequence[TrackSide]) -> TrackSide:
        """The tracks of several sides one after the other."""
        return cls(*(torch.cat(tensors) for tensors in zip(*sides, strict=True)))

    def select(self, index: Tensor) -> TrackSide:
        """The tracks at `index` (int64 [m])."""
        return TrackSide(*(tensor.index_select(0, index) for tensor in self))

    def scatter(self, index: Tensor, other: TrackSide) -> None:
        """Overwrite the tracks at `index` (int64 [m]) in place with the m tracks of `other`."""
        for mine, theirs in zip(self, other, strict=True):
            mine.index_copy_(0, index, theirs)

    def head(self, size: int) -> TrackSide:
        """The first `size` tracks (a view)."""
        return TrackSide(*(tensor[:size] for tensor in self))

    def grown(self, size: int) -> TrackSide:
        """A copy with room for `size` tracks; the new ones are empty (nothing present)."""
        missing = size - len(self)
        return TrackSide(*(torch.cat([tensor, tensor.new_zeros((missing, *tensor.shape[1:]))]) for tensor in self))


class UserSide(NamedTuple):
    """The profile words of n users, attended among themselves."""

    text: Tensor  # [n, D]
    text_lse: Tensor  # [n], 0 without words
    text_present: Tensor  # bool [n]
    alpha: Tensor  # [n, Pu]

    def __len__(self) -> int:
        return self.text.shape[0]

    @classmethod
    def cat(cls, sides: Sequence[UserSide]) -> UserSide:
        """The users of several sides one after the other."""
        return cls(*(torch.cat(tensors) for tensors in zip(*sides, strict=True)))

    def select(self, index: Tensor) -> UserSide:
        """The users at `index` (int64 [m])."""
        return UserSide(*(tensor.index_select(0, index) for tensor in self))

    def put(self, index: int, other: UserSide) -> None:
        """Overwrite the user at `index` in place with the one user of `other`."""
        for mine, theirs in zip(self, other, strict=True):
            mine[index] = theirs[0]

    def head(self, size: int) -> UserSide:
        """The first `size` users (a view)."""
        return UserSide(*(tensor[:size] for tensor in self))


class Hidden(NamedTuple):
    """The network's state after B windows, and the weights that explain it. All weights are 0 at padded plays."""

    state: Tensor  # [B, 2D] h* = (h + h')/2
    query: Tensor  # [B, 2D] the same, by which rows are multiplied; wider with group attention
    fused: Tensor  # [B, K, D] z_att (Eq. 24)
    gamma: Tensor  # [B, K, 3] weights of audio, text, sequence
    text_share: Tensor  # [B, K, 2] share of the text weight that is the track's words, the user's words
    mask: Tensor  # bool [B, K]


class Explanation(NamedTuple):
    """Attention weights of every play of B windows."""

    gamma: Tensor  # [B, K, 3] audio, text, sequence
    beta: Tensor  # [B, K, G] audio groups
    alpha: Tensor  # [B, K, P] the track's words, out of all text positions
    user_alpha: Tensor  # [B, K, Pu] the user's words, out of all text positions
