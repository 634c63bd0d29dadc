"""Statistics over time, brought to about unit scale by fixed constants."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Values = dict[str, float]

PERCENTILES = (10, 50, 90)


def summary(name: str, values: Floats, centre: float, scale: float) -> Values:
    """mean, std and percentiles of a series [T] as (x - centre) / scale, std as 2 std / scale; an empty series is 0."""
    keys = ["mean", *(f"p{p}" for p in PERCENTILES)]
    if values.size == 0:
        return {f"{name}_{key}": 0.0 for key in [*keys, "std"]}
    levels = (np.array([values.mean(), *np.percentile(values, PERCENTILES)]) - centre) / scale
    found = {f"{name}_{key}": float(level) for key, level in zip(keys, levels, strict=True)}
    return found | {f"{name}_std": 2 * float(values.std()) / scale}


def rows(name: str, values: Floats, centre: float | Floats, scale: float | Floats) -> Values:
    """One named value per row: (values - centre) / scale, for a vector [R]."""
    scaled = (values - centre) / scale
    return {f"{name}_{index}": float(value) for index, value in enumerate(scaled)}
