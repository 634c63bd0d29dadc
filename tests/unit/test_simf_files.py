"""Relation files, fits that go on where they stopped, `msam simf fit` and `complete`, and what completion measures."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from typer.testing import CliRunner

from msam.evaluation import completion
from msam.simf import Relations, RelationsError, SiMF, SiMFConfig, matrix_from_counts
from msam.simf.files import done, fit_in, load_state, read_links, read_relations
from streams.cli import build
from tests.simf_problems import planted_relations, random_relations

SMALL = SiMFConfig(dim=5, max_sweeps=23, refresh_every=5, neighbours=4, tol=1e-9)


def write(path: Path, rows: list[tuple[object, ...]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("first", "second", "value")[: len(rows[0])], *rows])
    return path


def as_files(folder: Path, relations: Relations) -> list[str]:
    """The relations as arguments of `msam simf fit`."""
    arguments = []
    for (i, j), matrix in relations.relations.items():
        whole = matrix.tocoo()
        ids = relations.types[i], relations.types[j]
        rows = [(ids[0][a], ids[1][b], v) for a, b, v in zip(whole.row, whole.col, whole.data, strict=True)]
        arguments += ["--relation", f"{i}-{j}={write(folder / f'{i}-{j}.csv', rows)}"]
    return arguments


# --- files ----------------------------------------------------------------------------------------------------------


def test_links_add_up_and_default_to_one(tmp_path: Path) -> None:
    assert read_links(write(tmp_path / "a.csv", [("u", "x", 2), ("u", "y", 1.5), ("u", "x", 1)])) == {
        ("u", "x"): 3.0,
        ("u", "y"): 1.5,
    }
    assert read_links(write(tmp_path / "b.csv", [("u", "x"), ("u", "x")])) == {("u", "x"): 2.0}


def test_files_become_relations_in_any_order(tmp_path: Path) -> None:
    plays = [("u2", "a1", 3), ("u1", "a2", 1), ("u1", "a1", 7)]
    tags = [("a1", "rock"), ("a3", "jazz")]
    friends = [("u1", "u2"), ("u2", "u1"), ("u3", "u1")]

    def made(turned: bool) -> Relations:
        step = -1 if turned else 1
        pairs = {("user", "artist"): write(tmp_path / "p.csv", plays[::step])}
        pairs[("artist", "tag")] = write(tmp_path / "t.csv", tags[::step])
        return read_relations(pairs, [("user", write(tmp_path / "f.csv", friends[::step]))], log=True)

    one, two = made(False), made(True)
    assert one.types == two.types == {"user": ["u1", "u2", "u3"], "artist": ["a1", "a2", "a3"], "tag": ["jazz", "rock"]}
    assert abs(one.relations["user", "artist"] - two.relations["user", "artist"]).nnz == 0
    np.testing.assert_allclose(one.relations["user", "artist"].toarray()[:2, :2], np.log1p([[7, 1], [3, 0]]))
    np.testing.assert_array_equal(one.networks["user"][0].toarray(), [[0, 1, 1], [1, 0, 0], [1, 0, 0]])


BAD = {
    "two columns": "a\nb\n",
    "line 3: expected 2 filled columns": "a,b\nx,y\nx,\n",
    "line 2: could not convert": "a,b,c\nx,y,many\n",
}


@pytest.mark.parametrize("message", BAD)
def test_bad_files_are_refused(message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text(BAD[message])
    with pytest.raises(RelationsError, match=message):
        read_links(tmp_path / "bad.csv")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RelationsError, match="cannot read"):
        read_links(tmp_path / "none.csv")


# --- going on -------------------------------------------------------------------------------------------------------


class Stopped(Exception):
    """What stops a fit in these tests."""


@pytest.mark.parametrize("at", [3, 5, 12, 22])
def test_a_fit_that_was_stopped_ends_with_the_same_bits(at: int, tmp_path: Path) -> None:
    relations = random_relations(1)
    seen: list[int] = []

    def stop(sweep: int, _: float) -> None:
        if sweep == at and not seen:
            seen.append(sweep)
            raise Stopped

    with pytest.raises(Stopped):
        fit_in(tmp_path, relations, SMALL, stop)
    again: list[int] = []
    state = fit_in(tmp_path, relations, SMALL, lambda sweep, _: again.append(sweep))
    assert again[0] == at // 5 * 5 - (5 if at % 5 == 0 else 0) + 1, "finished sweeps are not done again"
    whole = SiMF(SMALL).fit(relations)
    assert state.version == whole.version and state.history == whole.history and state.refreshes == whole.refreshes
    assert load_state(tmp_path).version == whole.version
    assert fit_in(tmp_path, relations, SMALL, lambda *_: pytest.fail("nothing was left to do")).version == whole.version


def test_going_on_without_neighbours_by_factors_rebuilds_nothing_new() -> None:
    relations, config = random_relations(1), replace(SMALL, similarity={"relations": 1.0}, tol=1e-12)
    whole = SiMF(config).fit(relations)
    first = SiMF(replace(config, max_sweeps=4)).fit(relations)
    again = SiMF(config).fit(relations, init=first, go_on=True)
    assert again.refreshes == whole.refreshes == (0,)
    assert again.version == whole.version


def test_more_sweeps_go_on_and_convergence_stops(tmp_path: Path) -> None:
    relations = planted_relations(4)
    config = SiMFConfig.dfmf(dim=4, max_sweeps=10, tol=1e-3)
    first = fit_in(tmp_path, relations, replace(config, max_sweeps=3))
    assert len(first.history) == 3
    config = replace(config, max_sweeps=400)
    last = fit_in(tmp_path, relations, config)
    assert last.history[:3] == first.history and 3 < len(last.history) < 400 and done(last, config)


def test_a_fit_of_other_relations_or_settings_is_refused(tmp_path: Path) -> None:
    fit_in(tmp_path, random_relations(1), SMALL)
    for relations, config in ((random_relations(2), SMALL), (random_relations(1), replace(SMALL, beta=1.0))):
        with pytest.raises(RelationsError, match="other relations or settings"):
            fit_in(tmp_path, relations, config)
    (tmp_path / "simf.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(RelationsError, match="not a stored fit"):
        load_state(tmp_path)
    with pytest.raises(RelationsError, match="holds no fit"):
        load_state(tmp_path / "other")


# --- completion -----------------------------------------------------------------------------------------------------


def test_completion_by_hand() -> None:
    known = csr_matrix([[1.0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    held = csr_matrix([[0.0, 0, 5, 0, 1], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    values = np.array([[9.0, 1, 2, 3, 4], [5, 1, 4, 3, 2], [0, 0, 0, 0, 0]])
    found = completion.judge(lambda rows: values[rows], known, held, n=3)
    # Row 0 without column 0: 4, 3, 2 -> hits at 1 and 3; row 1: 0, 2, 3 -> none. Row 2 holds out nothing.
    log = np.log2
    assert found.rows.tolist() == [0, 1]
    np.testing.assert_allclose(found.ndcg, [(1 + 1 / log(4)) / (1 + 1 / log(3)), 0])
    np.testing.assert_allclose(found.recall, [1, 0])


def test_held_out_links_are_a_share_of_each_row() -> None:
    whole = csr_matrix(np.triu(np.ones((12, 12))))
    known, held = completion.hold_out(whole, 0.2, seed=3)
    assert (known + held != whole).nnz == 0 and known.multiply(held).nnz == 0
    assert np.diff(held.indptr).tolist() == [int(0.2 * n) for n in range(12, 0, -1)]
    assert (completion.hold_out(whole, 0.2, seed=3)[1] != held).nnz == 0
    assert (completion.hold_out(whole, 0.2, seed=4)[1] != held).nnz > 0


def test_a_planted_relation_is_completed(tmp_path: Path) -> None:
    """A fifth of user-track held out: the lists find it far above popularity; command line, from files."""
    relations = planted_relations(4)
    rng = np.random.default_rng(0)
    matrix = relations.relations["user", "track"].tocoo()
    held = rng.random(matrix.nnz) < 0.2
    types = relations.types["user"], relations.types["track"]

    def part(mask: np.ndarray) -> dict[tuple[str, str], float]:
        rows = zip(matrix.row[mask], matrix.col[mask], matrix.data[mask], strict=True)
        return {(types[0][a], types[1][b]): float(v) for a, b, v in rows}

    train = Relations(
        relations.types, {**relations.relations, ("user", "track"): matrix_from_counts(part(~held), *types)}
    )
    rest = write(tmp_path / "held.csv", [(*pair, value) for pair, value in part(held).items()] + [("nobody", "x", 1)])
    arguments = as_files(tmp_path, train)
    runner = CliRunner()
    fit = ["simf", "fit", *arguments, "--dim", "5", "--out", str(tmp_path / "fit"), "--json"]
    result = runner.invoke(build(), fit)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report == json.loads((tmp_path / "fit" / "report.json").read_text())
    assert report["done"] and report["sweeps"] == len(report["objective"]) and report["objects"]["tag"] == 8
    falls = np.diff(report["objective"]) <= 0
    assert all(fell or place + 1 in report["refreshes"] for place, fell in enumerate(falls))
    assert json.loads(runner.invoke(build(), fit).stdout) == report, "a second call has nothing to do"
    more = ["--known", str(tmp_path / "user-track.csv"), "--scores", str(tmp_path / "scores.csv"), "--n", "10"]
    result = runner.invoke(
        build(),
        ["simf", "complete", "--state", str(tmp_path / "fit"), "--relation", f"user-track={rest}", "--json", *more],
    )
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["links"] == held.sum() and told["unknown"] == 1 and told["rows"] == 20
    popular = np.asarray((train.relations["user", "track"] > 0).sum(axis=0)).ravel()
    base = completion.judge(
        lambda rows: np.tile(popular, (len(rows), 1)),
        train.relations["user", "track"],
        matrix_from_counts(part(held), *types),
        10,
    )
    assert told["ndcg@10"]["low"] > base.ndcg.mean() and told["recall@10"]["mean"] > base.recall.mean()
    with (tmp_path / "scores.csv").open(newline="") as lines:
        scored = list(csv.DictReader(lines))
    assert len(scored) == held.sum() and {*scored[0]} == {"user", "track", "score"}


def test_wrong_usage_and_unknown_relations(tmp_path: Path) -> None:
    runner = CliRunner()
    out = str(tmp_path / "fit")
    assert runner.invoke(build(), ["simf", "fit", "--relation", "user=x", "--out", out]).exit_code == 2
    assert runner.invoke(build(), ["simf", "fit", "--relation", "user-artist", "--out", out]).exit_code == 2
    file = write(tmp_path / "a.csv", [("u", "x"), ("v", "x")])
    done_ = runner.invoke(build(), ["simf", "fit", "--relation", f"a-b={file}", "--out", out, "--dim", "2"])
    assert done_.exit_code == 0 and "sweeps, O" in done_.stdout
    wrong = runner.invoke(build(), ["simf", "complete", "--state", out, "--relation", f"a-c={file}"])
    assert "no relation a-c, only a-b" in str(wrong.exception)
    fine = runner.invoke(build(), ["simf", "complete", "--state", out, "--relation", f"a-b={file}"])
    assert fine.exit_code == 0 and "recall@20" in fine.stdout
