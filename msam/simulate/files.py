"""Write a simulation as canonical files, with its truth beside them."""

import csv
import json
import wave
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from msam.features.audio import AUDIO_GROUPS, AUDIO_WIDTH, describe
from msam.simulate.config import SimulationConfig, SimulationError
from msam.simulate.heeding import Heeding
from msam.simulate.listening import Plays, listen
from msam.simulate.sound import RATE, clip
from msam.simulate.styles import STYLES
from msam.simulate.world import SOUND, Floats, World, make_world, year

TRUTH = "simulation.json"
README = """# Simulated data

Everything in this folder is **simulated** by `msam simulate`: no listener, artist, track or sound is real.
`plays.csv`, `tracks.csv`, `users.csv` and `audio/<track_id>.wav` belong together; `simulation.json` holds the
parameters and the truth behind them. Figures measured on it say nothing about real listeners.
"""


OnClip = Callable[[int, int], None]


def simulate(config: SimulationConfig, out: Path, on_clip: OnClip | None = None) -> dict[str, int | str]:
    """Write plays.csv, tracks.csv, users.csv, audio/, simulation.json and README.md; the counts that were written.

    The same configuration gives the same bytes. Overwrites an earlier simulation; SimulationError where `out` holds
    anything else. `on_clip(done, all)` reports progress.
    """
    _prepare(out)
    world = make_world(config)
    with_sound = _clip_tracks(config)
    described = _sound(out / "audio", world, config, with_sound, on_clip)
    heeding = Heeding.of(config, described) if config.heed else None
    plays = listen(world, config, heeding)
    _write_tables(out, world, plays)
    (out / "README.md").write_text(README, encoding="utf-8")
    # Last: its presence says that the folder is complete.
    (out / TRUTH).write_text(json.dumps(_truth(config, world, heeding, with_sound), indent=1) + "\n", encoding="utf-8")
    return {
        "out": str(out),
        "users": config.users,
        "tracks": config.tracks,
        "plays": len(plays.user),
        "clips": len(with_sound),
        "seed": config.seed,
    }


def user_id(index: int) -> str:
    """Id of a user."""
    return f"u{index:04d}"


def track_id(index: int) -> str:
    """Id of a track."""
    return f"t{index:05d}"


def _prepare(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not (out / TRUTH).is_file():
        raise SimulationError(f"{out} holds something else than a simulation; choose an empty folder")
    try:
        (out / "audio").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SimulationError(f"{out} cannot be written: {error.strerror}") from error
    for old in (out / "audio").glob("t*.wav"):
        old.unlink()


def _clip_tracks(config: SimulationConfig) -> list[int]:
    chosen = np.random.default_rng([config.seed, 4]).permutation(config.tracks)[: config.clips]
    return sorted(int(track) for track in chosen)


def _sound(
    folder: Path, world: World, config: SimulationConfig, with_sound: Sequence[int], on_clip: OnClip | None
) -> Floats:
    """Write the clips of some tracks; descriptors [T, G, A] of all where listeners heed them (else T = 0)."""
    described = np.empty((config.tracks if config.heed else 0, len(AUDIO_GROUPS), AUDIO_WIDTH))
    rendered = range(config.tracks) if config.heed else with_sound
    kept = set(with_sound)
    for done, track in enumerate(rendered, 1):
        samples = clip(world, track, config.clip_seconds, config.seed)
        if track in kept:
            _write_wav(folder / f"{track_id(track)}.wav", samples)
        if config.heed:
            described[track] = describe((samples / 32_768).astype(np.float32), RATE)
        if on_clip is not None:
            on_clip(done, len(rendered))
    return described


def _write_tables(out: Path, world: World, plays: Plays) -> None:
    rows = zip(plays.user.tolist(), plays.track.tolist(), plays.timestamp.tolist(), strict=True)
    _write(out / "plays.csv", ("user_id", "track_id", "timestamp"), ((user_id(u), track_id(t), s) for u, t, s in rows))
    header = ("track_id", "title", "artist_id", "artist", "album_id", "album", "labels", "duration", "release_year")
    _write(out / "tracks.csv", header, (_track_row(world, track) for track in range(len(world.titles))))
    people = zip(world.genders, world.ages, world.countries, strict=True)
    _write(out / "users.csv", ("user_id", "gender", "age", "country"), ((user_id(i), *p) for i, p in enumerate(people)))


def _track_row(world: World, track: int) -> tuple[str | int, ...]:
    artist, album = int(world.artist[track]), int(world.album[track])
    return (
        track_id(track),
        world.titles[track],
        f"a{artist:04d}",
        world.artists[artist],
        f"al{album:04d}",
        world.albums[album],
        "|".join(world.labels[track]),
        int(world.duration[track]),
        year(int(world.release[track])),
    )


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[str | int]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _write_wav(path: Path, samples: np.ndarray[Any, np.dtype[np.int16]]) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.astype("<i2").tobytes())


def _truth(
    config: SimulationConfig, world: World, heeding: Heeding | None, with_sound: Sequence[int]
) -> dict[str, Any]:
    """What the plays were drawn by. A listener who heeds a group of descriptors has no taste in `sound`."""
    return {
        "simulated": True,
        "parameters": asdict(config),
        "styles": [style.name for style in STYLES],
        "sound": list(SOUND),
        "tracks": {
            track_id(i): {
                "style": np.round(world.style[i], 4).tolist(),
                "sound": np.round(world.sound[i], 4).tolist(),
                "key": int(world.key[i]),
                "released": int(world.release[i]),
                "popularity": round(float(world.popularity[i]), 4),
            }
            for i in range(len(world.titles))
        },
        "users": {
            user_id(i): {
                "style": np.round(world.user_style[i], 4).tolist(),
                **(
                    {"sound": np.round(world.user_sound[i], 4).tolist()}
                    if heeding is None
                    else {"heeds": AUDIO_GROUPS[heeding.group[i]]}
                ),
            }
            for i in range(len(world.genders))
        },
        "clips": [track_id(track) for track in with_sound],
    }
