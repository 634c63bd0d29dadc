"""The solver: what a caller uses."""

from __future__ import annotations

from msam.errors import MethodError
from msam.simf.alternation import Alternation, Features, Progress
from msam.simf.config import SiMFConfig
from msam.simf.problem import prepare
from msam.simf.relations import Relations
from msam.simf.start import starting_factors
from msam.simf.state import SiMFState


class SiMF:
    """Similarity-constrained matrix factorisation.

    Minimises O = sum ||R_ij - H_i B_ij H_j^T||^2 + sum w tr(H^T L H) + beta sum tr(H^T L* H)
    + lambda (sum ||H||^2 + sum ||B||^2) + tau sum w log w (Eq. 9-10) over H >= 0, signed B and w on the simplex.
    Relations are scaled as `prepare` says. Equal inputs, seed and BLAS threads give equal bits.

    Args:
        config: settings; the defaults when None.
    """

    def __init__(self, config: SiMFConfig | None = None) -> None:
        self.config = config or SiMFConfig()

    def fit(
        self,
        relations: Relations,
        init: SiMFState | None = None,
        progress: Progress | None = None,
        features: Features | None = None,
        go_on: bool = False,
    ) -> SiMFState:
        """Alternate H, B, w (and S at each refresh) until O falls by less than `tol`.

        Args:
            relations: what to factorise.
            init: an earlier state to go on from: known ids keep their rows, new ones are warm started, lost ones go.
            progress: called with (sweep, O) after each sweep, sweeps counted from 1.
            features: type -> dense matrices [n, m] whose cosine neighbours join S; a row of zeros or NaN = unknown.
            go_on: `init` is this very fit, stopped early: its sweeps count. Stopped where S is rebuilt anyway (after a
                multiple of `refresh_every` sweeps), it ends with the bits of a fit that was not stopped.

        Raises:
            MethodError: when there is nothing to factorise, or `init` has another dim or, to go on, other objects.
        """
        problem = prepare(relations, self.config)
        if not problem.links:
            raise MethodError("nothing to factorise: every relation is empty")
        types = {name: tuple(relations.types[name]) for name in sorted(relations.types)}
        if go_on and (init is None or init.types != types):
            raise MethodError("cannot go on: the state is of other objects")
        factors = starting_factors(relations, self.config, init)
        run = Alternation(problem, self.config, factors, features or {})
        earlier = (init.history, init.refreshes) if go_on and init is not None else ((), ())
        history, refreshes = run.sweep_all(progress, *earlier)
        return SiMFState(
            config=self.config,
            types=types,
            factors=run.factors,
            cores=run.cores,
            grams=run.grams(),
            scales={(link.i, link.j): link.scale for link in problem.links},
            weights=run.weights,
            network_scales=problem.network_scales,
            spreads={name: run.spreads.get(name, 0.0) for name in problem.sizes},
            history=tuple(history),
            refreshes=tuple(refreshes),
        )
