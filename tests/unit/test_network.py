"""The network: exact caching, masks, padding, attention weights, extensions that can be switched off, same bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from msam.config import EXTENSIONS, ConfigError, MSAMConfig, TrainConfig
from msam.network import MSAM, TrackContent, TrackInputs, TrackSide, UserInputs, inference
from msam.network.attention import GroupAttention, masked_softmax
from msam.network.copy_head import CopyHead, window_facts
from msam.network.inputs import InputError
from msam.network.model import by_chance
from msam.network.rows import ContentRows, FreeRows
from tests.unit.network_data import PUBLISHED, SMALL, content, model, tracks, users

BOTH = pytest.mark.parametrize("config", [SMALL, PUBLISHED], ids=["extended", "published"])


def windows(count: int, catalogue: int, size: int, seed: int = 3) -> Tensor:
    rng = np.random.default_rng(seed)
    lists = [rng.integers(0, catalogue, rng.integers(1, size + 1)).tolist() for _ in range(count)]
    return inference.stack_windows(lists, size, count)


@BOTH
def test_cached_side_has_the_bits_of_a_fresh_one(config: MSAMConfig) -> None:
    network, inputs = model(config), tracks(20, config)
    cached = inference.encode_tracks(network, inputs)
    some = torch.tensor([17, 2, 11, 5])
    fresh = inference.encode_tracks(network, inputs.select(some))
    for name, mine, theirs in zip(TrackSide._fields, cached.select(some), fresh, strict=True):
        assert torch.equal(mine, theirs), name
    people = inference.encode_users(network, users(2, config))
    window = torch.tensor([[-1, -1, 0, 1, 2, 3], [-1, 3, 2, 2, 1, 0]])
    through_cache = network(cached, torch.where(window >= 0, some[window.clamp(min=0)], -1), people)
    directly = network(fresh, window, people)
    for name, mine, theirs in zip(directly._fields, through_cache, directly, strict=True):
        assert torch.equal(mine, theirs), name


def test_side_helpers_put_tracks_where_they_belong() -> None:
    network = model()
    side = inference.encode_tracks(network, tracks(9))
    grown = side.head(3).grown(9)
    grown.scatter(torch.arange(3, 9), side.select(torch.arange(3, 9)))
    again = TrackSide.cat([side.head(4), side.select(torch.arange(4, 9))])
    for whole, one, two in zip(side, grown, again, strict=True):
        assert torch.equal(whole, one) and torch.equal(whole, two)


def test_a_track_without_audio_or_text_ignores_their_values() -> None:
    network, inputs = model(), tracks(20)
    values = inputs._asdict()
    values["audio"] = torch.where(inputs.audio_mask.view(-1, 1, 1), inputs.audio, 1e3)
    values["words"] = torch.where(inputs.word_mask.unsqueeze(-1), inputs.words, 7.0)
    noisy = TrackInputs(**values)
    assert not torch.equal(noisy.audio, inputs.audio) and not torch.equal(noisy.words, inputs.words)
    for name, mine, theirs in zip(
        TrackSide._fields, network.encode_tracks(inputs), network.encode_tracks(noisy), strict=True
    ):
        assert torch.equal(mine, theirs), name


def test_missing_is_not_the_same_as_zero() -> None:
    network = model()
    words = np.ones((1, SMALL.text_dim), np.float32)
    zero = np.zeros((SMALL.audio_groups, SMALL.audio_width), np.float32)
    side = network.encode_tracks(
        TrackInputs.build([TrackContent(words, [0]), TrackContent(words, [0], audio=zero)], SMALL)
    )
    assert side.audio_present.tolist() == [False, True]
    gamma = network(side, torch.tensor([[-1] * 5 + [0], [-1] * 5 + [1]]), network.encode_users(users(2))).gamma
    assert gamma[0, -1, 0] == 0.0 and gamma[1, -1, 0] > 0.0


@BOTH
def test_padding_changes_nothing(config: MSAMConfig) -> None:
    """A short window in a wide batch equals the same window alone at its own length."""
    network = model(config)
    side, person = network.encode_tracks(tracks(20, config)), network.encode_users(users(1, config))
    for plays in ([4], [4, 9], [7, 7, 3, 4]):
        wide = network(side, inference.stack_windows([plays], config.window, 1), person)
        alone = network(side, torch.tensor([plays]), person)
        torch.testing.assert_close(wide.state, alone.state, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(wide.gamma[:, -len(plays) :], alone.gamma, atol=1e-6, rtol=1e-5)
        assert not wide.gamma[:, : -len(plays)].any()
    empty = network(side, torch.full((1, config.window), -1), person)
    assert not empty.state.any() and torch.isfinite(empty.fused).all()


def test_word_order_beyond_the_words_does_not_matter_to_neighbours() -> None:
    network, inputs = model(), tracks(4)
    short = inputs.select(torch.tensor([0]))
    wide = TrackInputs(
        torch.cat([short.words, torch.full_like(short.words, 3.0)], 1),
        torch.cat([short.fields, torch.full_like(short.fields, -1)], 1),
        *short[2:],
    )
    torch.testing.assert_close(network.encode_tracks(wide).text, network.encode_tracks(short).text)


def test_attention_weights_sum_to_one_where_something_is_present() -> None:
    network, inputs, people = model(), tracks(20), users(8)
    side, user = network.encode_tracks(inputs), network.encode_users(people)
    window = windows(8, 20, SMALL.window)
    hidden = network(side, window, user)
    weights = network.explain(hidden, side, window, user)
    played = window >= 0
    ones = torch.ones(int(played.sum()))
    torch.testing.assert_close(weights.gamma.sum(-1)[played], ones)
    sounding = played & side.audio_present[window.clamp(min=0)]
    torch.testing.assert_close(weights.beta.sum(-1), sounding.float())
    written = played & (side.text_present[window.clamp(min=0)] | user.text_present.unsqueeze(1))
    assert 0 < int(written.sum()) < int(played.sum()), "both cases must occur"
    torch.testing.assert_close(weights.alpha.sum(-1) + weights.user_alpha.sum(-1), written.float())
    assert (weights.gamma[..., 0] == 0)[played & ~sounding].all()
    assert (weights.gamma[..., 1] == 0)[played & ~written].all()


@BOTH
def test_without_attention_every_weight_is_the_same(config: MSAMConfig) -> None:
    plain = model(replace(config, attention=False))
    side = inference.encode_tracks(plain, tracks(20, config))
    there = side.beta.any(dim=1)
    assert torch.allclose(side.beta[there], torch.full_like(side.beta[there], 1 / config.audio_groups))
    window, people = windows(8, 20, config.window), inference.encode_users(plain, users(8, config))
    told = plain.explain(plain(side, window, people), side, window, people)
    weights = told.gamma[told.gamma > 0]
    assert torch.isin((1 / weights).round(decimals=4), torch.tensor([1.0, 2.0, 3.0])).all()


@BOTH
def test_without_order_a_window_is_a_set(config: MSAMConfig) -> None:
    window = torch.tensor([[-1, -1, 4, 1, 9, 4], [2, 3, 5, 7, 11, 13]])
    turned = torch.tensor([[-1, -1, 9, 4, 4, 1], [13, 2, 11, 3, 7, 5]])
    for order in (False, True):
        network = model(replace(config, order=order))
        side = inference.encode_tracks(network, tracks(20, config))
        people = inference.encode_users(network, users(2, config))
        same = torch.equal(network(side, window, people).state, network(side, turned, people).state)
        assert same is not order


def test_without_order_another_window_has_another_order_of_the_same_plays() -> None:
    window = torch.from_numpy(np.random.default_rng(0).integers(0, 500, (4000, 8)))
    window[:, 2:4] = torch.tensor([7, 400])
    turned = window.gather(1, by_chance(window))
    assert torch.equal(turned.sort(1).values, window.sort(1).values)
    first = (turned == 7).int().argmax(1) < (turned == 400).int().argmax(1)
    assert 0.46 < float(first.float().mean()) < 0.54, "neither of the two is always before the other"


@BOTH
def test_another_order_is_read_but_the_plays_keep_their_places(config: MSAMConfig) -> None:
    network = model(config)
    side, people = (
        inference.encode_tracks(network, tracks(20, config)),
        inference.encode_users(network, users(2, config)),
    )
    window = torch.tensor([[-1, -1, 4, 1, 9, 4], [2, 3, 5, 7, 11, 13]])
    order = torch.tensor([[0, 1, 4, 5, 2, 3], [5, 0, 4, 1, 3, 2]])
    read, turned = network(side, window, people, order), network(side, window.gather(1, order), people)
    assert torch.equal(read.state, turned.state) and not torch.equal(read.state, network(side, window, people).state)
    for row, places in enumerate(order.tolist()):
        assert torch.equal(read.fused[row, places], turned.fused[row])
        assert torch.equal(read.gamma[row, places], turned.gamma[row])
        assert torch.equal(read.text_share[row, places], turned.text_share[row])
        assert torch.equal(read.mask[row, places], turned.mask[row])


@torch.no_grad()
def test_group_attention_is_added_to_the_scores_and_nothing_else() -> None:
    plain, heeding = model(SMALL), model(replace(SMALL, group_attention=True))
    assert heeding.groups is not None
    heeding.groups.gain.fill_(1.0)
    heeding.cold_scale.fill_(0.5)
    mine = {name: tensor for name, tensor in heeding.state_dict().items() if not name.startswith("groups.")}
    assert set(mine) == set(plain.state_dict())
    plain.load_state_dict(mine)
    trained = torch.arange(20).where(torch.arange(20) % 3 > 0, -1)
    one, two = (inference.encode_catalogue(network, tracks(20), trained) for network in (plain, heeding))
    for name, values, theirs in zip(TrackSide._fields, one.side, two.side, strict=True):
        assert name == "groups" or torch.equal(values, theirs), name
    window, people = windows(8, 20, SMALL.window), inference.encode_users(plain, users(8))
    logits, _ = inference.score(plain, one.side, one.rows, window, people)
    found, hidden = inference.score(heeding, two.side, two.rows, window, people)
    there = (window >= 0) & two.side.audio_present[window.clamp(min=0)]
    heeded = heeding.groups(two.side.groups[window.clamp(min=0)], there)
    scale = torch.where(trained < 0, 0.5, 1.0)
    torch.testing.assert_close(found, logits + heeded @ two.side.groups.flatten(1).T * scale)
    assert bool(heeded[there.any(1)].any(1).all()) and not bool(heeded[~there.any(1)].any()), "sound alone tells"
    assert hidden.query.shape[1] == two.rows.shape[1] == heeding.row_width > one.rows.shape[1] == plain.row_width


@pytest.mark.parametrize("attend", [True, False])
def test_group_attention_goes_to_the_group_in_which_the_plays_agree(attend: bool) -> None:
    audio = torch.from_numpy(np.random.default_rng(0).normal(size=(300, 5, 4))).float()
    sounding = torch.arange(300) >= 5
    attention = GroupAttention(groups=5, width=4, attend=attend)
    attention.fit(audio, sounding)
    values = attention.encode(audio, sounding)
    assert not bool(values[:5].any())
    torch.testing.assert_close(values[5:].square().mean((0, 1)), torch.ones(4), atol=1e-4, rtol=0)
    alike = audio[:, 3, 0].topk(12).indices
    _, weights = attention.weighed(values[alike].unsqueeze(0), sounding[alike].unsqueeze(0))
    if attend:
        assert weights.argmax() == 3 and weights[0, 3] > 0.9
    else:
        torch.testing.assert_close(weights, torch.full((1, 5), 0.2))


def test_union_of_track_and_user_words_is_one_softmax() -> None:
    """The joined log-sum-exps equal a softmax over all positions at once."""
    network, inputs, people = model(), tracks(1), users(1)
    side, user = network.encode_tracks(inputs), network.encode_users(people)
    window = torch.tensor([[0]])
    hidden = network(side, window, user)
    weights = network.explain(hidden, side, window, user)
    both = []
    for words, mask, joined in ((inputs.words, inputs.word_mask, network._joined(inputs)), (*people, None)):
        both.append((network.text_attention.project(network.text_cnn(words.float(), mask, joined)), mask))
    values = torch.cat([value for value, _ in both], 1)
    alpha = masked_softmax(network.text_attention.score(values), torch.cat([mask for _, mask in both], 1))
    torch.testing.assert_close(torch.cat([weights.alpha[0], weights.user_alpha[0]], -1), alpha)
    text = (hidden.text_share[0, 0, 0] * side.text + hidden.text_share[0, 0, 1] * user.text)[0]
    torch.testing.assert_close(text, (alpha.unsqueeze(-1) * values).sum(1)[0])


def test_masked_softmax_of_nothing_is_zero() -> None:
    weights = masked_softmax(torch.tensor([[5.0, 1e4], [1.0, 2.0]]), torch.tensor([[False, False], [True, False]]))
    assert weights.tolist() == [[0.0, 0.0], [1.0, 0.0]]


def test_text_convolution_is_the_convolution_of_torch() -> None:
    network = model()
    cnn, words = network.text_cnn, torch.randn(2, 5, SMALL.text_dim, generator=torch.Generator().manual_seed(0))
    got = cnn(words, torch.ones(2, 5, dtype=torch.bool))
    start, expected = 0, []
    for width in cnn.kernel_widths:
        taps = cnn.taps.weight[start : start + width * cnn.filters].view(width, cnn.filters, -1)
        start += width * cnn.filters
        series = torch.nn.functional.pad(words.transpose(1, 2), ((width - 1) // 2, width // 2))
        expected.append(torch.nn.functional.conv1d(series, taps.permute(1, 2, 0)))
    torch.testing.assert_close(got, torch.relu(torch.cat(expected, 1).transpose(1, 2) + cnn.bias))


def test_window_facts_by_hand() -> None:
    facts = window_facts(torch.tensor([[-1, 5, 7, 5, 9, 5]]))
    assert facts.newest.tolist() == [[False, False, True, False, True, True]]
    assert [facts.rank[0, place].item() for place in (2, 4, 5)] == [2, 1, 0]
    follows = facts.features[0, :, 1]  # after the last track (5): 7 once, 9 once
    assert [follows[place].item() for place in (2, 4, 5)] == [1.0, 1.0, 0.0]
    assert facts.features[0, 5, 0].item() == pytest.approx(np.log(3))


def test_copy_scores_reach_only_the_tracks_of_the_window() -> None:
    network = model()
    side, user = network.encode_tracks(tracks(20)), network.encode_users(users(1))
    window = torch.tensor([[-1, 5, 7, 5, 9, 5]])
    hidden, rows = network(side, window, user), network.rows(side, torch.arange(20))
    plain = hidden.state @ rows.T
    added = network.logits(hidden, rows, window) - plain
    assert added[0].nonzero().flatten().tolist() == [5, 7, 9]
    assert added[0, 5] > added[0, 9] > added[0, 7], "before training, the newest comes first"


def test_published_model_has_none_of_the_extensions() -> None:
    published, extended = model(PUBLISHED), model(SMALL)
    assert not any(getattr(PUBLISHED, name) for name in EXTENSIONS)
    assert isinstance(published.u, FreeRows) and isinstance(extended.u, ContentRows)
    names = set(published.state_dict())
    assert not any(name.startswith(("copy_head", "raw_content", "u.map", "u.residual")) for name in names)
    assert isinstance(extended.copy_head, CopyHead) and published.copy_head is None
    assert published.u.weight.shape == (20, 2 * PUBLISHED.dim)


@BOTH
def test_rows_of_trained_tracks_stay_and_cold_tracks_get_theirs(config: MSAMConfig) -> None:
    network = model(config)
    other = inference.encode_tracks(network, tracks(20, config, seed=9))  # the content of every track has changed
    rows = network.rows(other, torch.tensor([3, -1] * 10))
    assert torch.equal(rows[0], network.trained_rows()[3])
    assert torch.equal(rows[1], network.cold_rows(other)[1])
    assert network.cold_rows(other)[1].any()


def test_tied_rows_are_a_part_of_the_input_and_nothing_else() -> None:
    plain, tied = model(SMALL), model(replace(SMALL, tied_rows=True))
    assert set(tied.state_dict()) - set(plain.state_dict()) == {"tie.weight"}
    assert tied.tie is not None
    plain.load_state_dict({name: tensor for name, tensor in tied.state_dict().items() if name != "tie.weight"})
    trained = torch.arange(20).where(torch.arange(20) % 3 > 0, -1)
    one, two = (inference.encode_catalogue(network, tracks(20), trained) for network in (plain, tied))
    rows = torch.where((trained >= 0).unsqueeze(1), tied.trained_rows(), two.side.content)
    torch.testing.assert_close(two.side.series, one.side.series + tied.tie(rows))
    assert not torch.allclose(two.side.series, one.side.series)
    for name, mine, theirs in zip(TrackSide._fields, one.side, two.side, strict=True):
        assert name == "series" or torch.equal(mine, theirs), name
    assert torch.equal(one.rows, two.rows) and torch.equal(one.offsets, two.offsets)


@pytest.mark.parametrize("extra", [False, True])
def test_a_track_of_a_catalogue_has_the_same_bits_beside_any_others(extra: bool) -> None:
    config = MSAMConfig(tied_rows=extra, group_attention=extra)
    network, inputs = model(config, rows=40), tracks(40, config)
    trained = torch.arange(40).where(torch.arange(40) % 5 > 0, -1)
    whole = inference.encode_catalogue(network, inputs, trained)
    some = torch.from_numpy(np.random.default_rng(0).permutation(40)[:7])
    part = inference.encode_catalogue(network, inputs.select(some), trained[some])
    for mine, theirs in zip(whole.side.select(some), part.side, strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(whole.rows[some], part.rows) and torch.equal(whole.offsets[some], part.offsets)
    assert len(inference.encode_catalogue(network, inputs.select(some[:0]), trained[:0]).rows) == 0


def test_rows_can_start_as_the_factors_of_simf() -> None:
    config = replace(PUBLISHED, published=False, content_rows=False, simf_rows=True, copy_head=False)
    network, inputs = model(config), tracks(20, config)
    assert isinstance(network.u, FreeRows)
    standard = network.factor_scale(inputs.factor, inputs.factor_mask)
    torch.testing.assert_close(network.u.weight[:, : config.dim], 0.3 * standard)
    none = TrackInputs.build([TrackContent()] * 20, config)
    fresh = MSAM(config, 20)
    before = fresh.u.weight.clone()
    fresh.fit_scales(none)
    assert torch.equal(fresh.u.weight, before), "without factors, rows stay as they were drawn"


@pytest.mark.parametrize("group_attention", [False, True])
def test_same_bits_at_any_place_in_a_batch_and_beside_any_other_rows(group_attention: bool) -> None:
    config = MSAMConfig(group_attention=group_attention)
    network = model(config, rows=40)
    inputs = tracks(40, config)
    side = inference.encode_tracks(network, inputs)
    order = torch.from_numpy(np.random.default_rng(0).permutation(40))
    for mine, theirs in zip(side.select(order), inference.encode_tracks(network, inputs.select(order)), strict=True):
        assert torch.equal(mine, theirs)
    user, rows = inference.encode_users(network, users(32, config)), network.rows(side, torch.arange(40))
    window = windows(32, 40, config.window)
    logits, hidden = inference.score(network, side, rows, window, user)
    for place in (0, 5, 31):
        moved = windows(32, 40, config.window, seed=place + 10)
        moved[place] = window[7]
        people = torch.full((32,), 1)
        people[place] = 7
        again, state = inference.score(network, side, rows, moved, user.select(people))
        assert torch.equal(again[place], logits[7])
        assert torch.equal(state.state[place], hidden.state[7])


def test_inputs_are_checked() -> None:
    rng = np.random.default_rng(0)
    good = content(rng, SMALL)
    assert len(TrackInputs.build([good], SMALL)) == 1
    bad = np.full(SMALL.dim, np.nan, np.float32)
    with pytest.raises(InputError, match="factor of row 0 is not finite"):
        TrackInputs.build([TrackContent(factor=bad)], SMALL)
    with pytest.raises(InputError, match="shape"):
        TrackInputs.build([TrackContent(audio=np.zeros((1, 1), np.float32))], SMALL)
    with pytest.raises(InputError, match="not finite"):
        TrackInputs.build([TrackContent(np.full((1, SMALL.text_dim), 1e9, np.float32), [0])], SMALL)
    with pytest.raises(InputError, match="1 fields"):
        TrackInputs.build([TrackContent(np.zeros((2, SMALL.text_dim), np.float32), [0])], SMALL)
    with pytest.raises(InputError, match="outside"):
        TrackInputs.build([TrackContent(np.zeros((1, SMALL.text_dim), np.float32), [3])], SMALL)
    with pytest.raises(InputError, match="do not fit"):
        UserInputs.build([None, None], SMALL).padded(1)


@pytest.mark.parametrize(
    "settings",
    [
        {"dim": 0},
        {"window": True},
        {"kernel_widths": ()},
        {"dropout": 1.0},
        {"depth": 3},
        {"dim": "x"},
        {"cold_share": True, "cold_calibration": False},
    ],
)
def test_bad_model_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        MSAMConfig.from_dict(settings)


@pytest.mark.parametrize("settings", [{"optimiser": "sgd"}, {"learning_rate": 0.0}, {"holdout": 1.0}, {"speed": 1}])
def test_bad_training_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        TrainConfig.from_dict(settings)


def test_settings_survive_a_manifest() -> None:
    for config in (SMALL, PUBLISHED, MSAMConfig()):
        assert MSAMConfig.from_dict(config.to_dict()) == config
    settings = TrainConfig(epochs=3, max_seconds=2.5)
    assert TrainConfig.from_dict(settings.to_dict()) == settings
