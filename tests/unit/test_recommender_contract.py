"""One contract for every recommender of the table."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from msam.baselines import PEERS, SYSTEMS, able, system
from msam.baselines.contract import BaselineError, Recommender, Scores
from msam.baselines.cornac_peers import CornacPeer
from msam.baselines.msam import MSAMPublished
from msam.baselines.neural import NeuralRecommender
from msam.errors import MethodError
from msam.listening import History, Listening
from tests.unit.evaluation_data import listening

EVERY = [name for name in SYSTEMS if able(name)]
DATA = listening()
TRAIN = DATA.first(DATA.cuts(0.2))
AFTER = DATA.histories(DATA.targets(DATA.cuts(0.2))[::3])


def made(name: str, epochs: int = 1, batch: int = 40, **more: Any) -> Recommender:
    """The system, made to train for just so many epochs where it trains."""
    recommender = system(name)()
    changes: dict[str, Any] = {"epochs": epochs, "batch": batch, **more}
    if isinstance(recommender, NeuralRecommender):
        recommender.settings = replace(recommender.settings, steps=1, **changes)
    elif isinstance(recommender, MSAMPublished):
        recommender.training, recommender.steps = replace(recommender.training, **changes), 1
    return recommender


def fitted(name: str, seed: int = 0, train: Listening = TRAIN) -> Recommender:
    recommender = made(name)
    recommender.fit(train, seed)
    return recommender


@pytest.mark.parametrize("name", EVERY)
def test_scores_the_whole_catalogue(name: str) -> None:
    recommender = fitted(name)
    scores = recommender.score(AFTER)
    assert scores.shape == (len(AFTER), len(DATA.items)) and scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert recommender.name == name
    assert recommender.logits or (scores >= 0).all()
    assert len({row.tobytes() for row in scores}) > 1 or name == "popularity", "every history has the same scores"


@pytest.mark.parametrize("name", EVERY)
def test_ten_runs_with_one_seed_are_bit_identical_and_another_seed_differs(name: str) -> None:
    first = fitted(name).score(AFTER).tobytes()
    for _ in range(9):
        np.random.seed()  # the state of global generators must not matter
        torch.manual_seed(int(np.random.randint(1 << 30)))
        assert fitted(name).score(AFTER).tobytes() == first
    assert (fitted(name, seed=1).score(AFTER).tobytes() != first) == system(name).seeded


@pytest.mark.parametrize("name", EVERY)
def test_what_is_loaded_scores_as_what_was_saved(name: str, tmp_path: Path) -> None:
    recommender = fitted(name)
    learn(recommender)
    recommender.save(tmp_path / "model")
    again = type(recommender).load(tmp_path / "model")
    assert again.score(AFTER).tobytes() == recommender.score(AFTER).tobytes()
    learn(recommender)
    learn(again)
    assert again.score(AFTER).tobytes() == recommender.score(AFTER).tobytes()
    other = system("popularity" if name != "popularity" else "markov")
    with pytest.raises(BaselineError, match=re.escape(f"holds '{name}'")):
        other.load(tmp_path / "model")
    with pytest.raises(BaselineError, match="holds no stored"):
        type(recommender).load(tmp_path)


def learn(recommender: Recommender) -> None:
    """Every test play, learned after its history."""
    for position in DATA.targets(DATA.cuts(0.2))[:20].tolist():
        recommender.update(DATA.history(position), int(DATA.plays[position]), float(DATA.times[position]))


@pytest.mark.parametrize("name", EVERY)
def test_data_and_histories_are_left_as_they_are(name: str) -> None:
    mine = copy.deepcopy(TRAIN)
    recommender = fitted(name, train=mine)
    before = [(history.items.copy(), history.times.copy()) for history in AFTER]
    recommender.score(AFTER)
    learn(recommender)
    assert (mine.plays == TRAIN.plays).all() and (mine.times == TRAIN.times).all()
    assert all(torch.equal(a, b) for a, b in zip(mine.content.tracks, TRAIN.content.tracks, strict=True))
    assert (mine.content.mel == TRAIN.content.mel).all()
    for history, (items, times) in zip(AFTER, before, strict=True):
        assert (history.items == items).all() and (history.times == times).all()


@pytest.mark.parametrize("name", EVERY)
def test_a_score_does_not_depend_on_its_neighbours(name: str) -> None:
    recommender = fitted(name)
    whole = recommender.score(AFTER)
    alone: Scores = np.concatenate([recommender.score([history]) for history in AFTER])
    np.testing.assert_allclose(alone, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_a_listener_without_plays_gets_scores(name: str) -> None:
    nobody = History(0, np.zeros(0, np.int64), np.zeros(0))
    scores = fitted(name).score([nobody, AFTER[0]])
    assert scores.shape == (2, len(DATA.items)) and np.isfinite(scores).all()


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_without_its_library_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msam.baselines.find_spec", lambda _: None)
    with pytest.raises(BaselineError, match=re.escape(f"{name} needs the library cornac: pip install 'msam[peers]'")):
        system(name)
    assert not able(name) and able("vstan")


if all(able(name) for name in PEERS):  # an empty list of parameters would be a skipped test

    @pytest.mark.parametrize("name", PEERS)
    def test_peers_score_as_their_library_does_and_what_was_not_met_least(name: str) -> None:
        recommender = fitted(name)
        assert isinstance(recommender, CornacPeer)
        place = recommender.network.place.numpy()
        theirs = recommender.model(1)
        theirs.model, theirs.pad_idx, theirs.num_items = recommender.network.inner, place.max() + 1, place.max() + 1
        for history in AFTER[:8]:
            mine = recommender.score([history])[0]
            context = recommender.context(history)
            known = place[context[place[context] >= 0]].tolist()
            assert len(known) > 0
            np.testing.assert_allclose(mine[place >= 0], theirs.score(0, known), rtol=1e-4, atol=1e-5)
            assert (place < 0).any() and (mine[place < 0] == mine.min()).all()

    def test_numpys_generator_is_left_as_it_is() -> None:
        np.random.seed(3)
        expected = np.random.random(4)
        np.random.seed(3)
        fitted("gru4rec")
        assert (np.random.random(4) == expected).all()


LEARNERS = ["popularity", "personal-popularity", "markov", "mix", "blend", "vsknn", "stan", "vstan"]


@pytest.mark.parametrize("name", LEARNERS)
def test_counts_learn_from_a_play(name: str) -> None:
    recommender = fitted(name)
    history, item = DATA.history(int(DATA.cuts(0.2)[0])), len(DATA.items) - 1  # an item that nobody played
    before = recommender.score([history])[0, item]
    for user in range(1, 4):
        here = DATA.history(int(DATA.cuts(0.2)[user]))
        moved = History(user, np.append(here.items, history.items[-1]), np.append(here.times, here.times[-1] + 9.0))
        recommender.update(here, int(history.items[-1]), float(moved.times[-1]))
        recommender.update(moved, item, float(moved.times[-1]) + 9.0)
    assert recommender.score([history])[0, item] > before


def test_the_wide_head_learns_from_a_play_and_is_stored(tmp_path: Path) -> None:
    """On enough plays for the head to be trained, which the small log has not."""
    data = listening(plays=160)
    recommender = fitted("msam-extended", train=data.first(data.cuts(0.2)))
    history = data.history(int(data.cuts(0.2)[0]))
    before = recommender.score([history])
    for user in range(1, 4):
        other = data.history(int(data.cuts(0.2)[user]))
        recommender.update(other, int(history.items[-1]), float(other.times[-1]) + 9.0)
        recommender.update(other, 0, float(other.times[-1]) + 18.0)
    after = recommender.score([history])
    assert (after != before).any()
    recommender.save(tmp_path)
    assert type(recommender).load(tmp_path).score([history]).tobytes() == after.tobytes()


def test_the_extended_model_is_as_wide_as_its_factors_and_the_published_one_as_the_paper_says() -> None:
    known = DATA.content.tracks
    narrow = known.factor[:, :8].contiguous(), known.artist_factor[:, :8].contiguous()
    data = replace(TRAIN, content=replace(DATA.content, narrow=narrow))
    sizes = {}
    for name in ("msam", "msam+copy-head", "msam-extended"):
        recommender = fitted(name, train=data)
        assert isinstance(recommender, MSAMPublished) and np.isfinite(recommender.score(AFTER)).all()
        sizes[name] = recommender.model.config.dim, recommender.model.config.hidden
    assert sizes == {"msam": (12, 10), "msam+copy-head": (12, 10), "msam-extended": (8, 8)}


CHAIN = ["markov", "mix", "blend", "vlhm", "dlan", "mcum", "blcr", "msam", "msam-extended"]
CHAIN += [name for name in PEERS if able(name)]


@pytest.mark.parametrize("name", CHAIN)
def test_learns_a_chain_better_than_popularity(name: str) -> None:
    data = listening(plays=120)
    cuts = data.cuts(0.2)
    epochs = 6 if issubclass(system(name), MSAMPublished) else 8
    recommender = made(name, epochs=epochs, batch=20, learning_rate=1e-2, patience=epochs)
    recommender.fit(data.first(cuts), 0)
    places = data.targets(cuts)
    best = recommender.score(data.histories(places)).argmax(axis=1)
    popular = data.first(cuts).popularity().argmax()
    hit, base = (best == data.plays[places]).mean(), (data.plays[places] == popular).mean()
    assert hit > 0.3 > 2 * base, f"{hit:.3f}, popularity {base:.3f}"


@pytest.mark.parametrize("name", [name for name in EVERY if system(name).seeded])
def test_a_log_without_a_second_play_is_refused_or_learned_from(name: str) -> None:
    single = DATA.first(DATA.starts[:-1] + 1)
    try:
        recommender = fitted(name, train=single)
    except MethodError as error:
        assert re.search("two plays", str(error)), error
    else:
        assert np.isfinite(recommender.score(AFTER)).all()
