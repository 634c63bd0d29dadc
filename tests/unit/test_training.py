"""Training learns, stops, resumes, keeps cold tracks cold, and gives the same bits twice."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from msam import metrics
from msam.cold import Offered, share_places
from msam.config import MSAMConfig, TrainConfig
from msam.errors import MethodError
from msam.network import TrackInputs
from msam.network.inference import encode_catalogue
from msam.network.rows import ContentRows
from msam.sequences import Dataset, batches
from msam.training import Progress, Trained, TrainingError, _Run, evaluate, ranks, train, turned
from tests.unit.network_data import PUBLISHED, SMALL, chain, content, tracks, users

FAST = TrainConfig(epochs=10, batch=20, learning_rate=1.5e-2, patience=10, holdout=0.2)
CALM = dataclasses.replace(SMALL, dropout=0.0)


def popularity_hit(data: Dataset, holdout: float) -> float:
    """HR@1 of always naming the most played track of the training part."""
    seen, held = data.split(holdout)
    return float((data.plays[held] == np.bincount(data.plays[seen]).argmax()).mean())


@pytest.mark.parametrize("published", [False, True], ids=["extended", "published"])
def test_learns_a_chain_far_better_than_popularity(published: bool) -> None:
    config = dataclasses.replace(CALM, published=published)
    data = chain(config)
    heard: list[Progress] = []
    trained = train(data, config, FAST, progress=heard.append)
    rows = {track: row for row, track in enumerate(trained.track_ids)}
    places = np.array([rows.get(track, -1) for track in data.track_ids], dtype=np.int64)
    hit = metrics.hit_rate(ranks(trained.model, data, places, data.split(0.2)[1]), 1)
    assert hit > 0.6 > 4 * popularity_hit(data, 0.2)
    assert trained.report is not None and trained.report.losses[-1] < 0.6 * trained.report.losses[0]
    assert [step.epoch for step in heard] == list(range(1, trained.report.epochs + 1))
    assert trained.report.holdout == max(trained.report.history, key=lambda figures: figures["ndcg@20"])


@pytest.mark.parametrize("config", [SMALL, PUBLISHED], ids=["extended", "published"])
def test_two_runs_give_the_same_bits_and_another_seed_does_not(config: MSAMConfig) -> None:
    data, settings = chain(config, plays=40), TrainConfig(epochs=2, batch=30, holdout=0.2)
    torch.set_num_threads(2)
    before = torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    one, two = (train(data, config, settings).model.state_dict() for _ in range(2))
    other = train(data, config, TrainConfig(epochs=2, batch=30, holdout=0.2, seed=1)).model.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(before[0], torch.get_rng_state()), "the process's generator is left alone"
    after = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    assert before[1:] == after


def test_a_cold_track_with_familiar_content_ranks_beside_its_twin() -> None:
    """A track that was never trained on, with the content of one that was, is expected where that one is."""
    config = CALM
    data = chain(config)
    trained = train(data, config, FAST)
    twin = int(np.bincount(data.plays).argmax())
    both = TrackInputs(*(torch.cat([tensor, tensor[twin : twin + 1]]) for tensor in data.tracks))
    side = trained.model.encode_tracks(both)
    rows = {track: row for row, track in enumerate(trained.track_ids)}
    places = torch.tensor([rows.get(track, -1) for track in data.track_ids] + [-1])
    positions = np.flatnonzero(data.plays == twin)
    positions = positions[np.isin(positions, data.split(0.2)[0])][:20]
    window = torch.from_numpy(data.windows(positions, config.window))
    person = trained.model.encode_users(data.users).select(torch.from_numpy(data.owner(positions)))
    hidden = trained.model(side, window, person)
    scores = hidden.state @ trained.model.rows(side, places).T
    place = 1 + (scores[:, :-1] > scores[:, -1:]).sum(1)
    assert len(positions) > 5 and place.float().median() <= 3, place.tolist()


@pytest.mark.parametrize("config", [SMALL, PUBLISHED], ids=["extended", "published"])
def test_tracks_met_only_in_the_holdout_stay_cold(config: MSAMConfig) -> None:
    log = [("u", f"t{step % 5}", float(step)) for step in range(40)] + [
        ("u", "late", float(40 + step)) for step in range(4)
    ]
    ids = [f"t{row}" for row in range(5)] + ["late", "never"]
    data = Dataset.build(ids, tracks(7, config), ["u"], users(1, config), log)
    trained = train(data, config, TrainConfig(epochs=1, holdout=0.2))
    assert trained.track_ids == tuple(ids[:5])
    cold = trained.model.cold_rows(trained.model.encode_tracks(data.tracks))[5:]
    assert torch.isfinite(cold).all() and cold.abs().sum(1).min() > 0


@pytest.mark.parametrize("wide", [False, True])
def test_cold_tracks_get_as_many_places_as_plays(wide: bool) -> None:
    config = dataclasses.replace(CALM, cold_share=True, copy_head=False, wide_head=wide)
    ids = [f"t{row}" for row in range(40)]  # the last ten: only in the holdout, or never
    log = [("u", f"t{step % 30}", float(step)) for step in range(80)] + [
        ("u", f"t{30 + step // 4 if step % 4 == 3 else step}", float(80 + step)) for step in range(20)
    ]
    data = Dataset.build(ids, tracks(40, config), ["u"], users(1, config), log)
    model = train(data, config, TrainConfig(epochs=1, holdout=0.2)).model
    places, held = np.where(np.arange(40) < 30, np.arange(40), -1), data.split(0.2)[1]
    offered = None
    if model.wide_head is not None:  # there were too few plays to train it
        draw = torch.Generator().manual_seed(1)
        features = torch.randn(len(held), 12, config.wide_inputs, generator=draw)
        rows = torch.stack([torch.randperm(40, generator=draw)[:12] for _ in held])
        offered = Offered(held, rows, features)
        last = model.wide_head.net[-1]
        assert isinstance(last, torch.nn.Linear)
        torch.nn.init.normal_(last.weight, generator=draw)
        model.wide_head.deep.fill_(0.3)
        model.wide_head.others.fill_(-0.5)
        share_places(model, data, places, held, offered)
    with torch.inference_mode():
        side, rows, offsets = encode_catalogue(model, data.tracks, torch.from_numpy(places))
        window = torch.from_numpy(data.windows(held, config.window))
        person = model.encode_users(data.users).select(torch.from_numpy(data.owner(held)))
        logits = model.logits(model(side, window, person), rows, window) + offsets
        logits = model.join(logits, None if offered is None else offered.inputs(slice(None)))
    share = float((logits.topk(10).indices >= 30).float().mean())
    assert len(held) == 20 and abs(share - 6 / 21) < 0.01


@pytest.mark.parametrize("config", [SMALL, PUBLISHED], ids=["extended", "published"])
def test_a_warm_start_keeps_what_was_learned(config: MSAMConfig) -> None:
    data = chain(config, plays=60)
    first = train(data, config, TrainConfig(epochs=6, batch=20, learning_rate=1e-2, holdout=0.2, patience=6))
    rng = np.random.default_rng(5)
    more = TrackInputs(
        *(torch.cat(pair) for pair in zip(TrackInputs.build([content(rng, config)], config), data.tracks, strict=True))
    )
    log = [
        (data.user_ids[int(user)], data.track_ids[int(track)], float(at))
        for user, track, at in zip(data.owner(np.arange(len(data.plays))), data.plays, data.times, strict=True)
    ]
    log += [("u0", "new", 60.0), ("u0", "t1", 61.0), ("u0", "new", 62.0), ("u0", "t2", 63.0)]
    wider = Dataset.build(["new", *data.track_ids], more, data.user_ids, data.users, log)
    tiny = TrainConfig(epochs=1, batch=20, learning_rate=1e-9, holdout=0.0)
    again = train(wider, config, tiny, init=first)
    assert "new" in again.track_ids and "new" not in first.track_ids
    mine = torch.tensor([again.track_ids.index(track) for track in first.track_ids])
    torch.testing.assert_close(again.model.trained_rows()[mine], first.model.trained_rows(), atol=1e-4, rtol=1e-4)
    assert again.report is not None and first.report is not None
    assert again.report.losses[0] < 0.8 * first.report.losses[0]
    with pytest.raises(TrainingError, match="same configuration"):
        train(wider, MSAMConfig(), tiny, init=first)


def test_order_dropout_turns_its_part_of_the_windows_anew_at_every_step() -> None:
    torch.manual_seed(0)
    window = torch.arange(2000 * 6).reshape(2000, 6)
    window[:, :2] = -1
    first, second = turned(window, 0.4), turned(window, 0.4)
    assert first is not None and second is not None and not torch.equal(first, second)
    assert torch.equal(first.sort(1).values, torch.arange(6).expand(2000, 6))
    assert (window.gather(1, first)[:, :2] == -1).all(), "padding stays first"
    read = window.gather(1, first)[:, 2:]
    left = float((read == window[:, 2:]).all(1).float().mean())
    assert abs(left - (0.6 + 0.4 / 24)) < 0.05
    assert turned(window, 0.0) is None
    last = read[(read != window[:, 2:]).any(1)][:, -1] % 6
    assert (torch.bincount(last, minlength=6)[2:] > 100).all(), "any play can come last"


@pytest.mark.parametrize("config", [SMALL, PUBLISHED], ids=["extended", "published"])
def test_training_with_order_dropout_is_deterministic_and_differs(config: MSAMConfig) -> None:
    data = chain(config, plays=40)
    settings = TrainConfig(epochs=2, batch=30, holdout=0.2, order_dropout=0.5)
    first, again = (train(data, config, settings).report for _ in range(2))
    other = train(data, config, dataclasses.replace(settings, order_dropout=0.0)).report
    assert first is not None and again is not None and other is not None
    assert first.losses == again.losses != other.losses


@pytest.mark.parametrize("config", [SMALL, PUBLISHED], ids=["extended", "published"])
def test_what_is_kept_is_the_running_mean_of_the_weights(config: MSAMConfig) -> None:
    run = _Run(chain(config, plays=40), config, TrainConfig(holdout=0.0, average=0.9), None)
    positions, wanted = run.positions[:30], None
    for _ in range(5):
        run.step(positions)
        stepped = {name: weight.detach().clone() for name, weight in run.model.named_parameters()}
        wanted = wanted or stepped
        wanted = {name: 0.9 * wanted[name] + 0.1 * weight for name, weight in stepped.items()}
    assert wanted is not None
    for name, weight in run.result.named_parameters():
        torch.testing.assert_close(weight, wanted[name], atol=1e-6, rtol=1e-5)
    assert any(not torch.equal(weight, stepped[name]) for name, weight in run.result.named_parameters())


@pytest.mark.parametrize("holdout", [0.0, 0.2])
def test_a_model_of_averaged_weights_is_told_of_and_kept(holdout: float) -> None:
    data, config = chain(SMALL, plays=60), dataclasses.replace(SMALL, wide_head=False)
    settings = TrainConfig(epochs=8, batch=20, learning_rate=1e-2, patience=8, holdout=holdout, average=0.9)
    first, again = (train(data, config, settings) for _ in range(2))
    plain = train(data, config, dataclasses.replace(settings, average=0.0))
    mine, theirs, others = (one.model.state_dict() for one in (first, again, plain))
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert not torch.equal(mine["u.residual"], others["u.residual"])
    members = torch.tensor([data.track_ids.index(track) for track in first.track_ids])
    assert isinstance(first.model.u, ContentRows)
    rows = first.model.u.training_rows(first.model.all_content(data.tracks.select(members)), mine["u.residual"])
    assert torch.equal(first.model.trained_rows(), rows), "the rows are those of the mean, too"
    if holdout:
        places = np.full(len(data.track_ids), -1)
        places[members] = np.arange(len(members))
        assert first.report is not None
        assert first.report.holdout == evaluate(first.model, data, places, data.split(holdout)[1])


def test_early_stopping_keeps_the_best_epoch() -> None:
    data = chain(SMALL, plays=40)
    settings = TrainConfig(epochs=60, batch=20, learning_rate=3e-2, holdout=0.2, patience=2)
    report = train(data, SMALL, settings).report
    assert report is not None and report.stopped == "patience"
    assert report.epochs == report.best_epoch + 2 < 60
    assert report.holdout == report.history[report.best_epoch - 1]


def test_the_time_budget_is_honoured() -> None:
    data = chain(SMALL)
    report = train(data, SMALL, TrainConfig(epochs=10_000, patience=10_000, max_seconds=0.5)).report
    assert report is not None and report.stopped == "time" and report.seconds < 5
    nothing = train(data, SMALL, TrainConfig(max_seconds=1e-9))
    assert nothing.report is not None and nothing.report.losses == () and nothing.report.epochs == 0
    assert torch.isfinite(nothing.model.trained_rows()).all()


def test_windows_are_the_plays_before_by_user_and_time() -> None:
    log = [("b", "t1", 5.0), ("a", "t0", 2.0), ("a", "t2", 1.0), ("b", "t0", 4.0), ("a", "t1", 2.0)]
    data = Dataset.build(["t0", "t1", "t2"], tracks(3), ["a", "b"], users(2), log)
    assert data.plays.tolist() == [2, 0, 1, 0, 1] and data.starts.tolist() == [0, 3, 5]
    assert data.windows(np.array([0, 1, 2, 3, 4]), 2).tolist() == [[-1, -1], [-1, 2], [2, 0], [-1, -1], [-1, 0]]
    assert data.owner(np.arange(5)).tolist() == [0, 0, 0, 1, 1]
    train_part, held = data.split(0.5)
    assert train_part.tolist() == [1] and held.tolist() == [2, 4]


def test_batches_hold_every_position_once() -> None:
    positions = np.arange(5, 108, dtype=np.int64)
    made = batches(positions, 10, 25, torch.Generator().manual_seed(0))
    assert [len(part) for part in made] == [25, 25, 25, 25, 3]
    assert sorted(np.concatenate(made).tolist()) == positions.tolist()
    assert np.concatenate(made).tolist() != positions.tolist()


def test_what_cannot_be_trained_on_is_refused() -> None:
    one = Dataset.build(["t0"], tracks(1), ["a"], users(1), [("a", "t0", 0.0)])
    with pytest.raises(TrainingError, match="two plays"):
        train(one, SMALL, TrainConfig())
    with pytest.raises(MethodError, match="no content row"):
        Dataset.build(["t0"], tracks(1), ["a"], users(1), [("a", "t9", 0.0)])
    assert issubclass(TrainingError, MethodError) and Trained._fields[0] == "model"
