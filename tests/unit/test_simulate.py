"""Simulated data: seeded, consistent, and with a taste that really is in it."""

import csv
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from msam.features.audio import AUDIO_GROUPS, describe_file, describe_named, load
from msam.simulate import Shares, SimulationConfig, SimulationError, World, clip, listen, make_world, simulate
from msam.simulate.heeding import Heeding, components
from msam.simulate.listening import base_liking
from msam.simulate.sound import RATE
from msam.simulate.styles import STYLES
from msam.simulate.world import START, style_sounds

SMALL = SimulationConfig(users=8, tracks=60, plays=500, seed=3, clips=6, clip_seconds=1.5)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name, config in (("a", SMALL), ("b", SMALL), ("c", replace(SMALL, seed=4))):
        simulate(config, tmp_path / name)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert all(a[name] != c[name] for name in ("plays.csv", "tracks.csv", "users.csv"))


def test_clips_do_not_change_the_rest(tmp_path: Path) -> None:
    simulate(SMALL, tmp_path / "a")
    simulate(replace(SMALL, clips=2), tmp_path / "b")
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert all(a[name] == b[name] for name in b if name != "simulation.json")


def test_files_belong_together(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    summary = simulate(SMALL, tmp_path, lambda *step: done.append(step))
    plays, tracks, users = (table(tmp_path / f"{name}.csv") for name in ("plays", "tracks", "users"))
    truth = json.loads((tmp_path / "simulation.json").read_text())
    assert (len(plays), len(tracks), len(users)) == (500, 60, 8)
    assert summary["plays"] == 500 and summary["clips"] == 6 and done[-1] == (6, 6)
    assert {p["track_id"] for p in plays} <= {t["track_id"] for t in tracks} == set(truth["tracks"])
    assert {p["user_id"] for p in plays} == {u["user_id"] for u in users} == set(truth["users"])
    times = [int(p["timestamp"]) for p in plays]
    assert times == sorted(times) and times[0] >= START
    for user in {p["user_id"] for p in plays}:
        own = [int(p["timestamp"]) for p in plays if p["user_id"] == user]
        assert all(later - earlier >= 30 for earlier, later in pairwise(own))
    assert all(int(p["timestamp"]) >= truth["tracks"][p["track_id"]]["released"] for p in plays)
    assert any(track["released"] > START for track in truth["tracks"].values())
    assert {p.stem for p in (tmp_path / "audio").iterdir()} == set(truth["clips"])
    assert "simulated" in (tmp_path / "README.md").read_text()
    assert truth["simulated"] is True
    first = tracks[0]
    assert first["title"] and first["artist"] and first["album"] and int(first["release_year"]) > 1980
    assert {style.name for style in STYLES} & set(first["labels"].split("|"))


def test_clips_are_readable_sound(tmp_path: Path) -> None:
    simulate(SMALL, tmp_path)
    files = sorted((tmp_path / "audio").iterdir())
    assert len(files) == 6
    for file in files:
        samples, rate = load(file)
        assert rate == RATE and len(samples) == int(1.5 * RATE)
        assert np.isfinite(describe_file(file)).all()


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(SimulationConfig())


def test_sound_follows_the_latents(world: World) -> None:
    """Over 40 tracks, measured level, brightness and drums rank as the truth does."""
    tracks = range(0, 280, 7)
    measured = {"rms": [], "centroid": [], "onset": []}
    for track in tracks:
        found = describe_named(clip(world, track, 4.0, 0).astype(np.float32) / 32_768, RATE)
        measured["rms"].append(found["intensity"]["rms_mean"])
        measured["centroid"].append(found["timbre_contrast"]["centroid_mean"])
        measured["onset"].append(found["rhythm"]["onset_p99"])
    truth = world.sound[list(tracks)]
    for name, column in (("rms", 2), ("centroid", 1), ("onset", 3)):
        assert np.corrcoef(measured[name], truth[:, column])[0, 1] > 0.5, name


def test_words_follow_the_style(world: World) -> None:
    main = world.style.argmax(axis=1)
    named = np.mean([STYLES[style].name in labels for style, labels in zip(main, world.labels, strict=True)])
    title = np.mean(
        [
            any(word in STYLES[style].words for word in name.split())
            for style, name in zip(main, world.titles, strict=True)
        ]
    )
    assert named == 1.0
    assert title > 0.7


def test_taste_depends_on_style(world: World) -> None:
    """What a listener plays is nearer to the own taste than to other listeners' tastes; without liking it is not."""
    config = SimulationConfig()

    def lead(plays_config: SimulationConfig) -> float:
        plays = listen(world, plays_config)
        match = world.user_style @ world.style.T
        match = match - match.mean(axis=1, keepdims=True)
        return float(match[plays.user, plays.track].mean())

    assert lead(config) > 0.05
    assert abs(lead(replace(config, sharpness=0.0, repeat=0.0, new=0.0))) < 0.02


def test_shares_are_the_parts_of_the_variance(world: World) -> None:
    shares = {"audio": world.user_sound @ ((world.sound - world.sound.mean(0)) / world.sound.std(0)).T}
    shares["text"] = world.user_style @ world.style.T
    for name, values in shares.items():
        alone = Shares(**{part: float(part == name) for part in ("audio", "text", "artist", "time", "popularity")})
        liking = base_liking(world, SimulationConfig(shares=alone))
        assert np.allclose(liking.std(axis=1), 1)
        assert np.corrcoef(liking[0], values[0])[0, 1] == pytest.approx(1.0)
    half = base_liking(world, SimulationConfig(shares=Shares(0.25, 0.0, 0.0, 0.75, 0.0)))
    assert np.allclose(half.std(axis=1), 0.5)


def test_each_listener_heeds_one_group_of_descriptors() -> None:
    described = np.random.default_rng(1).normal(size=(400, len(AUDIO_GROUPS), 12))
    described[:, 1] *= 1e6  # loud numbers are heard no better
    config = SimulationConfig(users=50, heed=True)
    heeding = Heeding.of(config, described)
    assert set(heeding.group.tolist()) == set(range(len(AUDIO_GROUPS)))
    for user, liking in enumerate(heeding.liking):
        told = []
        for group in range(len(AUDIO_GROUPS)):
            columns = np.column_stack([described[:, group], np.ones(400)])
            left = liking - columns @ np.linalg.lstsq(columns, liking)[0]
            told.append(1 - left.var() / liking.var())
        assert told.pop(int(heeding.group[user])) == pytest.approx(1.0)
        assert max(told) < 0.2, "another group tells no more than chance"
    fewer = Heeding.of(replace(config, users=20), described)
    assert (fewer.group == heeding.group[:20]).all()


def test_components_have_the_same_weight_or_none() -> None:
    values = np.random.default_rng(2).normal(size=(300, 3)) * [1.0, 10.0, 0.0] + 5
    found = components(values)
    assert found.shape == (300, 8)
    assert np.allclose(found.std(axis=0), [1, 1, 0, 0, 0, 0, 0, 0])
    assert (components(values) == found).all()
    assert not components(np.ones((5, 3))).any()
    assert components(values[:2]).shape == (2, 8) and np.isfinite(components(values[:2])).all()


def test_what_is_heard_decides_what_is_played(tmp_path: Path) -> None:
    """With an audio share alone; which tracks have a clip in the end makes no difference."""
    config = replace(SMALL, heed=True, shares=Shares.parse("audio=1"), repeat=0.0, new=0.0, plays=800)
    simulate(config, tmp_path / "a")
    simulate(replace(config, clips=60), tmp_path / "b")
    assert (tmp_path / "a" / "plays.csv").read_bytes() == (tmp_path / "b" / "plays.csv").read_bytes()
    assert len(list((tmp_path / "a" / "audio").iterdir())) == 6
    plain = replace(config, heed=False)
    simulate(plain, tmp_path / "c")
    assert (tmp_path / "a" / "tracks.csv").read_bytes() == (tmp_path / "c" / "tracks.csv").read_bytes()
    assert (tmp_path / "a" / "plays.csv").read_bytes() != (tmp_path / "c" / "plays.csv").read_bytes()
    described = np.stack([describe_file(file) for file in sorted((tmp_path / "b" / "audio").iterdir())]).astype(float)
    liking = Heeding.of(config, described).liking
    liking = (liking - liking.mean(1, keepdims=True)) / liking.std(1, keepdims=True)
    rows = table(tmp_path / "b" / "plays.csv")
    lead = np.mean([liking[int(row["user_id"][1:]), int(row["track_id"][1:])] for row in rows])
    assert lead > 1.0, "by chance it would be 0"
    truth = json.loads((tmp_path / "a" / "simulation.json").read_text())["users"]
    names = [AUDIO_GROUPS[group] for group in Heeding.of(config, described).group]
    assert [user["heeds"] for user in truth.values()] == names


def test_an_artist_need_not_tell_of_the_style(world: World) -> None:
    def within(some: World) -> float:
        """Part of the variance of style that lies within artists."""
        means = np.stack([some.style[some.artist == artist].mean(0) for artist in some.artist])
        return float(((some.style - means) ** 2).sum() / ((some.style - some.style.mean(0)) ** 2).sum())

    alone, alike = (make_world(SimulationConfig(coherence=part)) for part in (0.0, 1.0))
    assert within(alike) < 1e-9 < 0.05 < within(world) < 0.4 < 0.8 < within(alone)
    assert alone.artist.tolist() == world.artist.tolist()
    with pytest.raises(SimulationError, match="coherence"):
        SimulationConfig(coherence=1.5)


def test_sound_and_words_can_be_apart(world: World) -> None:
    apart = make_world(SimulationConfig(apart=True))
    for name in ("style", "release", "popularity", "user_style", "user_artist"):
        assert (getattr(apart, name) == getattr(world, name)).all(), name
    assert apart.titles == world.titles

    def likeness(of: World) -> float:
        """Correlation of a track's brightness and what its styles make one expect."""
        return float(np.corrcoef(of.sound[:, 1], of.style @ style_sounds()[:, 1])[0, 1])

    assert likeness(world) > 0.5 > 0.2 > abs(likeness(apart))
    words = {"fast", "slow", "bright", "dark", "loud", "quiet", "percussive"}
    assert words & {label for labels in world.labels for label in labels}
    assert not words & {label for labels in apart.labels for label in labels}


def test_a_track_once_per_listener() -> None:
    config = SimulationConfig(repeat=0.0, once=True, tracks=1000, plays=4000)
    plays = listen(make_world(config), config)
    pairs = set(zip(plays.user.tolist(), plays.track.tolist(), strict=True))
    busiest = np.bincount(plays.user).max()
    assert busiest < config.tracks and len(pairs) == 4000
    few = SimulationConfig(users=1, tracks=10, plays=25, new=0.0, clips=0, repeat=0.0, once=True)
    assert sorted(np.bincount(listen(make_world(few), few).track).tolist()) == [2] * 5 + [3] * 5


def test_shares_are_read() -> None:
    assert Shares.parse("audio=0.6, time=0.4") == Shares(0.6, 0.0, 0.0, 0.4, 0.0)
    for text, message in (("audio", "not a share"), ("audio=x", "not a share"), ("mood=1", "called mood")):
        with pytest.raises(SimulationError, match=message):
            Shares.parse(text)
    with pytest.raises(SimulationError, match="add up"):
        Shares.parse("audio=0.5")


def test_repeats_happen_as_often_as_asked(world: World) -> None:
    def repeated(repeat: float) -> float:
        plays = listen(world, SimulationConfig(repeat=repeat, sharpness=0.0))
        again, total = 0, 0
        for user in range(40):
            own = plays.track[plays.user == user]
            again += sum(track in own[max(0, i - 30) : i] for i, track in enumerate(own))
            total += len(own)
        return again / total

    assert repeated(0.5) - repeated(0.0) > 0.3


@pytest.mark.parametrize(
    "wrong",
    [{"users": 0}, {"plays": 3, "users": 4}, {"clips": 61, "tracks": 60}, {"clip_seconds": 0.1}, {"repeat": 1.0}],
)
def test_wrong_sizes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(SimulationError):
        SimulationConfig(**wrong)


def test_shares_must_add_up() -> None:
    with pytest.raises(SimulationError, match="add up"):
        Shares(audio=0.9)


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SimulationError, match="something else"):
        simulate(SMALL, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(SimulationError, match="cannot be written"):
        simulate(SMALL, tmp_path / "file")


def test_command(tmp_path: Path) -> None:
    import typer

    from streams.commands.simulate import register

    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    arguments = ["--users", "3", "--tracks", "10", "--plays", "20", "--clips", "2", "--clip-seconds", "1"]
    result = CliRunner().invoke(app, ["simulate", "--out", str(tmp_path / "s"), *arguments, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "out": str(tmp_path / "s"), "users": 3, "tracks": 10, "plays": 20, "clips": 2, "seed": 0,
    }  # fmt: skip
    knobs = [
        "--shares",
        "audio=0.7,time=0.3",
        "--heed",
        "--apart",
        "--repeat",
        "0",
        "--new",
        "0.3",
        "--coherence",
        "0.2",
    ]
    assert CliRunner().invoke(app, ["simulate", "--out", str(tmp_path / "k"), *arguments, *knobs]).exit_code == 0
    told = json.loads((tmp_path / "k" / "simulation.json").read_text())["parameters"]
    assert (told["shares"]["audio"], told["shares"]["text"], told["heed"], told["new"]) == (0.7, 0.0, True, 0.3)
    assert told["apart"] and told["coherence"] == 0.2
    again = CliRunner().invoke(app, ["simulate", "--out", str(tmp_path / "s"), *arguments])
    assert again.exit_code == 0 and "simulated: 3 users" in again.stdout
    assert CliRunner().invoke(app, ["simulate"]).exit_code == 2
