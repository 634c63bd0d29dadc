"""The events, as frozen dataclasses. `schemas/*.avsc` says what their bytes are, `serialization` converts."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from streams.errors import MsamError


class RecordError(MsamError):
    """A record, or the bytes of one, are not what they have to be; the message names the field."""


@dataclass(frozen=True, slots=True)
class Play:
    """One play of one track; `played_at` in Unix seconds UTC, `duration_played` in seconds."""

    user_id: str
    track_id: str
    played_at: float
    duration_played: float | None = None
    source: str | None = None

    @property
    def key(self) -> str:
        """Key on the topic."""
        return self.user_id


@dataclass(frozen=True, slots=True)
class SealedPlay:
    """A play of which only the listener can be read without the listener's key; `streams.sealing` opens it."""

    user_id: str
    key_id: str
    nonce: bytes
    ciphertext: bytes

    @property
    def key(self) -> str:
        """Key on the topic."""
        return self.user_id


@dataclass(frozen=True, slots=True)
class UserProfile:
    """What is known about a listener; None = unknown."""

    user_id: str
    gender: str | None = None
    age: int | None = None
    country: str | None = None

    @property
    def key(self) -> str:
        """Key on the topic."""
        return self.user_id


@dataclass(frozen=True, slots=True)
class TrackMetadata:
    """What is known about a track; `duration` in seconds, None = unknown."""

    track_id: str
    title: str | None = None
    artist_id: str | None = None
    artist: str | None = None
    album_id: str | None = None
    album: str | None = None
    labels: tuple[str, ...] = ()
    duration: float | None = None
    release_year: int | None = None

    @property
    def key(self) -> str:
        """Key on the topic."""
        return self.track_id


@dataclass(frozen=True, slots=True)
class AudioUpload:
    """The sound of a track: by reference (`uri` and, better, `sha256`) or inline (`content`)."""

    track_id: str
    uri: str | None = None
    sha256: str | None = None
    content: bytes | None = None
    content_type: str | None = None

    @property
    def key(self) -> str:
        """Key on the topic."""
        return self.track_id


@dataclass(frozen=True, slots=True)
class TrackFeature:
    """One derived part of a track: `part` is metadata, audio or sighting.

    Vectors are raw little-endian bytes, row-major: `word_vectors` float16 [P, E], `audio` float32 [G, A],
    `factor` float32 [D]; `word_fields` says where each of the P words is from (0 title, 1 artist, 2 label).
    """

    track_id: str
    part: str
    metadata: TrackMetadata | None = None
    words: tuple[str, ...] = ()
    word_fields: tuple[int, ...] = ()
    word_vectors: bytes | None = None
    encoder: str | None = None
    audio: bytes | None = None
    audio_version: str | None = None
    factor: bytes | None = None
    simf_version: str | None = None
    users: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Key on the topic; one a part, so that parts never overwrite one another."""
        return f"{self.part}/{self.track_id}"


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A model version (`state` accepted or refused), or what a channel points to (`state` channel).

    `trained_through` maps a partition of plays to the next offset that training had not seen.
    """

    version: str
    channel: str | None = None
    parent: str | None = None
    uri: str | None = None
    sha256: str | None = None
    created_at: float | None = None
    trained_through: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    state: str = "accepted"
    reason: str | None = None

    @property
    def key(self) -> str:
        """Key on the topic."""
        return f"version/{self.version}" if self.channel is None else f"channel/{self.channel}"


@dataclass(frozen=True, slots=True)
class Reasons:
    """Why a track is in a list: `kind` is repeat, artist, similar or discovery.

    `because` is the play of the window it is nearest to, whose modality weights `audio`, `text`, `sequence` are.
    """

    kind: str
    because: str | None = None
    audio: float = 0.0
    text: float = 0.0
    sequence: float = 0.0
    audio_group: str | None = None
    word: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One place in a list; `rank` counts from 1."""

    track_id: str
    score: float
    rank: int
    reasons: Reasons


@dataclass(frozen=True, slots=True)
class Source:
    """The play that a list answers, by its place in the log."""

    topic: str
    partition: int
    offset: int
    played_at: float
    track_id: str


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A user's ranked list after one play, with every version that it depends on."""

    user_id: str
    items: tuple[Item, ...]
    model_version: str
    catalogue_version: int
    counts_version: int
    profile_version: int
    source: Source

    @property
    def key(self) -> str:
        """Key on the topic."""
        return self.user_id


Record = Play | SealedPlay | UserProfile | TrackMetadata | AudioUpload | TrackFeature | ModelVersion | Recommendation
