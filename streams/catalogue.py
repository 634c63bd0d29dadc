"""What is known of every track, folded from `track-features`: pure state, no Kafka.

The parts of a track (metadata, audio, sighting) arrive as separate records and in any order; the fold joins them. The
catalogue's version is the next offset of the topic, so a version names one exact content.
"""

import threading
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from msam.features.audio import AUDIO_GROUPS
from streams.records import TrackFeature, TrackMetadata

METADATA, AUDIO, SIGHTING = "metadata", "audio", "sighting"


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One track: whatever parts have arrived. word_vectors [P, E], audio [G, A], factor [D]."""

    track_id: str
    metadata: TrackMetadata | None = None
    words: tuple[str, ...] = ()
    word_fields: tuple[int, ...] = ()
    word_vectors: NDArray[np.float16] | None = None
    audio: NDArray[np.float32] | None = None
    factor: NDArray[np.float32] | None = None
    simf_version: str | None = None
    users: tuple[str, ...] = ()
    withdrawn: bool = False

    @property
    def artist_id(self) -> str | None:
        """The artist, where known."""
        return None if self.metadata is None else self.metadata.artist_id

    def links(self) -> dict[str, dict[str, float]]:
        """The track's relations to other objects, as SiMF's warm start takes them.

        A track that nobody described is tied to the listeners who were seen to play it, as one play each.
        """
        found: dict[str, dict[str, float]] = {}
        if self.metadata is not None:
            if self.metadata.artist_id:
                found["artist"] = {self.metadata.artist_id: 1.0}
            if self.metadata.album_id:
                found["album"] = {self.metadata.album_id: 1.0}
            if self.metadata.labels:
                found["tag"] = dict.fromkeys(self.metadata.labels, 1.0)
        if not found and self.users:
            found["user"] = dict.fromkeys(self.users, float(np.log(2.0)))
        return found


class Catalogue:
    """All tracks by id, and the order in which they changed. Written by one thread, read by others under the lock."""

    def __init__(self) -> None:
        self.tracks: dict[str, Track] = {}
        self.changes: list[tuple[Track, int]] = []  # the track as it became, and the version that includes it
        self.version = 0
        self.lock = threading.Lock()

    def fold(self, key: str, feature: TrackFeature | None, offset: int) -> None:
        """Take in one record of `track-features`; None is a tombstone for the part that the key names."""
        part, _, track_id = key.partition("/")
        with self.lock:
            before = self.tracks.get(track_id, Track(track_id))
            after = _without(before, part) if feature is None else _with(before, feature)
            if after is not before:
                self.tracks[track_id] = after
                self.changes.append((after, offset + 1))
            self.version = offset + 1

    def get(self, track_id: str) -> Track:
        """What is known of a track, which may be nothing."""
        return self.tracks.get(track_id) or Track(track_id)

    def since(self, position: int, limit: int | None = None) -> tuple[list[Track], int, int]:
        """Tracks changed since a position in `changes` (each once), the new position and the version there."""
        with self.lock:
            end = len(self.changes) if limit is None else min(position + limit, len(self.changes))
            changed = {track.track_id: track for track, _ in self.changes[position:end]}
            version = self.version if end == len(self.changes) else self.changes[end - 1][1]
            return list(changed.values()), end, version

    def behind(self, position: int) -> int:
        """How many changes lie after a position."""
        return len(self.changes) - position


def _with(track: Track, feature: TrackFeature) -> Track:
    if feature.part == METADATA and feature.metadata is None:
        return _without(track, METADATA)  # a withdrawal that, unlike a tombstone, never expires
    if feature.part == METADATA:
        vectors = None
        if feature.word_vectors:
            vectors = np.frombuffer(feature.word_vectors, "<f2").reshape(len(feature.words), -1)
        factor = np.frombuffer(feature.factor, "<f4") if feature.factor else None
        return replace(
            track,
            metadata=feature.metadata,
            words=tuple(feature.words),
            word_fields=tuple(feature.word_fields),
            word_vectors=vectors,
            factor=factor,
            simf_version=feature.simf_version,
            withdrawn=False,
        )
    if feature.part == AUDIO:
        audio = np.frombuffer(feature.audio, "<f4").reshape(len(AUDIO_GROUPS), -1) if feature.audio else None
        return replace(track, audio=audio)
    return track if track.users == tuple(feature.users) else replace(track, users=tuple(feature.users))


def _without(track: Track, part: str) -> Track:
    if part == METADATA:
        return Track(track.track_id, audio=track.audio, users=track.users, withdrawn=True)
    return replace(track, audio=None) if part == AUDIO else replace(track, users=())
