"""A small real service to test with: described tracks, plays, a fitted SiMF and a trained model on disk."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from msam import checkpoint
from msam.config import MSAMConfig, TrainConfig
from msam.golden import Golden
from msam.network.inputs import TrackInputs, UserInputs
from msam.simf import SiMF, SiMFConfig, SiMFState, TrackRow, relations_from_plays
from msam.training import Dataset, train
from streams.catalogue import Catalogue
from streams.content import contents
from streams.counted import counts_of
from streams.records import ModelVersion, TrackFeature, TrackMetadata
from streams.served import SIMF

torch.set_num_threads(1)

# With 8 hidden units the place in a batch would change the last bit of a product (docs/decisions/0004-batch-shapes.md).
CONFIG = MSAMConfig(
    dim=8, window=6, hidden=16, text_dim=12, max_words=5, max_user_words=2, audio_groups=7, audio_width=4
)
TRACKS, ARTISTS, USERS = 40, 8, 6


def metadata(track: int | str, artist: str | None, seed: int = 0, labels: tuple[str, ...] = ()) -> TrackFeature:
    """The metadata part of a track with three words."""
    name = f"t{track}" if isinstance(track, int) else track
    rng = np.random.default_rng([seed, len(name), *name.encode()])
    vectors = rng.standard_normal((3, CONFIG.text_dim)).astype("<f2").tobytes()
    described = TrackMetadata(name, f"Title {name}", artist, artist, labels=labels)
    words = (f"{name}-one", f"{name}-two", f"{name}-three")
    return TrackFeature(name, "metadata", described, words, (0, 1, 2), vectors, "encoder")


def sound(track: int | str, seed: int = 0) -> TrackFeature:
    """The audio part of a track."""
    name = f"t{track}" if isinstance(track, int) else track
    rng = np.random.default_rng([seed + 1, len(name), *name.encode()])
    described = rng.standard_normal((CONFIG.audio_groups, CONFIG.audio_width)).astype("<f4").tobytes()
    return TrackFeature(name, "audio", audio=described, audio_version="a")


def features() -> list[TrackFeature]:
    """What `track-features` holds: every track described, two of three heard."""
    found = [metadata(t, f"artist{t % ARTISTS}", labels=(f"label{t % 3}",)) for t in range(TRACKS)]
    return found + [sound(t) for t in range(TRACKS) if t % 3]


def catalogue() -> Catalogue:
    """A fresh catalogue that has read `features`."""
    made = Catalogue()
    for offset, feature in enumerate(features()):
        made.fold(feature.key, feature, offset)
    return made


def plays(count: int = 40) -> list[tuple[str, str, float]]:
    """Users who go from a track to a fixed next one four times out of five; t36 to t39 are never played."""
    rng = np.random.default_rng(3)
    following = rng.permutation(TRACKS - 4)
    log = []
    for user in range(USERS):
        at = int(rng.integers(TRACKS - 4))
        for step in range(count):
            log.append((f"u{user}", f"t{at}", 1000.0 * user + step))
            at = int(following[at]) if rng.random() < 0.8 else int(rng.integers(TRACKS - 4))
    return log


def version_of(path: Path) -> ModelVersion:
    """The announcement of a stored model."""
    manifest = checkpoint.read_manifest(path)
    weights = str(manifest["weights"]["sha256"])
    return ModelVersion(str(manifest["version"]), uri=path.resolve().as_uri(), sha256=weights, created_at=time.time())


@dataclass(frozen=True)
class Made:
    """A stored model and what it was made from."""

    path: Path
    simf: SiMFState
    data: Dataset

    @property
    def version(self) -> ModelVersion:
        """Its announcement."""
        return version_of(self.path)


def fit_simf(log: list[tuple[str, str, float]], known: Catalogue) -> SiMFState:
    """SiMF over the plays and what is known of the tracks."""
    counts = Counter((user, track) for user, track, _ in log)
    rows = [
        TrackRow(t.track_id, t.artist_id, None, t.metadata.labels if t.metadata else ()) for t in known.tracks.values()
    ]
    relations = relations_from_plays(((u, t, float(n)) for (u, t), n in counts.items()), rows)
    return SiMF(SiMFConfig(dim=CONFIG.dim, max_sweeps=4)).fit(relations)


@cache
def made(epochs: int = 6, seed: int = 0) -> Made:
    """Train once a process; the files are removed when it ends."""
    log, known = plays(), catalogue()
    simf = fit_simf(log, known)
    ids = list(dict.fromkeys(track for _, track, _ in log))
    users = sorted({user for user, _, _ in log})
    inputs = TrackInputs.build(contents([known.get(track) for track in ids], simf), CONFIG)
    artists = [known.get(track).artist_id for track in ids]
    data = Dataset.build(ids, inputs, users, UserInputs.build([None] * len(users), CONFIG), log, artists, artists)
    trained = train(data, CONFIG, TrainConfig(epochs=epochs, batch=30, learning_rate=1e-2, patience=epochs, seed=seed))
    assert trained.model.wide_head is not None
    with torch.random.fork_rng(devices=[]), torch.no_grad():  # so few plays teach it nothing, and then it is silent
        torch.manual_seed(5)
        trained.model.wide_head.net[-1].weight.normal_(0.0, 0.1)
    folder = Path(tempfile.mkdtemp(prefix="msam-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    arrays = {f"{SIMF}{name}": array for name, array in simf.to_arrays().items()}
    arrays |= counts_of(CONFIG.counts, [(*play, 0, offset) for offset, play in enumerate(log)], known)
    golden = Golden.pick(data, CONFIG.window, wide_inputs=CONFIG.wide_inputs)
    extra = {"catalogue_version": known.version}
    path = checkpoint.save(folder, trained.model, trained.track_ids, golden, arrays=arrays, extra=extra)
    return Made(path, simf, data)
