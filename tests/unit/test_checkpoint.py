"""Model directories: what was saved comes back, and anything wrong is refused with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from msam.checkpoint import MANIFEST, WEIGHTS, CheckpointError, load, save
from msam.config import MSAMConfig, TrainConfig
from msam.golden import Golden
from msam.network import MSAM
from msam.sequences import Dataset
from msam.training import Trained, train
from tests.unit.network_data import PUBLISHED, SMALL, chain

Case = tuple[Dataset, Trained]


@pytest.fixture(scope="module", params=[SMALL, PUBLISHED], ids=["extended", "published"])
def case(request: pytest.FixtureRequest) -> Case:
    config: MSAMConfig = request.param
    data = chain(config, plays=30)
    return data, train(data, config, TrainConfig(epochs=1, batch=30, holdout=0.2))


@pytest.fixture
def saved(case: Case, tmp_path: Path) -> Path:
    data, trained = case
    return save(
        tmp_path / "models",
        trained.model,
        trained.track_ids,
        Golden.pick(data, trained.model.config.window),
        arrays={"simf/factor": np.arange(6, dtype=np.float64).reshape(2, 3)},
        extra={"simf": ["a", "b"]},
        metrics={"hr@20": 0.5},
        parent="earlier",
        created_at=1_700_000_000.0,
    )


def test_what_was_saved_comes_back(case: Case, saved: Path) -> None:
    _, trained = case
    loaded = load(saved)
    assert saved.name == loaded.version and loaded.version.startswith("20231114T221320Z-")
    assert loaded.config == trained.model.config and loaded.track_ids == trained.track_ids
    expected = trained.model.state_dict()
    assert set(expected) == set(loaded.model.state_dict())
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.model.state_dict().items())
    assert not loaded.model.training
    assert loaded.arrays["simf/factor"].tolist() == [[0, 1, 2], [3, 4, 5]] and loaded.extra == {"simf": ["a", "b"]}
    assert loaded.metrics == {"hr@20": 0.5} and loaded.manifest["parent"] == "earlier"
    assert len(loaded.manifest["golden"]["answers"]) == 4
    assert sorted(path.name for path in saved.parent.iterdir()) == [saved.name], "nothing is left beside it"
    assert sorted(path.name for path in saved.iterdir()) == sorted([WEIGHTS, MANIFEST])


def test_a_version_is_never_overwritten(case: Case, saved: Path) -> None:
    data, trained = case
    loaded = load(saved)
    with pytest.raises(CheckpointError, match="never overwritten"):
        save(
            saved.parent,
            trained.model,
            trained.track_ids,
            Golden.pick(data, loaded.config.window),
            arrays=loaded.arrays,
            created_at=1_700_000_000.0,
        )


def edit_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((path / MANIFEST).read_text())
    change(manifest)
    (path / MANIFEST).write_text(json.dumps(manifest))


def edit_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], object], *, rehash: bool = True) -> None:
    """Change tensors, and by default make the manifest's sha256 agree, so that later checks are reached."""
    import hashlib

    data = (path / WEIGHTS).read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    tensors = safetensors.torch.load(data)
    change(tensors)
    data = safetensors.torch.save(tensors, metadata=header["__metadata__"])
    (path / WEIGHTS).write_bytes(data)
    if rehash:
        edit_manifest(path, lambda manifest: manifest["weights"].update(sha256=hashlib.sha256(data).hexdigest()))


def test_a_changed_byte_and_a_truncated_file_are_refused(saved: Path) -> None:
    whole = (saved / WEIGHTS).read_bytes()
    for broken in (whole[:-100], whole[:50], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        (saved / WEIGHTS).write_bytes(broken)
        with pytest.raises(CheckpointError, match="sha256"):
            load(saved)
    (saved / WEIGHTS).write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="not a readable weights file"):
        load(saved, verify=False)


def test_weights_that_are_not_finite_are_refused(saved: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["network/series.weight"][0, 0] = torch.nan

    edit_weights(saved, spoil)
    for verify in (True, False):
        with pytest.raises(CheckpointError, match=r"network/series\.weight is not finite"):
            load(saved, verify=verify)


def test_weights_that_compute_something_else_are_refused(saved: Path) -> None:
    edit_weights(saved, lambda tensors: tensors["network/plain_lstm.lstm.bias_ih_l0"].add_(0.5))
    with pytest.raises(CheckpointError, match="golden window"):
        load(saved)
    assert isinstance(load(saved, verify=False).model, MSAM)


def test_weights_of_another_shape_or_without_a_tensor_are_refused(saved: Path) -> None:
    edit_weights(saved, lambda tensors: tensors.pop("network/score.weight"))
    with pytest.raises(CheckpointError, match=r"does not fit the configuration[\s\S]*score\.weight"):
        load(saved)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m["track_ids"].reverse(), "not those of the weights"),
        (lambda m: m["track_ids"].pop(), "not those of the weights"),
        (lambda m: m["config"].update(dim=13), "not those of the weights"),
        (lambda m: m["config"].update(dim=-1), "dim must be"),
        (lambda m: m["config"].update(depth=1), "unknown settings depth"),
        (lambda m: m.update(format=99), "format 1"),
        (lambda m: m.pop("weights"), "not a complete manifest"),
        (lambda m: m.pop("golden"), "not a complete manifest"),
        (lambda m: m.update(track_ids=None), "not a complete manifest"),
        (lambda m: m["golden"]["answers"].pop(), "golden"),
        (lambda m: m["golden"]["answers"][0].pop(), "golden"),
    ],
)
def test_a_manifest_that_does_not_match_is_refused(
    saved: Path, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    edit_manifest(saved, change)
    with pytest.raises(CheckpointError, match=reason):
        load(saved)


def test_missing_and_unreadable_files_are_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot read"):
        load(saved.parent / "nothing")
    copy = shutil.copytree(saved, saved.parent / "copy")
    (copy / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="cannot read"):
        load(copy)
    (saved / MANIFEST).write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        load(saved)


def test_what_is_not_sound_is_not_saved(case: Case, tmp_path: Path) -> None:
    data, trained = case
    golden = Golden.pick(data, trained.model.config.window)
    with pytest.raises(CheckpointError, match="track ids for"):
        save(tmp_path, trained.model, trained.track_ids[1:], golden)
    with pytest.raises(CheckpointError, match="extra/bad is not finite"):
        save(tmp_path, trained.model, trained.track_ids, golden, arrays={"bad": np.array([np.nan])})
    with pytest.raises(CheckpointError, match="cannot be written as JSON"):
        save(tmp_path, trained.model, trained.track_ids, golden, metrics={"hr": float("nan")})
    assert not list(tmp_path.iterdir())
