"""The recurrences in bfloat16 where the CPU multiplies it natively: they are over half of a list's cost."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from msam.network.model import MSAM


class _HalfLSTM(nn.Module):
    """An LSTM whose weights and inputs are bfloat16; sums are float32 inside and out."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.lstm = copy.deepcopy(lstm).bfloat16()

    def forward(self, series: Tensor) -> tuple[Tensor, None]:
        states, _ = self.lstm(series.bfloat16())
        return states.float(), None


def native_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 (AVX-512 BF16 or AMX)."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and "avx512_bf16" in _flags()


def _flags() -> str:
    try:
        with open("/proc/cpuinfo") as info:
            return next((line for line in info if line.startswith("flags")), "")
    except OSError:
        return ""


def half_recurrent(model: MSAM) -> MSAM:
    """A copy for inference with its LSTMs in bfloat16; everything else, the rows of U above all, stays float32."""
    half = copy.deepcopy(model).eval()
    found = [name for name, module in half.named_modules() if isinstance(module, nn.LSTM)]
    for name in found:
        parent, _, child = name.rpartition(".")
        setattr(half.get_submodule(parent), child, _HalfLSTM(cast(nn.LSTM, half.get_submodule(name))))
    return half
