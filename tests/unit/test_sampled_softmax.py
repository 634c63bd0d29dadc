"""A softmax over drawn tracks stands for one over all: its normaliser is right on average."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from msam.config import TrainConfig
from msam.sampled_softmax import draw
from msam.training import train
from tests.unit.network_data import SMALL, chain


def test_the_sure_ones_and_as_many_others_as_asked_for() -> None:
    sure = torch.tensor([[7, 7, -1], [3, 90, -1]])
    drawn = draw(100, sure, 10)
    assert len(drawn.tracks) == 13 and drawn.tracks.tolist() == sorted(set(drawn.tracks.tolist()))
    assert {3, 7, 90} <= set(drawn.tracks.tolist())
    assert torch.equal(drawn.tracks[drawn.places[drawn.tracks]], drawn.tracks)
    assert int((drawn.places >= 0).sum()) == 13
    known = torch.isin(drawn.tracks, sure)
    assert (drawn.weights[known] == 0).all()
    torch.testing.assert_close(drawn.weights[~known], torch.full((10,), float(np.log(97 / 10))))


def test_the_normaliser_is_right_on_average() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        logits, sure = 2 * torch.randn(60), torch.tensor([0, 1, 2])
        sums = []
        for _ in range(20_000):
            drawn = draw(60, sure, 12)
            sums.append(float((logits[drawn.tracks] + drawn.weights).exp().sum()))
    whole = float(logits.exp().sum())
    error = float(np.std(sums)) / len(sums) ** 0.5
    assert abs(np.mean(sums) - whole) < 4 * error < 0.02 * whole


def test_more_negatives_than_tracks_is_the_full_softmax() -> None:
    drawn = draw(20, torch.tensor([4]), 19)
    assert drawn.tracks.tolist() == drawn.places.tolist() == list(range(20)) and not drawn.weights.any()


def test_training_on_a_third_of_the_tracks_learns_the_chain_as_well() -> None:
    """Both rank the whole catalogue at the end."""
    config = dataclasses.replace(SMALL, dropout=0.0)
    data = chain(config)
    fast = TrainConfig(epochs=8, batch=5, learning_rate=1e-2, patience=8, holdout=0.2, chunk=5, residual_dropout=0.0)
    full, some = (train(data, config, dataclasses.replace(fast, negatives=n)).report for n in (0, 4))
    assert full is not None and some is not None
    assert some.losses != full.losses, "nothing was drawn"
    assert some.holdout["hr@10"] > 0.8 and some.holdout["ndcg@20"] > full.holdout["ndcg@20"] - 0.1
