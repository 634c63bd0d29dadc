"""Training of the wide head: candidates of past plays, made by living through the log, and a softmax over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from msam import wide_join
from msam.cold import Offered
from msam.config import CountsConfig
from msam.counts import FEATURES, CandidateMaker, Discography, SharedCounts, UserHistory
from msam.counts.keys import ABSENT, Keys, keys_of, optional_keys
from msam.evaluation.prequential import Stream
from msam.network.model import MSAM
from msam.network.wide import WideHead
from msam.sequences import Dataset, Integers
from msam.wide_join import rows_in

Say = Callable[[str], None]
FEWEST = 50  # plays to train on, and to join on
_SURE, _DRAWN = 40, 60  # candidates per play in a step of training


class Examples(NamedTuple):
    """Candidates of S plays, one after the other: play s has those from starts[s] to starts[s + 1]."""

    keys: Keys  # int64 [n]
    features: NDArray[np.float32]  # [n, F]
    starts: Keys  # int64 [S + 1]
    targets: Keys  # int64 [S] place of the track that was played among its candidates, -1: not there
    places: Keys  # int64 [S] the play's place in the stream

    def select(self, some: Keys) -> Examples:
        """The plays `some`, in that order."""
        spans = [np.arange(self.starts[s], self.starts[s + 1]) for s in some.tolist()]
        index = np.concatenate([np.zeros(0, np.int64), *spans])
        starts = np.concatenate([[0], np.cumsum([len(span) for span in spans])]).astype(np.int64)
        return Examples(self.keys[index], self.features[index], starts, self.targets[some], self.places[some])


def collect(stream: Stream, book: Discography, config: CountsConfig, wanted: NDArray[np.bool_]) -> Examples:
    """Candidates before each wanted play [T], from the plays before it; a user's first play has none: left out."""
    maker, shared = CandidateMaker(config), SharedCounts(config)
    histories: dict[int, UserHistory] = {}
    keys: list[Keys] = []
    features: list[NDArray[np.float32]] = []
    targets, places, folded = [], [], 0
    users, tracks, _, times = (column.tolist() for column in stream[:4])
    for place, user in enumerate(users):
        history = histories.get(user)
        if history is None:
            history = histories[user] = UserHistory(config.history)
        if wanted[place] and len(history):
            some = slice(folded, place)
            shared.fold(stream.users[some], stream.tracks[some], stream.artists[some], stream.times[some])
            folded = place
            key, feature = maker.make(history.plays(), shared, book)
            hit = np.flatnonzero(key == tracks[place])
            keys.append(key.copy())  # not the rest of the array that it is a part of
            features.append(feature.copy())
            targets.append(int(hit[0]) if len(hit) else -1)
            places.append(place)
        history.append(tracks[place], times[place])
    starts = np.concatenate([[0], np.cumsum([len(key) for key in keys])]).astype(np.int64)
    return Examples(
        np.concatenate([np.zeros(0, np.int64), *keys]),
        np.concatenate([np.zeros((0, len(FEATURES)), np.float32), *features]),
        starts,
        np.array(targets, dtype=np.int64),
        np.array(places, dtype=np.int64),
    )


@dataclass(frozen=True, slots=True)
class WideConfig:
    """How the wide head is trained.

    start: part of each user's plays after which examples begin (the counts have to know something first). most:
    examples, spread evenly (about 35 kB each); most_held: plays to join on. holdout: last part of the examples' time,
    by which the best epoch is chosen. seen: examples to learn from, those of all epochs together; more than `epochs`
    there are not, nor fewer than half of them. whole: last part of the epochs that sees every candidate, the ones
    before draw some.
    """

    start: float = 0.4
    most: int = 40_000
    most_held: int = 1000
    holdout: float = 0.15
    epochs: int = 10
    seen: int = 100_000
    whole: float = 0.4
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    seed: int = 0

    def epochs_of(self, examples: int) -> int:
        """Epochs over so many examples.

        >>> [WideConfig().epochs_of(examples) for examples in (5000, 14_000, 17_000)]
        [10, 7, 5]
        """
        return min(max(self.seen // examples, (self.epochs + 1) // 2), self.epochs)


def stream_of(data: Dataset) -> Stream:
    """The plays of `data` in time order; ties go user by user."""
    order = np.argsort(data.times, kind="stable")
    users, tracks = keys_of(data.user_ids), keys_of(data.track_ids)
    artists = _whose(data.artists, len(tracks))
    plays = data.plays[order]
    owner = data.owner(order)
    first, size = data.starts[owner], data.starts[owner + 1] - data.starts[owner]
    return Stream(users[owner], tracks[plays], artists[plays], data.times[order], (order - first) / size)


def discography_of(data: Dataset) -> Discography:
    """Artists and albums of the catalogue, in the order of keys: which arrived when, a log of plays does not tell."""
    book = Discography()
    tracks = keys_of(data.track_ids)
    order = np.argsort(tracks)
    book.update(tracks[order], _whose(data.artists, len(tracks))[order], _whose(data.albums, len(tracks))[order])
    return book


def _whose(identifiers: Sequence[str | None], count: int) -> Keys:
    return optional_keys(identifiers or [None] * count)


def spread(mask: NDArray[np.bool_], most: int) -> NDArray[np.bool_]:
    """At most `most` of the places of a mask [T], evenly spread."""
    places = np.flatnonzero(mask)
    kept = np.zeros(len(mask), dtype=np.bool_)
    kept[places[np.linspace(0, len(places) - 1, min(most, len(places))).astype(int)]] = True
    return kept


def add_wide(
    model: MSAM,
    data: Dataset,
    catalogue_rows: Integers,
    held: Integers,
    settings: WideConfig,
    say: Say = lambda _: None,
) -> Offered | None:
    """Train the wide head of a trained, frozen model on `data`, and join the two on the plays at `held`; its candidates
    there.

    Where there are too few plays to learn from, the head is left as it is and changes nothing.
    """
    assert model.wide_head is not None
    stream, book = stream_of(data), discography_of(data)
    order = np.argsort(data.times, kind="stable")
    later = np.zeros(len(order), dtype=np.bool_)
    later[held] = True
    later = later[order]
    learn = spread(~later & (stream.part >= settings.start), settings.most)
    check = spread(later, settings.most_held)
    examples = collect(stream, book, model.config.counts, learn | check)
    mine, theirs = np.flatnonzero(learn[examples.places]), np.flatnonzero(check[examples.places])
    if len(mine) < FEWEST or len(theirs) < FEWEST:
        return None
    features, mask, _ = padded(examples, theirs)
    keys = np.where(mask.numpy(), examples.keys[_index(examples, theirs)], ABSENT)
    offered = Offered(order[examples.places[theirs]], torch.from_numpy(rows_in(data, keys)), features)
    examples = examples.select(mine)  # the only copy that is left, and there may be a gigabyte
    fit_wide(model.wide_head, examples, settings, say)
    join = wide_join.fit(wide_join.held_of(model, data, catalogue_rows, *offered))
    wide_join.apply(model.wide_head, join)
    say(f"wide head joined: {join.deep:g} of MSAM, {join.sharp:g} of the scores, others {join.others:+.2f}")
    return offered


def _index(examples: Examples, some: Keys) -> Keys:
    """Places [B, C] of the candidates of the plays `some`; behind the last one, those of others."""
    width = int((examples.starts[some + 1] - examples.starts[some]).max())
    index: Keys = np.minimum(examples.starts[some][:, None] + np.arange(width), len(examples.keys) - 1)
    return index


def padded(examples: Examples, some: Keys) -> tuple[Tensor, Tensor, Tensor]:
    """Features [B, C, F], mask bool [B, C] and targets [B] (C: the bucket of all others) of the plays `some`."""
    sizes = examples.starts[some + 1] - examples.starts[some]
    index, width = _index(examples, some), int(sizes.max())
    mask = np.arange(width) < sizes[:, None]
    targets = np.where(examples.targets[some] >= 0, examples.targets[some], width)
    return torch.from_numpy(examples.features[index]), torch.from_numpy(mask), torch.from_numpy(targets)


def _loss(head: WideHead, examples: Examples, some: Keys) -> Tensor:
    """Mean over plays of -log p(track that was played) among the candidates and the bucket of all others."""
    features, mask, targets = padded(examples, some)
    scores = head(features).masked_fill(~mask, -torch.inf)
    logits = torch.cat([scores, head.bucket.expand(len(scores), 1)], 1)
    return functional.cross_entropy(logits, targets)


def _sampled_loss(head: WideHead, examples: Examples, some: Keys, draw: np.random.Generator) -> Tensor:
    """An estimate of `_loss` at a third of the cost: the first _SURE candidates (the newest own tracks), _DRAWN of the
    others, each of which stands for several, and the track that was played.
    """
    sizes = (examples.starts[some + 1] - examples.starts[some])[:, None]
    target = examples.targets[some][:, None]
    rest = np.maximum(sizes - _SURE, 0)
    first = np.broadcast_to(np.arange(_SURE), (len(some), _SURE))
    drawn = _SURE + (draw.random((len(some), _DRAWN)) * rest).astype(np.int64)
    column = np.concatenate([first, drawn, target], 1)
    real = (column < sizes) & (column != target)
    real[:, -1] = target[:, 0] >= 0
    index = examples.starts[some][:, None] + np.where(real, column, 0)
    weight = np.zeros(column.shape, dtype=np.float32)
    weight[:, _SURE:-1] = np.log(np.maximum(rest, 1) / _DRAWN)
    scores = head(torch.from_numpy(examples.features[index])) + torch.from_numpy(weight)
    scores = scores.masked_fill(~torch.from_numpy(real), -torch.inf)
    logits = torch.cat([scores, head.bucket.expand(len(scores), 1)], 1)
    place = np.where(target[:, 0] >= 0, column.shape[1] - 1, column.shape[1])
    return functional.cross_entropy(logits, torch.from_numpy(place))


def fit_wide(head: WideHead, examples: Examples, settings: WideConfig, say: Say = lambda _: None) -> float:
    """Train on all but the last examples, keep the epoch that is best on those; returns its loss (nats a play).

    The features are standardised in place. Deterministic under the seed, given one thread and torch's deterministic
    algorithms.
    """
    count = len(examples.targets)
    order = np.argsort(examples.places, kind="stable")
    cut = count - max(int(count * settings.holdout), 1)
    train, held = order[:cut], order[cut:]
    mean, deviation = examples.features.mean(0), examples.features.std(0)
    deviation[deviation < 1e-6] = 1.0  # an input that never varies
    np.subtract(examples.features, mean, out=examples.features)
    np.divide(examples.features, deviation, out=examples.features)
    optimiser = torch.optim.Adam(head.net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    optimiser.add_param_group({"params": [head.bucket], "weight_decay": 0.0, "lr": 10 * settings.learning_rate})
    epochs = settings.epochs_of(len(train))
    drawn = epochs - round(settings.whole * epochs)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimiser, epochs * -(-len(train) // settings.batch), settings.learning_rate / 20
    )
    generator = torch.Generator().manual_seed(settings.seed)
    draw = np.random.default_rng(settings.seed)
    best, kept = float("inf"), head.state_dict()
    for epoch in range(epochs):
        shuffled = train[torch.randperm(len(train), generator=generator).numpy()]
        for start in range(0, len(shuffled), settings.batch):
            optimiser.zero_grad(set_to_none=True)
            some = shuffled[start : start + settings.batch]
            loss = _sampled_loss(head, examples, some, draw) if epoch < drawn else _loss(head, examples, some)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            parts = [held[at : at + 256] for at in range(0, len(held), 256)]
            value = sum(float(_loss(head, examples, part)) * len(part) for part in parts) / len(held)
        say(f"wide head, epoch {epoch + 1}: holdout loss {value:.4f}")
        if value < best:
            best = value
            kept = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    head.load_state_dict(kept)
    head.fold(torch.from_numpy(mean), torch.from_numpy(deviation))
    return best
