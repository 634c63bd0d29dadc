"""SiMF: similarity-constrained matrix factorisation (paper Sec. 3, Eq. 6-10)."""

from msam.simf.config import SiMFConfig, SiMFConfigError
from msam.simf.relations import Relations, RelationsError, TrackRow, matrix_from_counts, relations_from_plays
from msam.simf.solver import SiMF
from msam.simf.start import links_of
from msam.simf.state import SiMFState
from msam.simf.warm_start import warm_start

__all__ = [
    "Relations",
    "RelationsError",
    "SiMF",
    "SiMFConfig",
    "SiMFConfigError",
    "SiMFState",
    "TrackRow",
    "links_of",
    "matrix_from_counts",
    "relations_from_plays",
    "warm_start",
]
