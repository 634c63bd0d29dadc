"""Relations in CSV files, and a fit in a folder that goes on where it stopped."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from msam.simf.alternation import Progress, converged
from msam.simf.config import SiMFConfig
from msam.simf.relations import Relations, RelationsError, matrix_from_counts
from msam.simf.solver import SiMF
from msam.simf.state import SiMFState

STATE = "simf.safetensors"
Pair = tuple[str, str]
Links = dict[Pair, float]


def read_links(path: Path) -> Links:
    """(first id, second id) -> value of a CSV file with a header and two or three columns; repeated pairs add up.

    The third column is the value, 1 where there is none. RelationsError for anything else.
    """
    links: defaultdict[Pair, float] = defaultdict(float)
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            reader = csv.reader(lines)
            width = len(next(reader, ()))
            if width not in (2, 3):
                raise RelationsError(f"{path}: a relation has two columns of ids, and maybe one of values")
            for row in reader:
                if len(row) != width or not row[0] or not row[1]:
                    raise RelationsError(f"{path} line {reader.line_num}: expected {width} filled columns")
                links[row[0], row[1]] += float(row[2]) if width == 3 else 1.0
    except ValueError as error:
        raise RelationsError(f"{path} line {reader.line_num}: {error}") from error
    except OSError as error:
        raise RelationsError(f"cannot read {path}: {error.strerror}") from error
    return dict(links)


def read_relations(
    relations: Mapping[Pair, Path], networks: Sequence[tuple[str, Path]] = (), log: bool = False
) -> Relations:
    """Relations by their two types, and networks by their type, made symmetric; `log`: log(1 + value) of relations.

    Ids are sorted, so the order of lines and of files of relations does not matter. RelationsError.
    """
    links = {pair: read_links(path) for pair, path in sorted(relations.items())}
    nets = [(name, read_links(path)) for name, path in networks]
    ids: defaultdict[str, set[str]] = defaultdict(set)
    for (i, j), found in [*links.items(), *(((name, name), net) for name, net in nets)]:
        ids[i] |= {a for a, _ in found}
        ids[j] |= {b for _, b in found}
    types = {name: sorted(ids[name]) for name in sorted(ids)}
    matrices = {(i, j): matrix_from_counts(found, types[i], types[j]) for (i, j), found in links.items()}
    for matrix in matrices.values() if log else ():
        matrix.data = np.log1p(matrix.data)
    graphs: defaultdict[str, list[object]] = defaultdict(list)
    for name, net in nets:
        both = {(a, b): max(net.get((a, b), 0.0), net.get((b, a), 0.0)) for x, y in net for a, b in ((x, y), (y, x))}
        graphs[name].append(matrix_from_counts(both, types[name], types[name]))
    return Relations(types, matrices, dict(graphs))


def fit_in(folder: Path, relations: Relations, config: SiMFConfig, progress: Progress | None = None) -> SiMFState:
    """Fit, storing the state in `folder` whenever S is about to be rebuilt; goes on with what an earlier call left.

    A fit that was stopped ends with the bits of one that was not; `max_sweeps` may grow from call to call.
    RelationsError where the folder holds a fit of other relations or settings.
    """
    mark, path = _fingerprint(relations, config), folder / STATE
    state = _load(path, mark)
    while state is None or not done(state, config):
        step = (
            (len(state.history) // config.refresh_every + 1) * config.refresh_every if state else config.refresh_every
        )
        part = replace(config, max_sweeps=min(step, config.max_sweeps))
        state = SiMF(part).fit(relations, state, progress, go_on=state is not None)
        state = replace(state, config=config)
        folder.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.tmp")
        save_file(state.to_arrays(), beside, {"relations": mark})
        beside.replace(path)
    return state


def done(state: SiMFState, config: SiMFConfig) -> bool:
    """Whether a fit has converged or had its sweeps."""
    return len(state.history) >= config.max_sweeps or converged(state.history, state.refreshes, config.tol)


def load_state(path: Path) -> SiMFState:
    """The state in a folder of `fit_in`. RelationsError."""
    state = _load(path / STATE, None)
    if state is None:
        raise RelationsError(f"{path} holds no fit")
    return state


def _load(path: Path, mark: str | None) -> SiMFState | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, "numpy") as stored:
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
            own = (stored.metadata() or {}).get("relations")
    except SafetensorError as error:
        raise RelationsError(f"{path} is not a stored fit: {error}") from error
    if mark is not None and own != mark:
        raise RelationsError(f"{path} is a fit of other relations or settings; choose another folder")
    return SiMFState.from_arrays(arrays)


def _fingerprint(relations: Relations, config: SiMFConfig) -> str:
    """Of everything that a fit depends on but the number of its sweeps."""
    settings = {name: value for name, value in config.to_dict().items() if name != "max_sweeps"}
    types = {name: list(ids) for name, ids in sorted(relations.types.items())}
    digest = hashlib.sha256(json.dumps([settings, types], sort_keys=True).encode())
    graphs = [(f"{name} {n}", m) for name, nets in sorted(relations.networks.items()) for n, m in enumerate(nets)]
    for name, matrix in [*((f"{i}-{j}", m) for (i, j), m in sorted(relations.relations.items())), *graphs]:
        digest.update(name.encode())
        for array in (matrix.indptr, matrix.indices, matrix.data):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
