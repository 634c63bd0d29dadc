"""The wide head: the join by hand, what it learns, and that a model with it is stored whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from msam import checkpoint, wide_join
from msam.config import CountsConfig, MSAMConfig, TrainConfig
from msam.counts import FEATURES, CandidateMaker, Discography, KeyIndex, Plays, SharedCounts
from msam.evaluation.prequential import run
from msam.golden import Golden
from msam.network.wide import WideHead, WideInputs
from msam.training import train
from msam.wide_alone import WideAlone, train_alone
from msam.wide_candidates import inputs_of
from msam.wide_join import Held
from msam.wide_training import WideConfig, discography_of, stream_of
from tests.unit.network_data import PUBLISHED, SMALL, chain, model

QUICK = WideConfig(most=300, most_held=100, epochs=3, whole=0.34)


def head_of(weight: float) -> WideHead:
    """A head of one input whose score is `weight` times that."""
    head = WideHead(1, hidden=1)
    with torch.no_grad():
        for layer in (head.net[0], head.net[2]):
            layer.weight.fill_(1.0)
            layer.bias.fill_(0.0)
        head.net[4].weight.fill_(weight)
    return head


def test_join_adds_scores_to_candidates_and_an_offset_to_the_others() -> None:
    head = head_of(2.0)
    head.deep.fill_(0.5)
    head.others.fill_(-7.0)
    wide = WideInputs.of(
        torch.zeros(3, dtype=torch.int64), torch.tensor([2, -1, 0]), torch.tensor([[1.0], [9.0], [3.0]])
    )
    joined = head.join(torch.tensor([[1.0, 2.0, 3.0, -torch.inf]]), wide)
    assert joined.tolist() == [[0.5 + 6.0, 1.0 - 7.0, 1.5 + 2.0, -torch.inf]]


def test_an_untrained_head_changes_nothing() -> None:
    network = model(SMALL)
    logits = torch.randn(2, 5)
    wide = WideInputs.of(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 3, 1, -1]), torch.rand(4, SMALL.wide_inputs))
    assert torch.equal(network.join(logits, wide), logits)
    assert torch.equal(network.join(logits, None), logits)


def test_a_head_that_was_trained_on_scaled_features_takes_them_as_they_are() -> None:
    torch.manual_seed(1)
    head = WideHead(5)
    torch.nn.init.normal_(head.net[4].weight)
    features, mean, deviation = 3.0 * torch.rand(7, 5), torch.rand(5), 0.5 + torch.rand(5)
    before = head((features - mean) / deviation)
    head.fold(mean, deviation)
    assert torch.allclose(head(features), before, atol=1e-5)


def test_candidates_of_a_batch_get_the_scores_that_they_get_alone() -> None:
    torch.manual_seed(2)
    head, index = WideHead(len(FEATURES)), KeyIndex()
    torch.nn.init.normal_(head.net[4].weight)
    tracks = np.arange(1, 300)
    index.add(tracks[:-1])  # the last has no row
    plays = [Plays(tracks[:n], np.arange(n, dtype=np.float64)) for n in (299, 0, 200, 1)]  # more than CHUNK together
    config = CountsConfig(newest=300)
    maker, shared, book = CandidateMaker(config), SharedCounts(config), Discography()
    logits = torch.randn(4, len(tracks))
    joined = head.join(logits, inputs_of(maker.batch(plays, shared, book), index))
    for row, own in enumerate(plays):
        alone = head.join(logits[row : row + 1], inputs_of(maker.batch([own], shared, book), index))
        assert torch.equal(joined[row], alone[0])
    assert torch.equal(joined[1], logits[1]), "without plays there are no candidates"


def test_published_has_no_wide_head() -> None:
    assert not MSAMConfig(published=True, wide_head=True).wide_head
    assert model(PUBLISHED).wide_head is None


def test_the_join_trusts_whichever_is_right() -> None:
    count = 40
    place = torch.arange(count) % 2
    right = torch.nn.functional.one_hot(place, 2).float() * 6.0
    outside = torch.full((count, len(wide_join._DEEP)), -3.0)
    blind = Held(torch.zeros(count, 2), right, outside, right.gather(1, place.unsqueeze(1)).squeeze(1), place)
    assert wide_join.fit(blind).deep == 1.0
    lost = Held(right, 6.0 - right, outside, torch.zeros(count), place)
    assert wide_join.fit(lost).deep == 0.05


def test_alone_it_learns_a_chain_and_the_same_twice() -> None:
    data = chain(SMALL, plays=200)
    stream, book = stream_of(data), discography_of(data)
    heads = [train_alone(stream, book, SMALL.counts, QUICK)[0] for _ in range(2)]
    states = [head.state_dict() for head in heads]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    figures = run(stream, WideAlone(heads[0], SMALL.counts, book)).figures()
    assert figures["hr@20"] > 0.85
    assert figures["mrr@20"] > 0.6  # nine of ten plays follow the chain


def test_a_trained_model_is_stored_with_its_head_and_refused_when_that_is_changed(tmp_path: Path) -> None:
    data = chain(SMALL)
    trained = train(data, SMALL, TrainConfig(epochs=1, holdout=0.3), wide=QUICK)
    assert trained.model.wide_head is not None
    assert float(trained.model.wide_head.net[4].weight.detach().abs().sum()) > 0
    golden = Golden.pick(data, SMALL.window, wide_inputs=SMALL.wide_inputs)
    path = checkpoint.save(tmp_path, trained.model, trained.track_ids, golden)
    loaded = checkpoint.load(path)
    assert loaded.config.counts == SMALL.counts
    again = loaded.model.state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in trained.model.state_dict().items())
    before = golden.answers(trained.model, trained.track_ids)
    with torch.no_grad():
        trained.model.wide_head.net[4].weight.add_(1.0)
    assert golden.difference(trained.model, trained.track_ids, before) is not None


def test_stream_of_a_dataset_is_in_time_order() -> None:
    stream = stream_of(chain(SMALL, plays=10, people=2))
    assert (np.diff(stream.times) >= 0).all()
    assert stream.part.max() == pytest.approx(0.9)
