"""From what the counts propose to what the wide head scores."""

from __future__ import annotations

import numpy as np
import torch

from msam.counts import Candidates, KeyIndex
from msam.network.wide import CHUNK, WideInputs


def inputs_of(found: Candidates, index: KeyIndex) -> WideInputs:
    """The candidates by row of a catalogue whose tracks are in `index`; features are not copied."""
    count = int(found.starts[-1])
    whole = min(-(-count // CHUNK) * CHUNK, len(found.keys))
    window = np.zeros(whole, np.int64)
    window[:count] = np.repeat(np.arange(len(found.starts) - 1), np.diff(found.starts))
    rows = index.rows(found.keys[:whole])  # of the key that stands behind the last candidate there is none
    return WideInputs.of(*map(torch.from_numpy, (window, rows, found.features[:whole])))
