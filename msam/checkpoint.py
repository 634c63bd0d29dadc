"""A model on disk: `weights.safetensors` and `manifest.json` in a directory that is renamed into place. No pickle."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from msam.config import MSAMConfig
from msam.errors import MethodError
from msam.golden import TOLERANCE, Golden
from msam.network.model import MSAM

FORMAT = 1
WEIGHTS, MANIFEST = "weights.safetensors", "manifest.json"
NETWORK, EXTRA, GOLDEN = "network/", "extra/", "golden/"


class CheckpointError(MethodError):
    """A model directory cannot be written, or what is in it is not a whole, sound model."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model: ready for inference, with the ids of its rows and the caller's own arrays."""

    version: str
    model: MSAM
    config: MSAMConfig
    track_ids: tuple[str, ...]
    arrays: dict[str, NDArray[Any]]
    extra: dict[str, Any]
    metrics: dict[str, float]
    manifest: dict[str, Any]


def _ids_digest(config: Mapping[str, Any], track_ids: Sequence[str]) -> str:
    """Ties the manifest to the weights: the same rows under other ids are another model."""
    return hashlib.sha256(json.dumps([config, list(track_ids)], sort_keys=True).encode()).hexdigest()


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _publish(store: Path, version: str, weights: bytes, manifest: bytes) -> Path:
    """Write both files in a directory beside, sync them, and give it its name in one step."""
    target = store / version
    store.mkdir(parents=True, exist_ok=True)
    if target.exists():
        raise CheckpointError(f"{target} exists; versions are never overwritten")
    beside = Path(tempfile.mkdtemp(prefix=f".{version}.", dir=store))
    try:
        beside.chmod(0o755)  # mkdtemp makes it private; workers may run as another user
        _write(beside / WEIGHTS, weights)
        _write(beside / MANIFEST, manifest)
        _sync_directory(beside)
        beside.rename(target)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise CheckpointError(f"cannot write {target}: {error}") from error
    _sync_directory(store)
    return target


def sweep(store: Path, older_than: float = 3600.0) -> int:
    """Remove what a killed writer left beside the versions, once it is `older_than` seconds old; how many it were."""
    if not store.is_dir():
        return 0
    left = [path for path in store.glob(".*") if path.is_dir() and time.time() - path.stat().st_mtime > older_than]
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return len(left)


def save(
    store: Path,
    model: MSAM,
    track_ids: Sequence[str],
    golden: Golden,
    *,
    arrays: Mapping[str, NDArray[Any]] | None = None,
    extra: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    parent: str | None = None,
    created_at: float | None = None,
) -> Path:
    """Write a finished model as a new version under `store` and return its directory, `store/<version>`.

    track_ids: ids of the trained rows. arrays, extra: the caller's own numpy arrays and JSON values (SiMF factors and
    their ids, say), handed back by `load`. The version is the UTC time and the start of the weights' sha256.
    """
    if len(track_ids) != model.row_count:
        raise CheckpointError(f"{len(track_ids)} track ids for {model.row_count} rows")
    model.eval()
    config = model.config.to_dict()
    tensors = {NETWORK + name: tensor for name, tensor in model.state_dict().items()}
    tensors |= {EXTRA + name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in (arrays or {}).items()}
    tensors |= {GOLDEN + name: tensor for name, tensor in golden.arrays().items()}
    _refuse_non_finite(tensors)
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    weights = safetensors.torch.save(whole, metadata={"ids": _ids_digest(config, track_ids)})
    digest = hashlib.sha256(weights).hexdigest()
    created = time.time() if created_at is None else created_at
    version = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(created))}-{digest[:8]}"
    manifest = {
        "format": FORMAT,
        "version": version,
        "parent": parent,
        "created_at": created,
        "config": config,
        "metrics": dict(metrics or {}),
        "weights": {"file": WEIGHTS, "sha256": digest, "bytes": len(weights)},
        "golden": {
            "tolerance": TOLERANCE,
            "track_ids": list(golden.track_ids),
            "answers": golden.answers(model, track_ids),
        },
        "extra": dict(extra or {}),
        "track_ids": list(track_ids),
    }
    try:
        text = json.dumps(manifest, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the manifest cannot be written as JSON: {error}") from error
    return _publish(store, version, weights, text.encode())


def _refuse_non_finite(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{name} is not finite")


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a model directory; raises CheckpointError when there is none that this code understands."""
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(f"{file} is not a manifest of format {FORMAT}")
    return manifest


def load(path: Path, verify: bool = True) -> Checkpoint:
    """Load a model directory. Raises CheckpointError saying what is wrong; never a half-loaded model.

    Shapes and finiteness are always checked; `verify` adds the sha256 of the weights and the golden answers.
    """
    manifest = read_manifest(path)
    try:
        return _load(path, manifest, verify)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path / MANIFEST} is not a complete manifest: {error!r}") from error
    except MethodError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: {error}") from error


def _read_weights(path: Path, manifest: Mapping[str, Any], verify: bool) -> tuple[dict[str, Tensor], str]:
    """All tensors of the weights file and the digest of the ids that it was written with."""
    file = path / WEIGHTS
    try:
        data = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from error
    if verify:
        digest = hashlib.sha256(data).hexdigest()
        if digest != manifest["weights"]["sha256"]:
            raise CheckpointError(f"{file}: sha256 {digest} is not the manifest's {manifest['weights']['sha256']}")
    try:
        tensors = safetensors.torch.load(data)
        length = int.from_bytes(data[:8], "little")
        ids = json.loads(data[8 : 8 + length])["__metadata__"]["ids"]
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{file} is not a readable weights file: {error}") from error
    return tensors, ids


def _load(path: Path, manifest: dict[str, Any], verify: bool) -> Checkpoint:
    config = MSAMConfig.from_dict(manifest["config"])
    track_ids = tuple(str(track) for track in manifest["track_ids"])
    tensors, ids = _read_weights(path, manifest, verify)
    if ids != _ids_digest(manifest["config"], track_ids):  # as written: a later version may have more fields
        raise CheckpointError(f"{path}: the manifest's configuration or track ids are not those of the weights")
    _refuse_non_finite(tensors)
    parts = {
        prefix: {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        for prefix in (NETWORK, EXTRA, GOLDEN)
    }
    model = MSAM(config, len(track_ids))
    try:
        model.load_state_dict(parts[NETWORK])
    except RuntimeError as error:
        raise CheckpointError(f"{path / WEIGHTS} does not fit the configuration: {error}") from error
    model.eval().requires_grad_(False)
    if verify:
        golden = Golden.from_arrays(manifest["golden"]["track_ids"], parts[GOLDEN])
        difference = golden.difference(model, track_ids, manifest["golden"]["answers"])
        if difference is not None:
            raise CheckpointError(f"{path}: {difference}")
    return Checkpoint(
        manifest["version"],
        model,
        config,
        track_ids,
        {name: tensor.numpy() for name, tensor in parts[EXTRA].items()},
        manifest["extra"],
        manifest["metrics"],
        manifest,
    )
