"""SiMF: inputs, fit, resume, warm start, storage, and what the real data must show."""

import csv
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix

from msam.datasets.hetrec import HetRecError, load_hetrec
from msam.errors import MethodError
from msam.simf import (
    Relations,
    RelationsError,
    SiMF,
    SiMFConfig,
    SiMFConfigError,
    SiMFState,
    TrackRow,
    links_of,
    relations_from_plays,
    warm_start,
)
from msam.simf.objective import objective
from msam.simf.problem import prepare
from msam.simf.similarity import combine, profile_graph
from msam.simf.start import starting_factors
from tests.simf_problems import planted_relations, random_relations, without

SMALL = SiMFConfig(dim=6, max_sweeps=20, neighbours=4)


@pytest.fixture(scope="module")
def relations() -> Relations:
    return random_relations(1)


@pytest.fixture(scope="module")
def state(relations: Relations) -> SiMFState:
    return SiMF(SMALL).fit(relations)


# --- inputs ---------------------------------------------------------------------------------------------------------

TRACKS = [
    TrackRow("t1", "a1", "b1", ("rock", "live", "rock")),
    TrackRow("t2", "a1", None, ("rock",)),
    TrackRow("t3", None, "b2"),
]
PLAYS = [("u1", "t1", 2.0), ("u2", "t2", 1.0), ("u1", "t2", 1.0), ("u1", "t1", 1.0), ("u1", "t9", 4.0)]


def test_relations_from_plays_and_metadata() -> None:
    built = relations_from_plays(PLAYS, TRACKS, {"u2": "SE", "u3": None})
    assert built.types == {
        "album": ["b1", "b2"],
        "artist": ["a1"],
        "country": ["SE"],
        "tag": ["live", "rock"],
        "track": ["t1", "t2", "t3", "t9"],
        "user": ["u1", "u2", "u3"],
    }
    dense = {pair: matrix.toarray() for pair, matrix in built.relations.items()}
    log = np.log1p
    np.testing.assert_allclose(dense["user", "track"], [[log(3), log(1), 0, log(4)], [0, log(1), 0, 0], [0] * 4])
    np.testing.assert_allclose(dense["user", "artist"], [[log(4)], [log(1)], [0]])
    np.testing.assert_allclose(dense["track", "artist"], [[1], [1], [0], [0]])
    np.testing.assert_allclose(dense["track", "album"], [[1, 0], [0, 0], [0, 1], [0, 0]])
    np.testing.assert_allclose(dense["track", "tag"], [[1, 1], [0, 1], [0, 0], [0, 0]])
    np.testing.assert_allclose(dense["artist", "tag"], [[log(1), log(2)]])
    np.testing.assert_allclose(dense["user", "country"], [[0], [1], [0]])


def test_who_hears_tracks_together_is_a_relation_and_may_be_forgotten_after_the_fit() -> None:
    heard = [("s1", "t1"), ("s1", "t2"), ("s1", "t1"), ("s2", "t9"), ("s2", "t9")]
    built = relations_from_plays(PLAYS, TRACKS, sessions=heard)
    assert built.types["session"] == ["s1"], "what was heard alone tells nothing"
    np.testing.assert_allclose(built.relations["session", "track"].toarray(), [[np.log(3), np.log(2), 0, 0]])
    whole = SiMF(SMALL).fit(built)
    left = whole.without("session")
    assert SiMFState.from_arrays(left.to_arrays()).version == left.version
    assert not [name for name in left.to_arrays() if "session" in name]
    np.testing.assert_array_equal(left.factors["track"], whole.factors["track"])
    again = SiMF(SMALL).fit(built, init=left)
    assert again.types == whole.types and again.history[0] < whole.history[0]


def test_order_of_arrival_does_not_matter() -> None:
    one = relations_from_plays(PLAYS, TRACKS)
    two = relations_from_plays(reversed(PLAYS), reversed(TRACKS))
    assert SiMF(SMALL).fit(one).version == SiMF(SMALL).fit(two).version


def test_types_without_links_are_left_out() -> None:
    built = relations_from_plays(PLAYS, [TrackRow("t1")])
    assert set(built.types) == {"user", "track"} and set(built.relations) == {("user", "track")}


BAD: dict[str, tuple[dict[str, list[str]], dict[tuple[str, str], csr_matrix], dict[str, list[csr_matrix]]]] = {
    "duplicate ids": ({"a": ["x", "x"]}, {}, {}),
    "must not contain": ({"a/b": ["x"]}, {}, {}),
    "with itself": ({"a": ["x"]}, {("a", "a"): csr_matrix((1, 1))}, {}),
    "unknown type": ({"a": ["x"]}, {("a", "b"): csr_matrix((1, 1))}, {}),
    "has shape": ({"a": ["x"], "b": ["y"]}, {("a", "b"): csr_matrix((1, 2))}, {}),
    "negative or non-finite": ({"a": ["x"], "b": ["y"]}, {("a", "b"): csr_matrix([[np.nan]])}, {}),
    "negative": ({"a": ["x"], "b": ["y"]}, {("a", "b"): csr_matrix([[-1.0]])}, {}),
    "not symmetric": ({"a": ["x", "y"]}, {}, {"a": [csr_matrix([[0.0, 1.0], [0.0, 0.0]])]}),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_relations_are_refused(message: str) -> None:
    with pytest.raises(RelationsError, match=message):
        Relations(*BAD[message])


@pytest.mark.parametrize(
    "bad",
    [
        {"dim": 0},
        {"ridge": 0},
        {"tau": -1},
        {"tol": float("nan")},
        {"beta": -1},
        {"degree_power": 2},
        {"seed": -1},
        {"max_degree": 0},
        {"similarity": {"sound": 1.0}},
        {"relation_weights": {"user-track": -1.0}},
    ],
)
def test_bad_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(SiMFConfigError):
        SiMFConfig(**bad)


# --- scaling and similarity -----------------------------------------------------------------------------------------


def test_scaled_relations_and_networks_have_unit_norm(relations: Relations) -> None:
    problem = prepare(relations, replace(SMALL, relation_weights={"user-track": 3.0, "artist-tag": 0.0}))
    norms = {(link.i, link.j): float((link.matrix.data**2).sum()) for link in problem.links}
    assert norms.pop(("user", "track")) == pytest.approx(3)
    assert ("artist", "tag") not in norms and len(norms) == 3
    assert all(norm == pytest.approx(1) for norm in norms.values())
    for link in problem.links:
        raw = relations.relations[link.i, link.j].toarray()
        scaled = link.scale.factor * link.scale.row[:, None] * raw * link.scale.column
        np.testing.assert_allclose(link.matrix.toarray(), scaled[np.ix_(link.rows, link.columns)])
    assert {name: len(sources) for name, sources in problem.networks.items()} == {"user": 2, "track": 2}
    assert all(
        (source.data**2).sum() == pytest.approx(1) for sources in problem.networks.values() for source in sources
    )


def test_profile_graph_joins_tracks_of_one_artist() -> None:
    artist = csr_matrix(np.kron(np.eye(3), np.ones((4, 1))))
    hub = csr_matrix(np.ones((12, 1)))
    graph = profile_graph([artist, hub], 3, max_degree=11).toarray()
    np.testing.assert_allclose(graph, np.kron(np.eye(3), np.ones((4, 4)) - np.eye(4)))
    mixed = combine([(1.0, csr_matrix(graph)), (3.0, csr_matrix(0.5 * graph)), (2.0, csr_matrix((12, 12)))])
    np.testing.assert_allclose(mixed.toarray(), graph)


def test_given_features_join_the_similarity(relations: Relations) -> None:
    sound = np.random.default_rng(0).random((30, 5))
    sound[3] = np.nan  # a track without sound
    with_sound = SiMF(SMALL).fit(relations, features={"track": [sound]})
    assert with_sound.version != SiMF(SMALL).fit(relations).version
    assert all(np.isfinite(h).all() for h in with_sound.factors.values())
    with pytest.raises(MethodError, match="29 rows, expected 30"):
        SiMF(SMALL).fit(relations, features={"track": [sound[1:]]})


# --- fit ------------------------------------------------------------------------------------------------------------


def test_ten_fits_have_the_same_bits_and_another_seed_does_not(relations: Relations, state: SiMFState) -> None:
    assert {SiMF(SMALL).fit(random_relations(1)).version for _ in range(10)} == {state.version}
    assert SiMF(replace(SMALL, seed=1)).fit(relations).version != state.version


def test_fit_explains_planted_blocks_and_leaves_its_input_alone() -> None:
    blocks = np.kron(np.eye(3), np.ones((5, 4)))
    built = Relations(
        {"user": [f"u{n}" for n in range(15)], "track": [f"t{n}" for n in range(12)]},
        {("user", "track"): csr_matrix(blocks)},
    )
    seen: list[tuple[int, float]] = []
    fit = SiMF(SiMFConfig.dfmf(dim=3, max_sweeps=200, tol=1e-7)).fit(
        built, progress=lambda sweep, value: seen.append((sweep, value))
    )
    assert seen == list(enumerate(fit.history, start=1))
    scale, h = fit.scales["user", "track"], fit.factors
    guess = h["user"] @ fit.cores["user", "track"] @ h["track"].T
    np.testing.assert_allclose(guess / (scale.factor * scale.row[:, None] * scale.column), blocks, atol=0.05)
    np.testing.assert_array_equal(built.relations["user", "track"].toarray(), blocks)


def test_dfmf_has_no_similarity_and_fixed_weights(relations: Relations, state: SiMFState) -> None:
    plain = SiMF(SiMFConfig.dfmf(dim=6, max_sweeps=20)).fit(relations)
    assert plain.refreshes == () and not any(plain.spreads.values())
    assert {name: w.tolist() for name, w in plain.weights.items()} == {"user": [0.5, 0.5], "track": [0.5, 0.5]}
    assert state.weights["user"].tolist() != [0.5, 0.5] and all(state.spreads.values())


def test_types_with_too_many_objects_have_no_neighbours_by_factors(relations: Relations, state: SiMFState) -> None:
    """The largest type has 30 objects: beyond the limit, S is that of the other sources, and built once."""
    alone = SiMF(replace(SMALL, similarity={"relations": 1.0})).fit(relations)
    none, all_but_tracks = (SiMF(replace(SMALL, most_compared=most)).fit(relations) for most in (1, 29))
    assert none.refreshes == alone.refreshes == (0,)
    assert all(np.array_equal(none.factors[name], alone.factors[name]) for name in alone.factors)
    assert len(all_but_tracks.refreshes) > 1 and all_but_tracks.version not in (none.version, state.version)
    assert SiMF(replace(SMALL, most_compared=30)).fit(relations).history == state.history


@pytest.mark.parametrize("mask", [True, False])
def test_an_object_without_links_is_unknown_not_zero(mask: bool) -> None:
    """With the mask, losing the artist of a track must not pull its factor towards 'no artist'."""
    built = random_relations(2, [("user", "track"), ("track", "artist")], networks=0)
    matrix = built.relations["track", "artist"].tolil()
    matrix[4] = 0
    cut = Relations(built.types, {**built.relations, ("track", "artist"): csr_matrix(matrix)})
    config = SiMFConfig.dfmf(dim=6, mask_missing=mask)
    link = next(link for link in prepare(cut, config).links if link.j == "artist")
    assert (4 in link.rows) is not mask
    assert np.isfinite(SiMF(config).fit(cut).factors["track"]).all()


def test_nothing_to_factorise_is_refused() -> None:
    with pytest.raises(MethodError, match="nothing to factorise"):
        SiMF(SMALL).fit(Relations({"user": ["u"], "track": ["t"]}, {("user", "track"): csr_matrix((1, 1))}))


# --- resume ---------------------------------------------------------------------------------------------------------


def test_resuming_does_not_raise_the_objective(relations: Relations) -> None:
    config = replace(SMALL, similarity={"relations": 1.0}, max_sweeps=5, tol=1e-12)
    first = SiMF(config).fit(relations)
    second = SiMF(config).fit(relations, init=first)
    assert second.history[0] <= first.history[-1] * (1 + 1e-12)
    assert second.history[-1] < first.history[-1]
    fresh = SiMF(replace(config, max_sweeps=10)).fit(relations)
    assert second.history[-1] == pytest.approx(fresh.history[-1], rel=1e-3)


def test_resume_maps_objects_by_id(relations: Relations, state: SiMFState) -> None:
    fewer = without(without(relations, "track", "track3"), "user", "user0")
    old = SiMF(SMALL).fit(fewer)
    start = starting_factors(relations, SMALL, old)
    kept = [n for n in range(30) if n != 3]
    np.testing.assert_array_equal(start["track"][kept], old.factors["track"])
    new = warm_start(old, "track", links_of(relations, "track", [3]))
    np.testing.assert_array_equal(start["track"][3], new[0])
    back = starting_factors(fewer, SMALL, state)
    np.testing.assert_array_equal(back["track"], state.factors["track"][kept])
    assert SiMF(SMALL).fit(fewer, init=state).factors["track"].shape == (29, 6)
    with pytest.raises(MethodError, match="cannot resume"):
        SiMF(replace(SMALL, dim=5)).fit(relations, init=state)


# --- warm start -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["track0", "track7", "track19"])
def test_warm_started_row_is_within_one_percent_of_a_joint_refit(lost: str) -> None:
    """O with the row put in, nothing else moved, against O after everything was refitted with the new track."""
    relations = planted_relations(4)
    config = SiMFConfig.dfmf(dim=6, max_sweeps=300, tol=1e-6)
    state = SiMF(config).fit(without(relations, "track", lost))
    at = list(relations.types["track"]).index(lost)
    links = links_of(relations, "track", [at])
    assert links[0]
    row = warm_start(state, "track", links)[0].astype(np.float64)
    factors = {**state.factors, "track": np.insert(state.factors["track"], at, row, axis=0)}
    alone = objective(prepare(relations, config), factors, state.cores, {}, {}, config).total
    joint = SiMF(config).fit(relations, init=state).history[-1]
    assert joint <= alone <= 1.01 * joint


def test_warm_start_reproduces_the_row_of_a_converged_fit() -> None:
    """Given the links it was trained on and everything else fixed, a trained row is its own warm start."""
    relations = random_relations(6, networks=0)
    state = SiMF(SiMFConfig.dfmf(dim=6, max_sweeps=400, tol=1e-12)).fit(relations)
    rows = warm_start(state, "track", links_of(relations, "track", range(30)))
    trained = state.factors["track"]
    linked = trained.any(axis=1)
    assert linked.sum() > 20
    assert np.abs(rows - trained)[linked].max() < 0.02 * np.abs(trained).max()


def test_unknown_links_give_the_mean_factor(state: SiMFState) -> None:
    cases = [{}, {"artist": {"nobody": 1.0}}, {"planet": {"x": 1.0}}, {"artist": {}}, {"artist": {"artist1": 0.0}}]
    rows = warm_start(state, "track", cases)
    mean = state.factors["track"].mean(axis=0).astype(np.float32)
    assert (rows == mean).all() and mean.any()
    known = warm_start(state, "track", [{"artist": {"artist1": 1.0}}, {"artist": {"artist1": 1.0, "nobody": 3.0}}])
    assert (known[0] == known[1]).all() and (known[0] != mean).any()


def test_neighbours_pull_the_row_towards_them(relations: Relations) -> None:
    state = SiMF(replace(SMALL, beta=1.0)).fit(relations)
    links = [{"artist": {"artist1": 1.0}}]
    near = state.factors["track"][5]
    alone = warm_start(state, "track", links)[0]
    pulled = warm_start(state, "track", links, [{"track5": 1.0, "nobody": 1.0}])[0]
    assert np.linalg.norm(pulled - near) < np.linalg.norm(alone - near)


def test_warm_start_refuses_bad_input(state: SiMFState) -> None:
    with pytest.raises(MethodError, match="no type 'planet'"):
        warm_start(state, "planet", [{}])
    with pytest.raises(MethodError, match="neighbours of 2"):
        warm_start(state, "track", [{}], [{}, {}])
    for value in (-1.0, float("nan"), float("inf")):
        with pytest.raises(MethodError, match="finite"):
            warm_start(state, "track", [{"artist": {"artist1": value}}])
    assert warm_start(state, "track", []).shape == (0, 6)


# --- storage --------------------------------------------------------------------------------------------------------


def test_state_survives_safetensors(state: SiMFState, relations: Relations, tmp_path: Path) -> None:
    save_file(state.to_arrays(), tmp_path / "simf.safetensors")
    again = SiMFState.from_arrays(load_file(tmp_path / "simf.safetensors"))
    assert again.version == state.version and again.config == state.config
    assert again.types == state.types and again.history == state.history
    links = links_of(relations, "track", range(30))
    assert warm_start(again, "track", links).tobytes() == warm_start(state, "track", links).tobytes()
    resumed = SiMF(SMALL).fit(relations, init=again)
    assert resumed.version == SiMF(SMALL).fit(relations, init=state).version


@pytest.mark.parametrize("lost", ["meta", "factor/track", "core/user/track", "gram/user/track", "network_scales/user"])
def test_incomplete_state_is_refused(state: SiMFState, lost: str) -> None:
    arrays = state.to_arrays()
    del arrays[lost]
    with pytest.raises(MethodError, match="not a stored SiMF state"):
        SiMFState.from_arrays(arrays)


# --- real data ------------------------------------------------------------------------------------------------------


def test_warm_started_track_lands_among_its_artist(data_dir: Path) -> None:
    """Held-out tracks of lfm_timeline, given their artist alone: their nearest tracks are mostly that artist's."""
    with (data_dir / "lfm_timeline" / "tracks.csv").open(newline="") as lines:
        rows = [TrackRow(r["track_id"], r["artist_id"] or None, r["album_id"] or None) for r in csv.DictReader(lines)]
    by_artist: defaultdict[str, list[TrackRow]] = defaultdict(list)
    for row in rows:
        if row.artist_id:
            by_artist[row.artist_id].append(row)
    chosen = [found for _, found in sorted(by_artist.items()) if len(found) >= 6][:300]
    held = [found[-1] for found in chosen]
    trained = [row for found in chosen for row in found[:-1]]
    known = {row.track_id for row in trained}
    with (data_dir / "lfm_timeline" / "plays.csv").open(newline="") as lines:
        played = Counter((r["user_id"], r["track_id"]) for r in csv.DictReader(lines) if r["track_id"] in known)
    built = relations_from_plays([(user, track, float(n)) for (user, track), n in played.items()], trained)
    state = SiMF(SiMFConfig(dim=50, max_sweeps=15)).fit(built)
    rows_new = warm_start(state, "track", [{"artist": {str(row.artist_id): 1.0}} for row in held])
    unit = state.factors["track"] / np.linalg.norm(state.factors["track"], axis=1, keepdims=True).clip(1e-12)
    artist = np.array([built_row.artist_id for built_row in sorted(trained, key=lambda row: row.track_id)])
    assert len(artist) == len(unit) > 3000
    top = np.argsort(-(rows_new @ unit.T), axis=1, kind="stable")[:, :10]
    same = artist[top] == np.array([row.artist_id for row in held])[:, None]
    # An artist with n < 10 trained tracks can fill n places only.
    room = np.array([min(10, len(found) - 1) for found in chosen])
    assert same.mean() >= 0.5
    assert (same.sum(axis=1) / room).mean() >= 0.6


def test_hetrec(data_dir: Path) -> None:
    built = load_hetrec(data_dir / "hetrec_lastfm2k")
    assert len(built.types["user"]) == 1892
    assert set(built.relations) == {("user", "artist"), ("artist", "tag"), ("user", "tag")}
    assert built.networks["user"][0].sum() == 25434  # 12,717 friendships, both ways
    u, a = built.types["user"].index("2"), built.types["artist"].index("51")
    assert built.relations["user", "artist"][u, a] == pytest.approx(np.log1p(13883))
    assert {"rock français", "die Ärzte"} <= set(built.types["tag"])  # Latin-1


def test_hetrec_forgets_pairs_but_no_ids(data_dir: Path) -> None:
    whole = load_hetrec(data_dir / "hetrec_lastfm2k")
    played, tagged = whole.relations["user", "artist"], whole.relations["user", "tag"]
    row = int(np.argmax(np.diff(tagged.indptr) * (np.diff(played.indptr) > 0)))
    pairs = [(whole.types["user"][row], whole.types["artist"][column]) for column in played[row].indices]
    cut = load_hetrec(data_dir / "hetrec_lastfm2k", pairs)
    assert cut.types == whole.types
    assert cut.relations["user", "artist"][row].nnz == 0 and cut.relations["user", "artist"].nnz == played.nnz - len(
        pairs
    )
    assert cut.relations["user", "tag"][row].sum() < tagged[row].sum()
    assert (cut.relations["artist", "tag"] != whole.relations["artist", "tag"]).nnz == 0


def test_hetrec_problems_are_named(tmp_path: Path) -> None:
    with pytest.raises(HetRecError, match=r"cannot read .*tags\.dat"):
        load_hetrec(tmp_path)
    (tmp_path / "tags.dat").write_text("tagID\tname\n1\trock\n", encoding="latin-1")
    with pytest.raises(HetRecError, match="no column tagValue"):
        load_hetrec(tmp_path)
