"""The trainer's gate and what it is judged on, with hand-made logs and real models."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from msam import checkpoint
from msam.config import TrainConfig
from msam.golden import Golden
from streams.profiles import NOBODY, Profile
from streams.records import ModelVersion, UserProfile
from streams.served import load_model
from streams.settings import load_settings
from streams.trainer import (
    Gate,
    LogState,
    Rival,
    Trainer,
    _take_profile,
    describe,
    heard_together,
    learned,
    newest_plays,
    score,
)
from tests.unit.serving_data import CONFIG, catalogue, made, plays, version_of

PARENT = ModelVersion("v0")


def state_of(log: list[tuple[str, str, float]]) -> LogState:
    """The log in one partition, in the order of time."""
    ordered = sorted(log, key=lambda play: play[2])
    return LogState([(*play, 0, offset) for offset, play in enumerate(ordered)], catalogue=catalogue())


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    """A sound artifact of a model that has its tracks mixed up."""
    good = checkpoint.load(made().path)
    with torch.no_grad():
        for name in ("frozen", "residual"):
            rows = getattr(good.model.u, name)
            rows.copy_(rows[torch.arange(len(rows)).roll(7)])
    path = checkpoint.save(
        tmp_path_factory.mktemp("bad"),
        good.model,
        good.track_ids,
        Golden.pick(made().data, CONFIG.window),
        arrays=good.arrays,
        extra=good.extra,
    )
    return version_of(path)


def trainer(home: Path, margin: float = 0.02, metric: str = "mrr@20") -> Trainer:
    settings = load_settings(home=home, bootstrap="localhost:1")
    return Trainer(settings, model=CONFIG, training=TrainConfig(holdout=0.5), gate=Gate(metric, margin))


def test_newest_plays_by_hand() -> None:
    log = [("u", f"t{n}", 100.0 - n, 0, n) for n in range(4)]  # t3 was played first
    log += [("v", "x", 5.0, 1, 0), ("v", "y", 5.0, 1, 1), ("w", "z", 1.0, 1, 2)]
    state = LogState(log)
    words = Profile(1, ("a",))
    queries, targets = newest_plays(state, 2, 0.5, PARENT, {"u": words})
    # u in time: t3 t2 | t1 t0; v: x | y; w's only play has no window before it.
    assert targets == ["t1", "t0", "y"]
    assert [query.tracks for query in queries] == [("t3", "t2"), ("t2", "t1"), ("x",)]
    assert [query.profile for query in queries] == [("a",), ("a",), ()]
    assert newest_plays(state, 1, 0.25, PARENT, {})[1] == ["t0"], "int(2 * 0.25) plays of v are none"
    seen = ModelVersion("v0", trained_through={"0": 1})
    assert newest_plays(state, 2, 0.5, seen, {})[1] == ["t1", "y"], "the parent was trained on offset 0 of partition 0"
    assert newest_plays(state, 2, 0.5, ModelVersion("v0", trained_through={"0": 4, "1": 3}), {}) == ([], [])
    assert newest_plays(LogState(), 2, 0.5, PARENT, {}) == ([], [])


def test_newest_plays_are_thinned_evenly() -> None:
    log = [("u", f"t{n}", float(n), 0, n) for n in range(5000)]
    queries, targets = newest_plays(LogState(log), 3, 0.5, PARENT, {})
    assert len(queries) == len(targets) == 1000 and targets[0] == "t2500" and targets[-1] == "t4999"
    for query, target in zip(queries, targets, strict=True):
        at = int(target[1:])
        assert query.tracks == tuple(f"t{n}" for n in range(at - 3, at))


def test_factors_do_not_know_the_plays_that_are_held_out() -> None:
    log = [("u", f"t{n % 3}", float(n), 0, 9 - n) for n in range(10)] + [("v", "x", 1.0, 1, 0)]
    known = learned(LogState(log), 0.2)
    assert [track for *_, track in known["u"]] == ["t0", "t1", "t2"] * 2 + ["t0", "t1"]
    assert [track for *_, track in known["v"]] == ["x"]
    assert len(learned(LogState(log), 0.0)["u"]) == 10


def test_plays_are_heard_together_until_half_an_hour_passes() -> None:
    at = [0.0, 1800.0, 3601.0, 3700.0]
    log = [("u", f"t{n}", time, 0, n) for n, time in enumerate(at)] + [("v", "t0", 0.0, 1, 0)]
    pairs = list(heard_together(learned(LogState(log), 0.0)))
    sessions = [session for session, _ in pairs]
    assert [track for _, track in pairs] == ["t0", "t1", "t2", "t3", "t0"]
    assert sessions[0] == sessions[1] != sessions[2] == sessions[3] and sessions[4] not in sessions[:4]


def test_trained_through_is_the_next_offset() -> None:
    log = [("u", "t", 1.0, 0, 5), ("u", "t", 1.0, 2, 0), ("u", "t", 1.0, 0, 3)]
    assert LogState(log).trained_through == {"0": 6, "2": 1} and LogState().trained_through == {}


def test_scores_by_hand() -> None:
    recommender = load_model(made().version, catalogue(), wait=0)
    queries, _ = newest_plays(state_of(plays()), CONFIG.window, 0.1, PARENT, {})
    lists = recommender.recommend(queries[:4], 20)
    targets = [lists[0][0].track_id, lists[1][3].track_id, lists[2][14].track_id, "nobody knows it"]
    assert score(recommender, queries[:4], targets) == {
        "hr@10": 0.5,
        "hr@20": 0.75,
        "mrr@20": pytest.approx((1 + 1 / 4 + 1 / 15) / 4),
    }
    assert score(recommender, [], []) == {"hr@10": 0.0, "hr@20": 0.0, "mrr@20": 0.0}


def judged(job: Trainer, state: LogState, candidate: ModelVersion) -> ModelVersion:
    parent = job._parent(state)
    assert parent is not None
    return job._judge(candidate, state, parent, {})


def test_the_gate_refuses_what_is_worse_by_more_than_the_margin(tmp_path: Path, bad: ModelVersion) -> None:
    state, good = state_of(plays()), made().version
    state.versions, state.live = {good.version: good}, good.version
    queries, targets = newest_plays(state, CONFIG.window, 0.5, good, {})
    figures = {
        version.version: score(load_model(version, state.catalogue, 0), queries, targets)["mrr@20"]
        for version in (good, bad)
    }
    gap = figures[good.version] - figures[bad.version]
    assert gap > 0.1, "the test's bad model has to be bad"
    refused = judged(trainer(tmp_path, gap - 0.001), state, bad)
    assert refused.state == "refused" and refused.reason is not None
    assert good.version in refused.reason and f"on {len(targets)} new plays" in refused.reason
    assert f"{figures[bad.version]:.4f}" in refused.reason and f"{figures[good.version]:.4f}" in refused.reason
    assert refused.metrics["gate_mrr@20"] == pytest.approx(figures[bad.version])
    assert refused.metrics["gate_best_mrr@20"] == pytest.approx(figures[good.version])
    assert refused.metrics["gate_plays"] == len(targets) > 50
    accepted = judged(trainer(tmp_path, gap + 0.001), state, bad)
    assert (accepted.state, accepted.reason) == ("accepted", None) and accepted.metrics == refused.metrics


def test_a_better_candidate_is_accepted(tmp_path: Path, bad: ModelVersion) -> None:
    state, good = state_of(plays()), made().version
    state.versions, state.live = {bad.version: bad}, bad.version
    found = judged(trainer(tmp_path, 0.0), state, good)
    assert found.state == "accepted" and found.metrics["gate_mrr@20"] > found.metrics["gate_best_mrr@20"]


def test_the_best_of_the_earlier_live_versions_counts(tmp_path: Path, bad: ModelVersion) -> None:
    """A slow decline is noticed: the last live version is no better than the candidate, an earlier one is."""
    state, good = state_of(plays()), made().version
    other = made(2, 1).version
    state.versions = {version.version: version for version in (good, other)}
    state.live = other.version
    found = judged(trainer(tmp_path), state, bad)
    assert found.state == "refused" and good.version in str(found.reason)


def test_without_a_live_model_or_new_plays_it_is_accepted(tmp_path: Path, bad: ModelVersion) -> None:
    state, good = state_of(plays()), made().version
    job = trainer(tmp_path)
    assert job._parent(state) is None and job._judge(bad, state, None, {}) == bad
    seen = dataclasses.replace(good, trained_through=state.trained_through)
    state.versions, state.live = {good.version: seen}, good.version
    found = judged(job, state, bad)
    assert found.state == "accepted" and found.metrics["gate_plays"] == 0.0


def test_rivals_are_the_newest_live_versions_that_load(tmp_path: Path, bad: ModelVersion) -> None:
    state, good, other = state_of(plays()), made().version, made(2, 1).version
    lost = ModelVersion("lost", uri=(tmp_path / "lost").as_uri(), sha256="0" * 64)
    state.versions = {version.version: version for version in (good, bad, other, lost)}
    state.live = other.version
    told: list[str] = []
    job = Trainer(load_settings(home=tmp_path, bootstrap="localhost:1"), model=CONFIG, say=told.append)
    assert [rival.record.version for rival in job._rivals(state, 5)] == [other.version, bad.version, good.version]
    assert len(told) == 1 and "lost" in told[0]
    parent = job._parent(state)
    assert parent is not None and parent.record == other


def test_training_goes_on_from_a_parent_of_the_same_shape(tmp_path: Path) -> None:
    good = made().version
    parent = Rival(good, load_model(good, catalogue(), wait=0))
    start = trainer(tmp_path)._init(parent)
    assert start is not None and start.model is parent.recommender.model
    assert start.track_ids == tuple(checkpoint.read_manifest(made().path)["track_ids"])
    wider = Trainer(load_settings(home=tmp_path, bootstrap="localhost:1"), model=dataclasses.replace(CONFIG, hidden=9))
    assert wider._init(parent) is None and wider._init(None) is None


def test_withdrawn_tracks_are_not_trained_on(tmp_path: Path) -> None:
    state = state_of(plays())
    state.catalogue.fold("metadata/t5", None, state.catalogue.version)
    data = trainer(tmp_path)._dataset(state, made().simf, {})
    played = {track for _, track, *_ in state.plays}
    every = played | set(state.catalogue.tracks)
    assert "t5" in played and set(data.track_ids) == every - {"t5"}, "those never played are ranked as cold ones"
    assert len(data.plays) == sum(track != "t5" for _, track, *_ in state.plays)


def test_profiles_are_the_last_that_can_be_read() -> None:
    from streams.serialization import encode

    state = LogState()
    _take_profile(state, b"u", encode(UserProfile("u", "f", 24)))
    _take_profile(state, b"u", b"garbage")
    assert state.profiles == {"u": UserProfile("u", "f", 24)}
    _take_profile(state, None, b"garbage")
    _take_profile(state, b"\xff", None)
    _take_profile(state, b"u", None)
    assert state.profiles == {} and state.profiles.get("u", NOBODY) == NOBODY


def test_a_version_as_the_command_line_shows_it() -> None:
    version = ModelVersion("v2", None, "v1", "file:///m/v2", "ab", 5.0, {"0": 3}, {"hr@20": 0.5}, "refused", "worse")
    assert describe(version) == {
        "version": "v2",
        "state": "refused",
        "reason": "worse",
        "parent": "v1",
        "created_at": 5.0,
        "metrics": {"hr@20": 0.5},
        "uri": "file:///m/v2",
        "sha256": "ab",
    }
