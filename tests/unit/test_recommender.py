"""Lists of one real, small model over a catalogue that changes."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from msam.features.audio import AUDIO_GROUPS
from msam.network import ranked
from msam.network.inference import WINDOW_BATCH
from msam.network.model import MSAM
from msam.network.ranked import Call, Inputs, Ranking, eager
from streams import recommender
from streams.catalogue import Catalogue
from streams.content import contents, factor
from streams.recommender import Query, Recommender
from streams.records import Item, Recommendation, Source, TrackFeature
from streams.serialization import encode
from streams.served import load_model
from tests.unit.serving_data import ARTISTS, CONFIG, TRACKS, catalogue, made, metadata, sound


@pytest.fixture
def known() -> Catalogue:
    return catalogue()


@pytest.fixture
def served(known: Catalogue) -> Recommender:
    return load_model(made().version, known, wait=0)


def add(known: Catalogue, *features: TrackFeature) -> None:
    for feature in features:
        known.fold(feature.key, feature, known.version)


def one(served: Recommender, tracks: tuple[str, ...], n: int = TRACKS) -> tuple[Item, ...]:
    (items,) = served.recommend([Query(tracks)], n)
    return items


def names(items: tuple[Item, ...]) -> list[str]:
    return [item.track_id for item in items]


def queries(count: int, seed: int = 0) -> list[Query]:
    """Windows of every length, every third with a profile."""
    rng = np.random.default_rng(seed)
    words = [rng.standard_normal((2, CONFIG.text_dim)).astype(np.float16) for _ in range(3)]
    found = []
    for number in range(count):
        tracks = tuple(f"t{t}" for t in rng.integers(0, TRACKS, int(rng.integers(0, CONFIG.window + 3))))
        who = number % 9 // 3
        found.append(Query(tracks, (f"w{who}", "x"), words[who]) if number % 3 == 0 else Query(tracks))
    return found


def test_a_list_is_the_same_whatever_shares_its_batch(served: Recommender) -> None:
    asked = queries(2 * WINDOW_BATCH + 5)
    together = served.recommend(asked, 10)
    alone = [served.recommend([query], 10)[0] for query in asked]
    order = np.random.default_rng(1).permutation(len(asked)).tolist()
    mixed = served.recommend([asked[place] for place in order], 10)
    assert together == alone, "to the last bit of every score and weight"
    assert [mixed[order.index(place)] for place in range(len(asked))] == alone
    assert len({tuple(names(items)) for items in alone}) > len(asked) // 3, "different windows, different lists"


def test_scores_descend_and_are_shares_of_one(served: Recommender) -> None:
    for items in served.recommend(queries(20), 10):
        scores = [item.score for item in items]
        assert [item.rank for item in items] == list(range(1, 11))
        assert scores == sorted(scores, reverse=True) and all(0 < score <= 1 for score in scores)
        assert sum(scores) <= 1 + 1e-5 and len(set(names(items))) == 10
    for items in served.recommend(queries(20), TRACKS):
        assert math.isclose(sum(item.score for item in items), 1.0, rel_tol=1e-4), "the whole catalogue is one softmax"


def test_a_short_list_is_the_start_of_a_long_one(served: Recommender) -> None:
    whole = one(served, ("t1", "t2", "t3"))
    for n in (1, 3, 20):
        assert one(served, ("t1", "t2", "t3"), n) == whole[:n]


def test_fewer_tracks_than_places(served: Recommender) -> None:
    items = one(served, ("t1",), 1000)
    assert len(items) == TRACKS == len(set(names(items)))
    assert sorted(names(items)) == sorted(f"t{t}" for t in range(TRACKS))


def test_a_profile_changes_the_list_and_no_profile_does_not(served: Recommender) -> None:
    vectors = np.random.default_rng(4).standard_normal((2, CONFIG.text_dim)).astype(np.float16)
    plain, other = one(served, ("t1", "t2")), served.recommend([Query(("t1", "t2"), ("a", "b"), vectors)], TRACKS)[0]
    assert [item.score for item in plain] != [item.score for item in other]
    assert served.recommend([Query(("t1", "t2"), ("a", "b"), None)], TRACKS)[0] == plain
    assert served.recommend([Query(("t1", "t2"), ("a", "b"), vectors)], TRACKS)[0] == other, "from the kept profile"


def test_more_profiles_than_are_kept(served: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommender, "_WORDS_KEPT", 3)
    vectors = np.random.default_rng(4).standard_normal((4, 2, CONFIG.text_dim)).astype(np.float16)
    people = [Query(("t1", "t2"), (str(n), "b"), vectors[n]) for n in range(4)]
    alone = [served.recommend([query], TRACKS)[0] for query in people]
    assert len({items[0].score for items in alone}) == 4
    for two in ((0, 1), (2, 3), (1, 3), (0, 2)):  # the table is full in between
        assert served.recommend([people[n] for n in two], TRACKS) == [alone[n] for n in two]


def test_a_withdrawn_track_is_never_listed_and_comes_back(served: Recommender, known: Catalogue) -> None:
    first = one(served, ("t1", "t2", "t3"))
    top = first[0].track_id
    known.fold(f"metadata/{top}", None, known.version)
    assert served.sync() == 0
    without = one(served, ("t1", "t2", "t3"), 1000)
    assert top not in names(without) and len(without) == TRACKS - 1
    assert math.isclose(sum(item.score for item in without), 1.0, rel_tol=1e-4), "its share goes to the others"
    for items in served.recommend(queries(30), TRACKS):
        assert top not in names(items)
    assert top not in names(one(served, (top, top))), "not even when it was just played"
    number = int(top[1:])
    add(known, metadata(number, f"artist{number % ARTISTS}", labels=(f"label{number % 3}",)))
    if number % 3:
        add(known, sound(number))
    served.sync()
    assert one(served, ("t1", "t2", "t3")) == first


def test_when_every_track_is_withdrawn_lists_are_empty(served: Recommender, known: Catalogue) -> None:
    for track in list(served.ids):
        known.fold(f"metadata/{track}", None, known.version)
    served.sync()
    assert one(served, ("t1", "t2")) == ()


def test_new_tracks_appear_after_sync(served: Recommender, known: Catalogue) -> None:
    before = one(served, ("t1", "t2", "t3"))
    add(known, metadata("new", "artist1"), sound("new"))
    assert one(served, ("t1", "t2", "t3"), 1000) == before, "not before"
    assert served.catalogue_version == known.version - 2
    assert served.sync() == 0 and served.catalogue_version == known.version
    after = one(served, ("t1", "t2", "t3"), 1000)
    (item,) = [item for item in after if item.track_id == "new"]
    assert len(after) == TRACKS + 1 and 0 < item.score < 1 and math.isfinite(item.score)
    played = one(served, ("t1", "new"), 1000)
    assert [item.score for item in played] != [item.score for item in one(served, ("t1",), 1000)]
    (item,) = [item for item in played if item.track_id == "new"]
    assert item.reasons.kind == "repeat"


def test_a_track_that_was_only_sighted_has_a_score(served: Recommender, known: Catalogue) -> None:
    add(known, TrackFeature("odd", "sighting", users=("u1",)))
    served.sync()
    (item,) = [item for item in one(served, ("t1", "odd"), 1000) if item.track_id == "odd"]
    assert 0 < item.score < 1 and item.reasons.kind == "repeat"


def test_tracks_never_played_are_cold_and_have_scores(served: Recommender) -> None:
    assert served.trained == 36 and len(served.ids) == TRACKS
    found = {item.track_id: item for item in one(served, ("t1", "t2"), 1000)}
    for cold in ("t36", "t37", "t38", "t39"):
        assert 0 < found[cold].score < 1


def test_the_table_grows_past_its_room(served: Recommender, known: Catalogue) -> None:
    before = one(served, ("t1", "t2", "t3"), 5)
    for number in range(1100):
        known.fold(f"sighting/s{number}", TrackFeature(f"s{number}", "sighting", users=("u1",)), known.version)
    left = [served.sync(500) for _ in range(3)]
    assert left == [600, 100, 0] and len(served.ids) == TRACKS + 1100
    after = one(served, ("t1", "t2", "t3"), 5000)
    assert len(after) == TRACKS + 1100 and served.catalogue_version == known.version
    order = [item.track_id for item in after if item.track_id in names(before)]
    assert order == names(before), "the old tracks keep their order"
    known.fold("metadata/s1099", metadata("s1099", "artist1"), known.version)
    served.sync()
    assert "s1099" in names(one(served, ("t1",), 5000))


def test_two_followers_come_to_the_same_lists(known: Catalogue) -> None:
    """A model that was there from the start, and one loaded after everything happened, agree."""
    early = load_model(made().version, known, wait=0)
    changes: list[Callable[[], None]] = [
        lambda: add(known, metadata("new", "artist2"), sound("new")),
        lambda: add(known, metadata(5, "artist7", seed=9)),
        lambda: known.fold("metadata/t7", None, known.version),
        lambda: add(known, TrackFeature("odd", "sighting", users=("u1", "u2"))),
    ]
    for change in changes:
        change()
        early.sync()
        early.recommend(queries(3), 5)
    late = load_model(made().version, known, wait=0)
    asked = queries(40)
    assert early.catalogue_version == late.catalogue_version == known.version and set(early.ids) == set(late.ids)
    for mine, theirs in zip(early.recommend(asked, 20), late.recommend(asked, 20), strict=True):
        assert names(mine) == names(theirs)
        for one_item, other in zip(mine, theirs, strict=True):
            assert math.isclose(one_item.score, other.score, rel_tol=1e-4, abs_tol=1e-7)
            first, second = one_item.reasons, other.reasons
            assert (first.kind, first.because, first.audio_group) == (second.kind, second.because, second.audio_group)


def test_unknown_tracks_of_a_window_are_ignored(served: Recommender) -> None:
    assert one(served, ("nobody", "t1", "knows", "t2")) == one(served, ("t1", "t2"))
    assert one(served, ("nobody",)) == one(served, ())
    long = tuple(f"t{t}" for t in range(CONFIG.window + 4))
    assert one(served, long) == one(served, long[-CONFIG.window :]), "the newest plays count"


def test_no_queries_no_lists(served: Recommender) -> None:
    assert served.recommend([], 5) == []


def asked_items(served: Recommender) -> Iterator[tuple[Query, Item]]:
    asked = queries(40)
    for query, items in zip(asked, served.recommend(asked, TRACKS), strict=True):
        for item in items:
            yield query, item


def test_reasons_agree_with_window_and_catalogue(served: Recommender, known: Catalogue) -> None:
    seen: dict[str, int] = {}
    groups = words = 0
    for query, item in asked_items(served):
        window, why = query.tracks[-CONFIG.window :], item.reasons
        seen[why.kind] = seen.get(why.kind, 0) + 1
        artists = {known.get(track).artist_id for track in window}
        if item.track_id in window:
            assert why.kind == "repeat"
        elif known.get(item.track_id).artist_id in artists:
            assert why.kind == "artist"
        else:
            assert why.kind == ("similar" if served.index[item.track_id] < served.trained else "discovery")
        if not window:
            assert (why.because, why.audio, why.text, why.sequence, why.audio_group, why.word) == (
                *(None, 0.0, 0.0, 0.0),
                *(None, None),
            )
            continue
        assert why.because in window
        near = known.get(str(why.because))
        assert math.isclose(why.audio + why.text + why.sequence, 1.0, rel_tol=1e-4)
        assert min(why.audio, why.text, why.sequence) >= 0
        assert (why.audio_group in AUDIO_GROUPS) if near.audio is not None else (why.audio_group is None)
        assert why.audio > 0 if near.audio is not None else why.audio == 0
        assert why.word in near.words
        groups, words = groups + (why.audio_group is not None), words + (why.word is not None)
    assert set(seen) == {"repeat", "artist", "similar", "discovery"} and groups > 100 and words > 100


def test_a_repeat_is_near_itself(served: Recommender) -> None:
    """The cosine of a track with itself is 1: the play it is nearest to is its own."""
    for _, item in asked_items(served):
        if item.reasons.kind == "repeat":
            assert item.reasons.because == item.track_id


def test_a_factor_is_fitted_else_published_else_from_its_links(known: Catalogue) -> None:
    simf = made().simf
    fitted = factor(known.get("t1"), simf)
    place = simf.positions["track"]["t1"]
    assert fitted is not None and np.array_equal(fitted, simf.factors["track"][place].astype(np.float32))
    vector = np.arange(CONFIG.dim, dtype="<f4")
    base = metadata("new", "artist1")
    for version, kept in ((simf.version, True), ("simf-other", False)):
        add(
            known,
            TrackFeature("new", "metadata", base.metadata, factor=vector.tobytes(), simf_version=version),
        )
        found = factor(known.get("new"), simf)
        assert found is not None and np.array_equal(found, vector) is kept
    assert factor(known.get("unheard-of"), simf) is None
    described, empty = contents([known.get("t1"), known.get("unheard-of")], simf)
    artist = simf.factors["artist"][simf.positions["artist"]["artist1"]].astype(np.float32)
    assert described.artist_factor is not None and np.array_equal(described.artist_factor, artist)
    assert empty.artist_factor is None and empty.words is None and empty.audio is None


def test_a_list_straight_into_bytes_is_what_fastavro_writes(served: Recommender) -> None:
    vectors = np.ones((2, served.model.config.text_dim), dtype=np.float16)
    asked = [*queries(40), Query(()), Query(("nobody knows it",)), Query(("t1", "t2"), ("a", "b"), vectors)]
    for place, found in enumerate(served.prepare(asked, TRACKS)):
        blank = Recommendation(f"hörer {place}", (), "v1", 300 + place, 0, place, Source("plays", 3, 2**40, 0.1, "t1"))
        assert found.encode(blank) == encode(replace(blank, items=found.items()))


def test_a_model_of_the_same_shapes_is_ranked_by_the_same_graphs(
    known: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranked, "_graphs", {})
    first = load_model(made().version, known, wait=0)
    before, weights = first.recommend(queries(40), 10), [tensor.clone() for tensor in first.model.parameters()]
    graphs = dict(ranked._graphs)
    second = load_model(made(seed=1).version, known, wait=0)
    assert ranked._graphs == graphs and len(graphs) == len(second._calls) == 3
    mine = second.recommend(queries(40), 10)
    assert [names(items) for items in mine] != [names(items) for items in before], "each with its own weights"
    monkeypatch.setattr(recommender, "traced", lambda model, n, inputs: eager(model, n))
    assert load_model(made(seed=1).version, known, wait=0).recommend(queries(40), 10) == mine
    assert first.recommend(queries(40), 10) == before
    assert all(torch.equal(one, other) for one, other in zip(weights, first.model.parameters(), strict=True))


def test_a_graph_keeps_no_weights(known: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranked, "_graphs", {})
    served = load_model(made().version, known, wait=0)
    weight = weakref.ref(served.model.sequence_project.weight)
    del served
    gc.collect()
    assert len(ranked._graphs) == 3 and weight() is None


def test_few_graphs_are_kept(known: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranked, "_graphs", {})
    monkeypatch.setattr(ranked, "_KEPT", 4)
    for n in (5, 6):
        made_with = load_model(made().version, known, wait=0, n=n)
        assert len(made_with._calls) == 3 and len(ranked._graphs) <= 4
    assert len(ranked._graphs) == 4


@pytest.mark.parametrize("moves", [False, True])
def test_it_is_told_where_the_place_in_a_batch_changes_bits(
    known: Catalogue, moves: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def by_place(model: MSAM, n: int) -> Call:
        call = eager(model, n)

        def moved(inputs: Inputs) -> Ranking:
            found = call(inputs)
            odd = (torch.arange(len(found.scores)) % 2 * torch.finfo(torch.float32).eps).unsqueeze(1)
            return found._replace(scores=found.scores * (1 + odd))

        return moved if moves else call

    monkeypatch.setattr(recommender, "eager", by_place)
    load_model(made().version, known, wait=0)
    assert ("no exact replays" in caplog.text) == moves
