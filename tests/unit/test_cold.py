"""The calibration of cold tracks' scores against hand-made logits whose best answer is known."""

import torch

from msam.cold import fit, needed, share_offset


def logits(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_frequent_cold_plays_raise_the_offset_and_rare_ones_lower_it() -> None:
    trained, cold = logits(200, 30, 0), logits(200, 30, 1)
    target = torch.arange(200) % 30
    often = fit(trained, cold, target, torch.arange(200) % 10 != 0)
    seldom = fit(trained, cold, target, torch.arange(200) % 10 == 0)
    assert often.offset > 1.0 > -1.0 > seldom.offset


def test_the_share_of_cold_probability_becomes_that_of_cold_plays() -> None:
    trained, cold = torch.zeros(100, 40), torch.zeros(100, 10)
    is_cold = torch.arange(100) < 25
    found = fit(trained, cold, torch.zeros(100, dtype=torch.int64), is_cold)
    mass = torch.softmax(torch.cat([trained, cold * found.scale + found.offset], 1), 1)[:, 40:].sum(1).mean()
    assert abs(float(mass) - 26 / 101) < 0.03  # with the one play that is assumed


def test_content_that_tells_nothing_is_damped_and_content_that_tells_is_kept() -> None:
    trained, cold = logits(300, 20, 2), 4 * logits(300, 20, 3)
    is_cold = torch.ones(300, dtype=torch.bool)
    assert fit(trained, cold, cold.argmax(1), is_cold).scale == 1.0
    assert fit(trained, cold, torch.arange(300) % 20, is_cold).scale == 0.25


def test_a_holdout_without_cold_plays_does_not_silence_cold_tracks() -> None:
    trained, cold = torch.zeros(50, 20), torch.zeros(50, 20)
    found = fit(trained, cold, torch.zeros(50, dtype=torch.int64), torch.zeros(50, dtype=torch.bool))
    mass = torch.softmax(torch.cat([trained, cold + found.offset], 1), 1)[:, 20:].sum(1).mean()
    assert 0.01 < float(mass) < 0.05


def test_cold_tracks_get_their_share_of_the_places() -> None:
    trained, cold = logits(400, 60, 4), logits(400, 30, 5) - 5
    for share in (0.0, 0.02, 0.3, 0.9):
        offset = share_offset(needed(trained, cold), share)
        best = torch.cat([trained, cold + offset], 1).topk(20).indices
        assert abs(float((best >= 60).float().mean()) - share) < 1e-3


def test_lists_shorter_than_twenty_are_shared_too() -> None:
    offset = share_offset(needed(logits(50, 6, 6), logits(50, 3, 7)), 0.5)
    best = torch.cat([logits(50, 6, 6), logits(50, 3, 7) + offset], 1).topk(3).indices
    assert abs(float((best >= 6).float().mean()) - 0.5) < 0.01
