"""The catalogue is a fold of `track-features`; its version names one exact content."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.catalogue import Catalogue, Track
from streams.records import TrackFeature, TrackMetadata

Log = list[tuple[str, TrackFeature | None]]
TRACKS = ("a", "b/c", "ü")
calm = settings(deadline=None, derandomize=True)  # a busy machine is no failure, and two runs see the same examples


def metadata(track: str, number: int) -> TrackFeature:
    vectors = np.full((2, 4), number, "<f2").tobytes()
    factor = np.full(3, number, "<f4").tobytes()
    described = TrackMetadata(track, f"title {number}", f"artist {number}", album_id=f"album {number}", labels=("l",))
    return TrackFeature(
        track, "metadata", described, ("x", "y"), (0, 2), vectors, "e", None, None, factor, f"s{number}"
    )


def sound(track: str, number: int) -> TrackFeature:
    return TrackFeature(track, "audio", audio=np.full((7, 4), number, "<f4").tobytes(), audio_version="v")


def sighting(track: str, number: int) -> TrackFeature:
    return TrackFeature(track, "sighting", users=(f"user {number}",))


MAKERS = {"metadata": metadata, "audio": sound, "sighting": sighting}


@st.composite
def logs(draw: st.DrawFn, deletes: tuple[str, ...] = ("metadata", "audio"), sightings: int = 1) -> Log:
    """Records of a few tracks; parts in `deletes` may have tombstones, a track is sighted `sightings` times at most."""
    found: Log = []
    sighted: dict[str, int] = {}
    for number in range(draw(st.integers(0, 25))):
        track, part = draw(st.sampled_from(TRACKS)), draw(st.sampled_from(sorted(MAKERS)))
        if part == "sighting":
            if sighted.get(track, 0) >= sightings:
                continue
            sighted[track] = sighted.get(track, 0) + 1
        gone = part in deletes and draw(st.integers(0, 3)) == 0
        found.append((f"{part}/{track}", None if gone else MAKERS[part](track, number)))
    return found


def folded(log: Log, offsets: list[int] | None = None) -> Catalogue:
    made = Catalogue()
    for place, (key, feature) in enumerate(log):
        made.fold(key, feature, offsets[place] if offsets else place)
    return made


def plain(track: Track) -> tuple[Any, ...]:
    """Everything of a track as comparable values."""
    arrays = [None if a is None else (a.tobytes(), a.shape) for a in (track.word_vectors, track.audio, track.factor)]
    words = (track.words, track.word_fields, track.simf_version, track.users, track.withdrawn)
    return (track.track_id, track.metadata, *words, *arrays)


def content(made: Catalogue) -> dict[str, tuple[Any, ...]]:
    """What is known of the tracks of which anything is known."""
    return {name: plain(track) for name, track in made.tracks.items() if plain(track) != plain(Track(name))}


@calm
@given(log=logs(deletes=()), data=st.data())
def test_the_order_of_parts_does_not_matter(log: Log, data: st.DataObject) -> None:
    """Records of different keys may change places; those of one key keep their order, as Kafka keeps it."""
    keys = data.draw(st.permutations([key for key, _ in log]))
    queues: dict[str, list[TrackFeature | None]] = {}
    for key, feature in log:
        queues.setdefault(key, []).append(feature)
    other = [(key, queues[key].pop(0)) for key in keys]
    assert content(folded(other)) == content(folded(log))


@calm
@given(log=logs(deletes=("audio",)))
def test_the_last_record_of_a_key_counts(log: Log) -> None:
    """Compaction leaves the last record of a key: whoever reads later must come to the same tracks."""
    last = {key: place for place, (key, _) in enumerate(log)}
    kept = [place for place, (key, _) in enumerate(log) if last[key] == place]
    assert content(folded([log[place] for place in kept], kept)) == content(folded(log))


def test_a_described_track_that_comes_back_is_the_same_for_early_and_late_readers() -> None:
    log: Log = [("audio/a", sound("a", 1)), ("metadata/a", None), ("metadata/a", metadata("a", 2))]
    compacted = folded([log[0], log[2]], [0, 2])
    assert content(folded(log)) == content(compacted)


def test_two_sightings_are_the_same_for_early_and_late_readers() -> None:
    log: Log = [("sighting/a", sighting("a", 1)), ("sighting/a", sighting("a", 2))]
    assert content(folded(log)) == content(folded(log[1:], [1]))


def test_a_tombstone_of_a_sighting_takes_its_users_away() -> None:
    log: Log = [("sighting/a", sighting("a", 1)), ("sighting/a", None)]
    assert folded(log).get("a").users == ()


@calm
@given(log=logs())
def test_sightings_never_override_metadata(log: Log) -> None:
    made = folded(log)
    for number, name in enumerate(TRACKS):
        before = plain(made.get(name))
        made.fold(f"sighting/{name}", sighting(name, 900), len(log) + number)
        after = made.get(name)
        assert plain(after)[:4] == before[:4] and plain(after)[6:] == before[6:]
        if after.metadata is not None:
            assert "user" not in after.links() and after.links()["artist"] == {after.metadata.artist_id: 1.0}


def test_links_of_an_undescribed_track_are_its_listeners() -> None:
    made = folded([("sighting/a", sighting("a", 1))])
    assert made.get("a").links() == {"user": {"user 1": float(np.log(2.0))}}
    assert made.get("unheard-of").links() == {}
    made.fold("metadata/a", metadata("a", 7), 1)
    assert made.get("a").links() == {
        "artist": {"artist 7": 1.0},
        "album": {"album 7": 1.0},
        "tag": {"l": 1.0},
    }


def test_a_tombstone_withdraws_a_track_and_new_metadata_brings_it_back() -> None:
    made = folded([("metadata/a", metadata("a", 1)), ("metadata/a", None)])
    gone = made.get("a")
    assert gone.withdrawn and gone.metadata is None and gone.words == () and gone.factor is None
    made.fold("audio/a", sound("a", 1), 2)
    assert made.get("a").withdrawn, "its sound does not bring it back"
    made.fold("metadata/a", metadata("a", 3), 3)
    assert not made.get("a").withdrawn and made.get("a").artist_id == "artist 3"
    made.fold("audio/a", None, 4)
    assert made.get("a").audio is None and not made.get("a").withdrawn


def test_arrays_are_read_as_they_were_written() -> None:
    vectors = np.arange(6, dtype="<f2").reshape(2, 3)
    audio = np.arange(14, dtype="<f4").reshape(7, 2)
    factor = np.arange(3, dtype="<f4")
    feature = TrackFeature("a", "metadata", TrackMetadata("a"), ("x", "y"), (0, 1), vectors.tobytes(), "e")
    made = folded([("metadata/a", feature), ("audio/a", TrackFeature("a", "audio", audio=audio.tobytes()))])
    track = made.get("a")
    assert track.word_vectors is not None and np.array_equal(track.word_vectors, vectors) and track.factor is None
    assert track.audio is not None and np.array_equal(track.audio, audio)
    whole = TrackFeature("a", "metadata", TrackMetadata("a"), factor=factor.tobytes(), simf_version="s")
    made.fold("metadata/a", whole, 2)
    kept = made.get("a").factor
    assert kept is not None and np.array_equal(kept, factor) and made.get("a").word_vectors is None


@calm
@given(log=logs(), gaps=st.lists(st.integers(1, 3), min_size=25, max_size=25))
def test_the_version_is_the_next_offset(log: Log, gaps: list[int]) -> None:
    offsets = np.cumsum(gaps).tolist()[: len(log)]
    assert folded(log, offsets).version == (offsets[-1] + 1 if log else 0)


@calm
@given(log=logs())
def test_following_without_a_limit_gives_every_change_once(log: Log) -> None:
    """A follower that takes in everything after each record holds what the catalogue holds, and its version."""
    made, mine, position = Catalogue(), dict[str, tuple[Any, ...]](), 0
    for offset, (key, feature) in enumerate(log):
        made.fold(key, feature, offset)
        tracks, position, version = made.since(position)
        mine.update((track.track_id, plain(track)) for track in tracks)
        assert len(tracks) <= 1 and version == made.version == offset + 1 and made.behind(position) == 0
        assert mine == {name: plain(track) for name, track in made.tracks.items()}
    assert made.since(position) == ([], position, made.version)


@calm
@given(log=logs(), limit=st.integers(1, 5))
def test_following_in_steps_ends_at_the_same_tracks(log: Log, limit: int) -> None:
    made = folded(log)
    mine: dict[str, tuple[Any, ...]] = {}
    position, steps, seen = 0, 0, 0
    while True:
        left = made.behind(position)
        tracks, after, version = made.since(position, limit)
        assert after == position + min(limit, left) and made.behind(after) == left - (after - position)
        assert len(tracks) <= limit and len({track.track_id for track in tracks}) == len(tracks)
        assert seen <= version <= made.version
        mine.update((track.track_id, plain(track)) for track in tracks)
        position, seen, steps = after, version, steps + 1
        if made.behind(position) == 0:
            break
    assert version == made.version and steps == max(1, -(-len(made.changes) // limit))
    assert mine == {name: plain(track) for name, track in made.tracks.items()}


@calm
@given(log=logs(), limit=st.integers(1, 5))
def test_a_version_names_one_content(log: Log, limit: int) -> None:
    """A follower at version v holds exactly what the first v records of the log say, also half-way."""
    made = folded(log)
    mine: dict[str, tuple[Any, ...]] = {}
    position = 0
    while made.behind(position):
        tracks, position, version = made.since(position, limit)
        mine.update((track.track_id, plain(track)) for track in tracks)
        assert mine == {name: plain(track) for name, track in folded(log[:version]).tracks.items()}


def test_get_of_an_unknown_track_knows_nothing_and_adds_nothing() -> None:
    made = Catalogue()
    assert plain(made.get("a")) == plain(Track("a")) and made.tracks == {} and made.get("a").artist_id is None


def test_a_sighting_of_a_sighted_track_is_no_change() -> None:
    made = folded([("sighting/a", sighting("a", 1)), ("sighting/a", sighting("a", 1))])
    assert made.behind(0) == 1 and made.version == 2


@pytest.mark.parametrize("words", [(), ("x",), ("x", "y")])
def test_metadata_without_vectors(words: tuple[str, ...]) -> None:
    feature = TrackFeature("a", "metadata", TrackMetadata("a"), words, (0,) * len(words))
    assert folded([("metadata/a", feature)]).get("a").word_vectors is None
