"""Settings of similarity-constrained matrix factorisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from msam.errors import MethodError


class SiMFConfigError(MethodError):
    """A SiMF setting is out of range."""


@dataclass(frozen=True)
class SiMFConfig:
    """Hyper-parameters of SiMF (Eq. 6-10).

    Attributes:
        dim: columns d of every factor matrix H_i.
        beta: weight of the similarity regulariser O_2 (Eq. 10); 0 builds no similarity at all.
        ridge: lambda of `lambda (sum |H_i|^2 + sum |B_ij|^2)`, which fixes the scale of H against B.
        tau: temperature of the entropy of the network weights; large = uniform weights.
        learn_weights: solve for the network weights w (the paper's novelty); False keeps them uniform.
        neighbours: k_s, similarity neighbours kept per object before symmetrising.
        similarity: weight of each similarity source: "relations" (profiles), "factors" (H itself) and "features"
            (every matrix given to `fit`). A source that is absent or 0 is not built.
        most_compared: objects up to which a type has neighbours by factors, whose cost grows with the square; a type
            with more has those of its other sources.
        max_degree: columns of a relation profile with more links than this are left out of the profile similarity,
            whose cost grows with the square of the links of a column (hubs say little about likeness).
        degree_power: power a of the degree scaling `R / (row sum * column sum)^a`; 0 turns it off.
        relation_weights: share of the data term per relation "row-column", as "track-artist"; 1 when absent.
        mask_missing: **Extension**. An object without any link in a relation is unknown to it rather than a row of
            zeros. Off, every zero counts, as Eq. 9 is printed.
        inner: passes of the non-negative solve over each H_i per sweep.
        refresh_every: sweeps between refreshes of S when "factors" is one of its sources.
        tol: stop when the relative decrease of O in a sweep is below this.
        max_sweeps: hard limit of sweeps.
        seed: seed of the random start.
    """

    dim: int = 100
    beta: float = 0.01
    ridge: float = 1e-4
    tau: float = 0.1
    learn_weights: bool = True
    neighbours: int = 10
    similarity: Mapping[str, float] = field(default_factory=lambda: {"relations": 1.0, "factors": 1.0, "features": 1.0})
    most_compared: int = 50_000
    max_degree: int = 500
    degree_power: float = 0.5
    relation_weights: Mapping[str, float] = field(default_factory=dict)
    mask_missing: bool = True
    inner: int = 2
    refresh_every: int = 10
    tol: float = 1e-4
    max_sweeps: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("dim", "neighbours", "inner", "refresh_every", "max_sweeps", "max_degree", "most_compared"):
            if getattr(self, name) < 1:
                raise SiMFConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("ridge", "tau", "tol"):
            if not getattr(self, name) > 0:
                raise SiMFConfigError(f"{name} must be positive, not {getattr(self, name)}")
        if not 0 <= self.degree_power <= 1 or not self.beta >= 0 or self.seed < 0:
            raise SiMFConfigError("degree_power must lie in [0, 1]; beta and seed must not be negative")
        if unknown := set(self.similarity) - {"relations", "factors", "features"}:
            raise SiMFConfigError(f"unknown similarity source: {', '.join(sorted(unknown))}")
        if any(not v >= 0 for v in (*self.similarity.values(), *self.relation_weights.values())):
            raise SiMFConfigError("weights of similarity sources and relations must not be negative")

    @classmethod
    def dfmf(cls, **changes: Any) -> Self:
        """Plain data fusion by matrix factorisation: no similarity, fixed uniform network weights."""
        return replace(cls(beta=0.0, learn_weights=False, similarity={}), **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values, the inverse of `SiMFConfig(**values)`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}
