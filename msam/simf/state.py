"""What a fit leaves behind: enough to resume it, to warm start new objects and to be stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from msam.errors import MethodError
from msam.simf.config import SiMFConfig
from msam.simf.problem import Scale

F64 = NDArray[np.float64]
Pair = tuple[str, str]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class SiMFState:
    """Factors and everything a warm start needs; treat the arrays as read-only.

    Attributes:
        config: settings of the fit.
        types: type -> ids in row order.
        factors: type -> H_i, float64 [n_i, d], non-negative; zero rows for objects without any link.
        cores: (i, j) -> B_ij, float64 [d, d], signed.
        grams: (i, j) -> [2, d, d]: B G_j B^T for a row of i and B^T G_i B for a row of j, the zeros of a relation row.
        scales: (i, j) -> how raw links are scaled.
        weights: type -> w of its networks (Eq. 9), on the simplex.
        network_scales: type -> 1 / ||L||_F of each network.
        spreads: type -> beta / ||L*||_F of its similarity graph; 0 without one.
        history: O after each sweep.
        refreshes: sweeps before which S was rebuilt; O falls between them.
    """

    config: SiMFConfig
    types: Mapping[str, tuple[str, ...]]
    factors: Mapping[str, F64]
    cores: Mapping[Pair, F64]
    grams: Mapping[Pair, F64]
    scales: Mapping[Pair, Scale]
    weights: Mapping[str, F64]
    network_scales: Mapping[str, F64]
    spreads: Mapping[str, float]
    history: tuple[float, ...]
    refreshes: tuple[int, ...]

    @cached_property
    def positions(self) -> dict[str, dict[str, int]]:
        """Type -> id -> row."""
        return {name: {key: n for n, key in enumerate(ids)} for name, ids in self.types.items()}

    @cached_property
    def means(self) -> dict[str, F64]:
        """Type -> mean factor [d]; zeros for a type without objects."""
        return {name: h.mean(axis=0) if len(h) else np.zeros(h.shape[1]) for name, h in self.factors.items()}

    def without(self, name: str) -> Self:
        """Less a type of which nothing is asked later; what is left neither grows with its objects nor names them."""

        def other(pairs: Mapping[Pair, T]) -> dict[Pair, T]:
            return {pair: value for pair, value in pairs.items() if name not in pair}

        def rest(types: Mapping[str, T]) -> dict[str, T]:
            return {key: value for key, value in types.items() if key != name}

        return replace(
            self,
            types=rest(self.types),
            factors=rest(self.factors),
            cores=other(self.cores),
            grams=other(self.grams),
            scales=other(self.scales),
            weights=rest(self.weights),
            network_scales=rest(self.network_scales),
            spreads=rest(self.spreads),
        )

    @cached_property
    def version(self) -> str:
        """Content hash: equal for equal states, whatever their history on disk."""
        digest = hashlib.sha256()
        for name, array in sorted(self.to_arrays().items()):
            digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return f"simf-{digest.hexdigest()[:16]}"

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Flat name -> array, ready for safetensors; ids and settings are UTF-8 JSON in uint8 arrays."""
        meta = {
            "config": self.config.to_dict(),
            "relations": [list(pair) for pair in sorted(self.cores)],
            "factors": {"/".join(pair): scale.factor for pair, scale in sorted(self.scales.items())},
            "spreads": dict(sorted(self.spreads.items())),
            "history": list(self.history),
            "refreshes": list(self.refreshes),
        }
        arrays: dict[str, NDArray[Any]] = {"meta": _pack(meta)}
        for name, ids in self.types.items():
            arrays[f"ids/{name}"] = _pack(list(ids))
            arrays[f"factor/{name}"] = self.factors[name]
        for name, weights in self.weights.items():
            arrays[f"weights/{name}"] = weights
            arrays[f"network_scales/{name}"] = self.network_scales[name]
        for pair, core in self.cores.items():
            key = "/".join(pair)
            arrays[f"core/{key}"], arrays[f"gram/{key}"] = core, self.grams[pair]
            arrays[f"row_scale/{key}"], arrays[f"column_scale/{key}"] = self.scales[pair].row, self.scales[pair].column
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Inverse of `to_arrays`.

        Raises:
            MethodError: when an array is missing or malformed.
        """
        try:
            meta = _unpack(arrays["meta"])
            pairs = [(str(i), str(j)) for i, j in meta["relations"]]
            names = [name.removeprefix("ids/") for name in sorted(arrays) if name.startswith("ids/")]
            weighted = [name.removeprefix("weights/") for name in sorted(arrays) if name.startswith("weights/")]
            return cls(
                config=SiMFConfig(**meta["config"]),
                types={name: tuple(_unpack(arrays[f"ids/{name}"])) for name in names},
                factors={name: _f64(arrays[f"factor/{name}"]) for name in names},
                cores={(i, j): _f64(arrays[f"core/{i}/{j}"]) for i, j in pairs},
                grams={(i, j): _f64(arrays[f"gram/{i}/{j}"]) for i, j in pairs},
                scales={
                    (i, j): Scale(
                        _f64(arrays[f"row_scale/{i}/{j}"]),
                        _f64(arrays[f"column_scale/{i}/{j}"]),
                        float(meta["factors"][f"{i}/{j}"]),
                    )
                    for i, j in pairs
                },
                weights={name: _f64(arrays[f"weights/{name}"]) for name in weighted},
                network_scales={name: _f64(arrays[f"network_scales/{name}"]) for name in weighted},
                spreads={str(k): float(v) for k, v in meta["spreads"].items()},
                history=tuple(meta["history"]),
                refreshes=tuple(meta["refreshes"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise MethodError(f"not a stored SiMF state: {error!r}") from error


def _f64(array: Any) -> F64:
    return np.ascontiguousarray(array, dtype=np.float64)


def _pack(value: Any) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(value, sort_keys=True).encode(), dtype=np.uint8).copy()


def _unpack(array: NDArray[Any]) -> Any:
    return json.loads(np.asarray(array, dtype=np.uint8).tobytes())
