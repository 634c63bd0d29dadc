"""Protocols, statistics, resumable runs, and the files of `msam evaluate`."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.main import get_command

from msam.baselines import SYSTEMS
from msam.baselines.contract import BaselineError
from msam.baselines.markov import Markov
from msam.baselines.newest_first import NewestFirst
from msam.baselines.stan import STAN
from msam.baselines.vsknn import VSKNN
from msam.baselines.vstan import VSTAN
from msam.content import Content
from msam.datasets.canonical import read_plays, read_tracks
from msam.evaluation import protocols, runs
from msam.evaluation.measures import distinct, values, windows_after
from msam.evaluation.prepare import NARROW, EvaluationError, Sources, plays_only, prepare
from msam.evaluation.protocols import Slices, run_prequential, run_split, targets
from msam.evaluation.runs import Plan, read, run_all
from msam.evaluation.statistics import clustered, paired
from msam.listening import History, Listening
from streams import cli
from tests.unit.evaluation_data import listening


def test_the_interval_of_one_play_a_cluster_is_students() -> None:
    values_of = np.array([1.0, 2.0, 3.0, 4.0])
    found = clustered(values_of, np.arange(4))
    error = values_of.std(ddof=1) / 2
    assert found.mean == 2.5
    assert found.high - found.mean == pytest.approx(3.182446305 * error)
    assert found.p == pytest.approx(0.0305, abs=1e-4)  # t = 3.873 with 3 degrees of freedom


def test_plays_that_are_all_alike_in_a_session_count_once() -> None:
    sessions = np.repeat(np.arange(10), 50)
    shift = np.repeat(np.random.default_rng(0).normal(size=10), 50)
    alone = clustered(shift[::50], np.arange(10))
    assert clustered(shift, sessions).high == pytest.approx(alone.high)
    assert paired(shift + 1, shift, sessions).mean == pytest.approx(1.0)
    assert paired(shift + 1, shift, sessions).p < 1e-12
    assert clustered(shift[:50], sessions[:50]).p == 1.0  # one session shows nothing


def test_factors_come_in_the_paper_s_width_and_in_the_stream_s(tmp_path: Path) -> None:
    lines = [f"u{n % 3},t{n % 7},{60 * n}\n" for n in range(60)]
    (tmp_path / "plays.csv").write_text("user_id,track_id,timestamp\n" + "".join(lines))
    content = prepare(Sources(tmp_path / "plays.csv"), "track").content
    assert content.narrow is not None and content.tracks.factor.shape == (7, 100)
    config, tracks = content.narrowed()
    assert config.dim == config.hidden == tracks.factor.shape[1] == tracks.artist_factor.shape[1] == NARROW == 64
    assert tracks.factor.any() and len(tracks) == 7


def test_factors_know_neither_the_test_nor_what_the_networks_hold_out(tmp_path: Path) -> None:
    items = [n % 5 for n in range(100)]

    def factors(name: str, changed: int) -> Tensor:
        log = [*items[:changed], *(5 for _ in items[changed:]), 5]
        lines = [f"u,t{item},{60 * n}\n" for n, item in enumerate(log)]
        (tmp_path / name).write_text("user_id,track_id,timestamp\n" + "".join(lines))
        return prepare(Sources(tmp_path / name), "track").content.tracks.factor

    whole = factors("whole.csv", 100)
    assert torch.equal(whole[:5], factors("late.csv", 72)[:5]), "the last tenth of the first 80 of 101 plays"
    assert not torch.equal(whole[:5], factors("early.csv", 70)[:5])


def test_split_trains_on_the_first_part_and_misses_what_it_has_not_met() -> None:
    plays = [("a", item, float(60 * step)) for step, item in enumerate("xyxyxyxyzx")]
    data = Listening.build(["x", "y", "z"], ["a"], plays, Content.empty(3, 1))
    found = run_split(Markov(), data, 0)
    assert found.rank[0] == np.inf  # z was never met in training
    assert len(found.rank) == 2
    slices = Slices(data, "split")
    assert slices.masks["cold"].tolist() == [True, False] and slices.masks["seen"].tolist() == [False, True]


def test_prequential_learns_a_play_once_it_is_scored() -> None:
    plays = [("a", item, float(60 * step)) for step, item in enumerate("xyxyxyxyxyxyxyxyzwzw")]
    data = Listening.build(["w", "x", "y", "z"], ["a"], plays, Content.empty(4, 1))
    found = run_prequential(Markov(), data, 0)
    assert found.rank.tolist()[0] > 2  # z after y: never met
    assert found.rank.tolist()[3] == 1  # w after z: learned two plays before
    assert run_split(Markov(), data, 0).rank.tolist()[3] == np.inf
    assert run_prequential(Markov(), data, 0, age=3).rank.tolist()[3] == 1  # the three before come in together
    assert run_prequential(Markov(), data, 0, age=4).rank.tolist()[3] > 2


def test_prequential_scores_together_what_nothing_is_told_between(monkeypatch: pytest.MonkeyPatch) -> None:
    data = listening()
    together = run_prequential(Markov(), data, 0, age=5)
    monkeypatch.setattr(protocols, "_BATCH", 1)
    for found, alone in zip(together, run_prequential(Markov(), data, 0, age=5), strict=True):
        np.testing.assert_array_equal(found, alone)
    assert together.rank.tolist() != run_prequential(Markov(), data, 0, age=1).rank.tolist()


def test_slices_part_the_plays() -> None:
    data = listening()
    for protocol in ("split", "prequential"):
        masks = Slices(data, protocol).masks
        assert (masks["seen"].astype(int) + masks["new"] + masks["cold"] == 1).all()
        assert not masks["few"].any() and masks["all"].all()


def test_vsknn_and_stan_on_a_case_worked_out_by_hand() -> None:
    """Sessions [x y z], [x w]; after x: both are neighbours through x."""
    plays = [("a", "x", 0.0), ("a", "y", 60.0), ("a", "z", 120.0), ("b", "x", 0.0), ("b", "w", 120.0)]
    plays += [("c", "y", 0.0), ("c", "x", 1e5)]
    data = Listening.build(["w", "x", "y", "z"], ["a", "b", "c"], plays, Content.empty(4, 3))
    train, history = data.first(np.array([3, 5, 6])), data.history(7 - 1)._replace(user=2)
    now = history._replace(items=np.array([1]), times=np.array([1e5]))
    near, aware = VSKNN(), STAN()
    near.fit(train, 0)
    aware.fit(train, 0)
    scores = near.score([now])[0]  # similarity 1, step 1, times log(3 sessions / holders)
    assert scores[0] == pytest.approx(np.log(3) + 1e-3) and scores[2] == pytest.approx(np.log(3 / 2) + 1e-3)
    scores = aware.score([now])[0]
    age = np.exp(-(1e5 - 120) / (20 * 86400))
    assert scores[0] == pytest.approx(np.sqrt(1 / 2) * age * np.exp(-1 / 2.05), rel=1e-5)
    assert scores[3] == pytest.approx(np.sqrt(1 / 3) * age * np.exp(-2 / 2.05), rel=1e-5)


def test_the_newest_shared_item_is_the_newest_when_a_session_repeats_items() -> None:
    plays = [("a", "x", 0.0), ("a", "y", 60.0)]
    system = VSKNN()
    system.fit(Listening.build(["x", "y"], ["a", "b"], plays, Content.empty(2, 2)), 0)
    found = system.meet(History(1, np.array([0, 1, 0]), np.full(3, 1e5)), np.array([0.1, 0.2, 0.4]))
    assert (found.step, found.place, found.last) == (1, 0, 1)  # x, the last play, is first there; y is last there
    assert found.similarity == pytest.approx(0.6)


def test_vstan_on_a_case_worked_out_by_hand() -> None:
    """Sessions [x y z], [x w], [y v]; after y, x, y: the first and the last hold y, the second has weight e^-100000."""
    plays = [("a", "x", 0.0), ("a", "y", 60.0), ("a", "z", 120.0), ("b", "x", 0.0), ("b", "w", 120.0)]
    plays += [("c", "y", 0.0), ("c", "v", 120.0)]
    data = Listening.build(list("vwxyz"), ["a", "b", "c", "d"], plays, Content.empty(5, 4))
    system = VSTAN()
    system.fit(data, 0)
    scores = system.score([History(3, np.array([3, 2, 3]), np.array([1e5, 1e5 + 1, 1e5 + 2]))])[0]
    x, y = np.exp(-1 / 33.6), 1.0  # weights in the session: of y that of its last play
    age = np.exp(-(1e5 + 2 - 120) / (100 * 86400)) / np.hypot(x, y)
    both, last = (x + y) / np.sqrt(3) * age, y / np.sqrt(2) * age
    one, two = 1 + 5 * np.log(3), 1 + 5 * np.log(3 / 2)  # factors of items of one and of two of the three sessions
    step = np.exp(-1 / 8.4)
    assert scores[4] == pytest.approx(both * step * one, rel=1e-6)  # z, a place after y, the last shared item
    assert scores[2] == pytest.approx(both * step * two, rel=1e-6)  # x, a place before it
    assert scores[3] == pytest.approx((both + last) * two, rel=1e-6)
    assert scores[0] == pytest.approx(last * step * one, rel=1e-6)
    assert scores[1] == 0


@pytest.fixture
def small(tmp_path: Path) -> Sources:
    """Canonical files of a log with artists for two thirds of the tracks."""
    rng = np.random.default_rng(0)
    with (tmp_path / "plays.csv").open("w") as file:
        file.write("user_id,track_id,timestamp\n")
        for step in range(120):
            file.write(f"u{step % 3},t{rng.integers(9)},{1_500_000_000 + step * 300}\n")
    with (tmp_path / "tracks.csv").open("w") as file:
        file.write("track_id,title,artist_id,artist,album_id,album\n")
        for track in range(9):
            file.write(f"t{track},,{f'a{track // 2}' if track < 6 else ''},,,\n")
    return Sources(tmp_path / "plays.csv", tmp_path / "tracks.csv")


def test_levels(small: Sources) -> None:
    told: list[str] = []
    tracks, artists = plays_only(small, "track"), plays_only(small, "artist", told.append)
    assert tracks.items == tuple(f"t{n}" for n in range(9)) and len(tracks.plays) == 120
    assert artists.items == ("a0", "a1", "a2") and 0 < len(artists.plays) < 120
    assert told == [f"{120 - len(artists.plays)} of 120 plays left out: their track has no artist"]
    with pytest.raises(EvaluationError, match="--level track"):
        plays_only(replace(small, tracks=None), "artist")


def test_finished_runs_are_taken_over_and_those_of_other_data_or_code_refused(
    small: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(small, "track", "split", ("markov", "vlhm"), 2)
    data, folder, done = plays_only(small, "track"), tmp_path / "runs", list[tuple[str, int]]()
    run_all(plan, folder, lambda: data, 1, lambda name, number: done.append((name, number)))
    assert done == [("markov", 0), ("vlhm", 0), ("vlhm", 1)]

    def never() -> Listening:
        raise AssertionError("nothing is missing")

    run_all(plan, folder, never, 1, lambda name, number: done.append((name, number)))
    assert len(done) == 3
    first, second = (read(folder, "vlhm", number, plan.fingerprint()) for number in (0, 1))
    assert first is not None and second is not None and (first.judged.errors != second.judged.errors).any()
    with pytest.raises(EvaluationError, match="choose another --out"):
        read(folder, "markov", 0, replace(plan, level="artist").fingerprint())
    shutil.copytree(runs.CODE, tmp_path / "msam")
    monkeypatch.setattr(runs, "CODE", tmp_path / "msam")
    assert read(folder, "markov", 0, plan.fingerprint()) is not None  # wherever it is installed
    with (tmp_path / "msam" / "simf" / "objective.py").open("a") as file:
        file.write("# changed\n")
    with pytest.raises(EvaluationError, match="or code of msam"):
        read(folder, "markov", 0, plan.fingerprint())


def test_evaluate_writes_everything(small: Sources, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["evaluate", "--plays", str(small.plays), "--tracks", str(small.tracks), "--out", str(out), "--json"]
    arguments += ["--level", "track", "--runs", "2", "--jobs", "1", "--systems", "markov,rscn,newest-first,vlhm"]
    get_command(cli.build()).main(arguments, prog_name="msam", standalone_mode=False)
    summary = json.loads(capsys.readouterr().out)
    assert summary["systems"]["rscn"] == {"n/a": "no sound"} and summary["plays_scored"] == 24
    assert summary["cpu_minutes"]["vlhm"] > 0 and set(summary["cpu_minutes"]) == {"markov", "newest-first", "vlhm"}
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["protocol", "level", "system", "run", "slice", "metric", "value"]
    runs = [row for row in rows if (row["system"], row["slice"], row["metric"]) == ("vlhm", "all", "hr@20")]
    assert [row["run"] for row in runs] == ["0", "1"]
    assert {row["slice"] for row in rows} <= {"all", "seen", "new", "cold", "few"}
    assert {"f1@2", "f1@20", "rmse", "msle"} <= {row["metric"] for row in rows}
    markdown, page = (out / "table1.md").read_text(), (out / "report.html").read_text()
    for text in (markdown, page):
        assert "n/a (no sound)" in text and "protocol split, level track" in text
    assert "all runs [minutes]" in page
    assert page.count("data:image/png;base64,") == 3 and "http" not in page
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in ("figure4.png", "figure5.png"))
    with (out / "table1.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["system"] for row in table] == ["markov", "rscn", "newest-first", "vlhm"]
    assert float(table[0]["hr@20_low"]) <= float(table[0]["hr@20_mean"]) <= float(table[0]["hr@20_high"])


def test_systems_without_their_library_are_left_out_unless_named(
    small: Sources, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msam.baselines.find_spec", lambda _: None)
    monkeypatch.setattr("msam.baselines.SYSTEMS", {name: SYSTEMS[name] for name in ("markov", "gru4rec", "sasrec")})
    arguments = ["evaluate", "--plays", str(small.plays), "--level", "track", "--jobs", "1", "--json"]
    command = get_command(cli.build())
    command.main([*arguments, "--out", str(tmp_path / "all")], prog_name="msam", standalone_mode=False)
    shown = capsys.readouterr()
    assert list(json.loads(shown.out)["systems"]) == ["markov"]
    assert "left out: gru4rec, sasrec; pip install 'msam[peers]' brings them" in shown.err
    arguments += ["--out", str(tmp_path / "named"), "--systems", "markov,sasrec"]
    with pytest.raises(BaselineError, match="sasrec needs the library cornac"):
        command.main(arguments, prog_name="msam", standalone_mode=False)


def test_every_name_of_the_table_is_a_system() -> None:
    assert {"vlhm", "dlan", "rscn", "mcum", "blcr", "msam", "msam-extended"} <= set(SYSTEMS)


def test_newest_first_agrees_with_the_published_protocol(data_dir: Path) -> None:
    """HR@10 .568, HR@20 .605, MRR@20 .519, NDCG@20 .538: measured elsewhere, artist level, static split."""
    folder = data_dir / "lfm_timeline"
    artist = {row.track_id: row.artist_id or "" for row in read_tracks(folder / "tracks.csv")}
    plays = [(play.user_id, artist[play.track_id], play.timestamp) for play in read_plays(folder / "plays.csv")]
    items, users = sorted({item for _, item, _ in plays}), sorted({user for user, _, _ in plays})
    data = Listening.build(items, users, plays, Content.empty(len(items), len(users)))
    relevant = distinct(windows_after(data, targets(data))).sum(axis=1)
    found = {name: float(column.mean()) for name, column in values(run_split(NewestFirst(), data, 0), relevant).items()}
    expected = {"hr@10": 0.568, "hr@20": 0.605, "mrr@20": 0.519, "ndcg@20": 0.538}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=6e-4)
    assert float((np.minimum(relevant, 20) / 20).mean()) == pytest.approx(0.33, abs=5e-3)
