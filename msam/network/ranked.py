"""From windows to ranked tracks in one call, traced so that it runs without Python between its operations."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable, Hashable, Iterable
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from msam.network.attention import steady_exp
from msam.network.model import MSAM
from msam.network.sides import TrackSide, UserSide
from msam.network.wide import WideInputs


class Ranking(NamedTuple):
    """The best n of N tracks for B windows, and what explains them."""

    rows: Tensor  # int64 [B, n] best first
    scores: Tensor  # [B, n] p = softmax over all N (Eq. 26)
    near: Tensor  # int64 [B, n] the play of the window whose row is nearest by cosine
    gamma: Tensor  # [B, K, 3] modality weights
    beta: Tensor  # [B, K, G] weights of the audio groups
    alpha: Tensor  # [B, K, P] weights of the tracks' words


class Inputs(NamedTuple):
    """B windows and what they are ranked over: N tracks."""

    window: Tensor  # int64 [B, K] rows of side, -1 where there is no play
    user: Tensor  # int64 [B] rows of users
    rows: Tensor  # [N, 2d] rows of U
    units: Tensor  # [N, 2d] the same at unit length
    offsets: Tensor  # [N] added to the logits; -inf: never
    side: TrackSide
    users: UserSide
    wide: WideInputs | None = None  # candidates, for a model with a wide head

    def tensors(self) -> tuple[Tensor, ...]:
        """All of them one after the other, as a graph takes them."""
        return (*self[:5], *self.side, *self.users, *(self.wide or ()))


Call = Callable[[Inputs], Ranking]  # all calls of one have inputs of the same shapes, but for the number of candidates


class Ranked(nn.Module):
    """The whole computation of a batch of lists; tensors in, tensors out."""

    def __init__(self, model: MSAM, n: int) -> None:
        super().__init__()
        self.model = model
        self.n = n

    def forward(
        self, window: Tensor, user: Tensor, rows: Tensor, units: Tensor, offsets: Tensor, *sides: Tensor
    ) -> Ranking:
        """window int64 [B, K], user int64 [B], rows and units [N, 2d], offsets [N] (-inf: never), then the tables.

        window and user index the tables: a TrackSide of N tracks and a UserSide. Behind them, the candidates of a
        model with a wide head (WideInputs), if there are any.
        """
        width, whole = len(TrackSide._fields), len(TrackSide._fields) + len(UserSide._fields)
        side, users = TrackSide(*sides[:width]), UserSide(*sides[width:whole]).select(user)
        wide = WideInputs(*sides[whole:]) if len(sides) > whole else None
        hidden = self.model(side, window, users)
        logits = self.model.join(self.model.logits(hidden, rows, window) + offsets, wide)
        best, found = logits.topk(self.n, dim=1)
        scores = steady_exp(best - logits.logsumexp(1, keepdim=True))
        near = torch.einsum("bnd,bkd->bnk", units[found], units[window.clamp(min=0)])
        near = near.masked_fill((window < 0).unsqueeze(1), -torch.inf).argmax(2)
        why = self.model.explain(hidden, side, window, users)
        return Ranking(found, scores, near, why.gamma, why.beta, why.alpha)


def eager(model: MSAM, n: int) -> Call:
    """The computation run operation by operation."""
    ranked = Ranked(model, n).eval()

    @torch.inference_mode()
    def call(inputs: Inputs) -> Ranking:
        found: Ranking = ranked(*inputs.tensors())
        return found

    return call


def traced(model: MSAM, n: int, inputs: Inputs) -> Call:
    """The computation as one graph for inputs of these shapes.

    Python lets go of its lock at every torch operation and may wait for it again after each; a graph does so once. Its
    weights are inputs too, so that a model of the same shapes needs no graph of its own: to trace keeps the lock while
    plays wait for it. The caller compares it with `eager` before relying on it.
    """
    weights = _weights(model)
    key = (model.config, n, _shapes(weights.values()), _shapes(inputs.tensors()[:_TABLES]), inputs.wide is None)
    with _lock:
        graph = _graphs.get(key)
        if graph is None:
            while len(_graphs) >= _KEPT:
                _graphs.pop(next(iter(_graphs)))
            graph = _graphs[key] = _trace(model, n, weights, inputs)

    @torch.inference_mode()
    def call(inputs: Inputs) -> Ranking:
        return Ranking(*graph(*weights.values(), *inputs.tensors()))

    return call


_TABLES = 5 + len(TrackSide._fields) + len(UserSide._fields)  # what is behind them differs in number from call to call
_KEPT = 12  # graphs
_graphs: dict[Hashable, Callable[..., tuple[Tensor, ...]]] = {}
_lock = threading.Lock()


def _weights(model: MSAM) -> dict[str, Tensor]:
    """All that the computation reads of a model, by name: not U, whose rows are inputs."""
    found = chain(model.named_parameters(), model.named_buffers())
    return {name: tensor for name, tensor in found if not name.startswith("u.")}


def _shapes(tensors: Iterable[Tensor]) -> Hashable:
    return tuple((tensor.dtype, tensor.shape) for tensor in tensors)


def _trace(model: MSAM, n: int, weights: dict[str, Tensor], inputs: Inputs) -> Callable[..., tuple[Tensor, ...]]:
    shell = copy.deepcopy(model, {id(model.u): nn.Module()})  # its weights give way to inputs
    ranked = Ranked(shell, n).eval()

    def run(*tensors: Tensor) -> Ranking:
        for name, tensor in zip(weights, tensors, strict=False):
            path, _, leaf = name.rpartition(".")
            module = shell.get_submodule(path)
            delattr(module, leaf)  # torch.func.functional_call does this, but not while it is traced
            setattr(module, leaf, tensor)
        found: Ranking = ranked(*tensors[len(weights) :])
        return found

    with warnings.catch_warnings(), torch.inference_mode():
        # trace is to give way to compile, which needs a C++ compiler on the machine that serves; what the tracer
        # cannot be sure of, the caller's comparison tells.
        warnings.simplefilter("ignore")
        graph: Any = torch.jit.trace(  # type: ignore[no-untyped-call]
            run, (*weights.values(), *inputs.tensors()), check_trace=False
        )
    graph._torchdynamo_inline = None  # the function that was traced: it would keep the shell and these weights
    return graph  # type: ignore[no-any-return]
