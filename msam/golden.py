"""Golden inputs of a model: a few real windows with what the model made of them, checked whenever it is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msam.errors import MethodError
from msam.network.inference import encode_catalogue, encode_users, score
from msam.network.inputs import TrackInputs, UserInputs
from msam.network.model import MSAM
from msam.network.wide import WideInputs
from msam.sequences import Dataset

# Logits are compared within this: other kinds of CPU sum in another order (about 1e-5), a wrong weight shows far above.
TOLERANCE = 1e-3
TOP = 20


@dataclass(frozen=True, slots=True)
class Golden:
    """Content of the tracks and users of B windows; window [B, K] holds rows of `track_ids`, -1 padded.

    wide: candidates among these tracks with made-up counts, for a model with a wide head.
    """

    track_ids: tuple[str, ...]
    tracks: TrackInputs
    users: UserInputs
    window: Tensor
    wide: WideInputs | None = None

    @classmethod
    def pick(cls, data: Dataset, size: int, count: int = 4, wide_inputs: int = 0) -> Golden:
        """The newest windows of up to `count` users, spread over the users of `data`.

        wide_inputs: inputs of the wide head; 0 for a model without.
        """
        ends = [int(stop) for start, stop in zip(data.starts[:-1], data.starts[1:], strict=True) if stop - start > 1]
        if not ends:
            raise MethodError("no user has two plays to make a golden window of")
        chosen = np.array(ends)[np.linspace(0, len(ends) - 1, min(count, len(ends))).astype(int)] - 1
        catalogue = torch.from_numpy(data.windows(chosen, size))
        unique, local = torch.unique(catalogue, return_inverse=True)
        pad = int(unique[0] == -1)
        members = unique[pad:]
        return cls(
            tuple(data.track_ids[index] for index in members.tolist()),
            data.tracks.select(members),
            data.users.select(torch.from_numpy(data.owner(chosen))),
            local - pad,
            _made_up(len(chosen), len(members), wide_inputs) if wide_inputs else None,
        )

    def arrays(self) -> dict[str, Tensor]:
        """Tensors to store; inverse of `from_arrays`."""
        tracks = {f"tracks.{name}": tensor for name, tensor in self.tracks._asdict().items()}
        users = {f"users.{name}": tensor for name, tensor in self.users._asdict().items()}
        wide = {} if self.wide is None else {f"wide.{name}": tensor for name, tensor in self.wide._asdict().items()}
        return {**tracks, **users, **wide, "window": self.window}

    @classmethod
    def from_arrays(cls, track_ids: Sequence[str], arrays: Mapping[str, Tensor]) -> Golden:
        """From stored tensors; KeyError when one is missing."""
        tracks = TrackInputs(*(arrays[f"tracks.{name}"] for name in TrackInputs._fields))
        users = UserInputs(*(arrays[f"users.{name}"] for name in UserInputs._fields))
        wide = None
        if "wide.rows" in arrays:
            wide = WideInputs(*(arrays[f"wide.{name}"] for name in WideInputs._fields))
        return cls(tuple(track_ids), tracks, users, arrays["window"], wide)

    def answers(self, model: MSAM, trained_ids: Sequence[str]) -> list[list[tuple[str, float]]]:
        """Per window the (track id, logit) of the best TOP of the golden tracks, best first."""
        row = {track: place for place, track in enumerate(trained_ids)}
        trained = torch.tensor([row.get(track, -1) for track in self.track_ids], dtype=torch.int64)
        side, rows, _ = encode_catalogue(model, self.tracks, trained)
        logits, _ = score(model, side, rows, self.window, encode_users(model, self.users))
        with torch.inference_mode():
            logits = model.join(logits, self.wide)
        best = logits.topk(min(TOP, len(self.track_ids)), dim=1)
        return [
            [(self.track_ids[index], value) for index, value in zip(indices, values, strict=True)]
            for indices, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def difference(self, model: MSAM, trained_ids: Sequence[str], expected: Sequence[Sequence[Any]]) -> str | None:
        """What differs from the stored answers, in words; None when nothing does (within TOLERANCE)."""
        found = self.answers(model, trained_ids)
        if len(found) != len(expected):
            return f"{len(expected)} stored answers for {len(found)} golden windows"
        for window, (mine, stored) in enumerate(zip(found, expected, strict=True)):
            have = dict(mine)
            if len(have) != len(stored):
                return f"golden window {window}: {len(stored)} stored logits, {len(have)} computed"
            # Order is compared through the logits: near-ties may swap on another kind of CPU, at the end too.
            worst = mine[-1][1]
            for track, value in stored:
                got = have.get(track, worst)
                if not abs(got - value) <= TOLERANCE:
                    return f"golden window {window}: logit of {track} is {got:.6g}, stored {value:.6g}"
        return None


def _made_up(windows: int, tracks: int, inputs: int) -> WideInputs:
    """Every other track as a candidate of each window, with inputs that look like counts."""
    rows = torch.arange(0, tracks, 2)
    made = np.random.default_rng(0).random((windows * len(rows), inputs), dtype=np.float32)
    window = torch.arange(windows).repeat_interleave(len(rows))
    return WideInputs.of(window, rows.repeat(windows), torch.from_numpy(2 * made))
