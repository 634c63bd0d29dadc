"""Records as Avro data (plain dicts) and back, field by field: `dataclasses.asdict` copies deeply, per message."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from streams.records import (
    AudioUpload,
    Item,
    ModelVersion,
    Play,
    Reasons,
    Recommendation,
    SealedPlay,
    Source,
    TrackFeature,
    TrackMetadata,
    UserProfile,
)

Datum = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Codec:
    """How records of one class become Avro data of one schema, and back."""

    schema: str
    to_datum: Callable[[Any], Datum]
    from_datum: Callable[[Datum], Any]


def _play(play: Play) -> Datum:
    return {
        "user_id": play.user_id,
        "track_id": play.track_id,
        "played_at": play.played_at,
        "duration_played": play.duration_played,
        "source": play.source,
    }


def _to_play(datum: Datum) -> Play:
    return Play(datum["user_id"], datum["track_id"], datum["played_at"], datum["duration_played"], datum["source"])


def _sealed(sealed: SealedPlay) -> Datum:
    return {
        "user_id": sealed.user_id,
        "key_id": sealed.key_id,
        "nonce": sealed.nonce,
        "ciphertext": sealed.ciphertext,
    }


def _profile(profile: UserProfile) -> Datum:
    return {
        "user_id": profile.user_id,
        "gender": profile.gender,
        "age": profile.age,
        "country": profile.country,
    }


def _metadata(track: TrackMetadata) -> Datum:
    return {
        "track_id": track.track_id,
        "title": track.title,
        "artist_id": track.artist_id,
        "artist": track.artist,
        "album_id": track.album_id,
        "album": track.album,
        "labels": list(track.labels),
        "duration": track.duration,
        "release_year": track.release_year,
    }


def _to_metadata(datum: Datum) -> TrackMetadata:
    return TrackMetadata(**{**datum, "labels": tuple(datum["labels"])})


def _upload(upload: AudioUpload) -> Datum:
    return {
        "track_id": upload.track_id,
        "uri": upload.uri,
        "sha256": upload.sha256,
        "content": upload.content,
        "content_type": upload.content_type,
    }


def _feature(feature: TrackFeature) -> Datum:
    return {
        "track_id": feature.track_id,
        "part": feature.part,
        "metadata": None if feature.metadata is None else _metadata(feature.metadata),
        "words": list(feature.words),
        "word_fields": list(feature.word_fields),
        "word_vectors": feature.word_vectors,
        "encoder": feature.encoder,
        "audio": feature.audio,
        "audio_version": feature.audio_version,
        "factor": feature.factor,
        "simf_version": feature.simf_version,
        "users": list(feature.users),
    }


def _to_feature(datum: Datum) -> TrackFeature:
    changed = {name: tuple(datum[name]) for name in ("words", "word_fields", "users")}
    metadata = datum["metadata"]
    return TrackFeature(**{**datum, **changed, "metadata": None if metadata is None else _to_metadata(metadata)})


def _model(model: ModelVersion) -> Datum:
    return {
        "version": model.version,
        "channel": model.channel,
        "parent": model.parent,
        "uri": model.uri,
        "sha256": model.sha256,
        "created_at": model.created_at,
        "trained_through": dict(model.trained_through),
        "metrics": dict(model.metrics),
        "state": model.state,
        "reason": model.reason,
    }


def _item(item: Item) -> Datum:
    reasons = item.reasons
    return {
        "track_id": item.track_id,
        "score": item.score,
        "rank": item.rank,
        "reasons": {
            "kind": reasons.kind,
            "because": reasons.because,
            "audio": reasons.audio,
            "text": reasons.text,
            "sequence": reasons.sequence,
            "audio_group": reasons.audio_group,
            "word": reasons.word,
        },
    }


def _recommendation(made: Recommendation) -> Datum:
    source = made.source
    return {
        "user_id": made.user_id,
        "items": [_item(item) for item in made.items],
        "model_version": made.model_version,
        "catalogue_version": made.catalogue_version,
        "counts_version": made.counts_version,
        "profile_version": made.profile_version,
        "source": {
            "topic": source.topic,
            "partition": source.partition,
            "offset": source.offset,
            "played_at": source.played_at,
            "track_id": source.track_id,
        },
    }


def _to_item(datum: Datum) -> Item:
    return Item(datum["track_id"], datum["score"], datum["rank"], Reasons(**datum["reasons"]))


def _to_recommendation(datum: Datum) -> Recommendation:
    items = tuple(_to_item(item) for item in datum["items"])
    return Recommendation(**{**datum, "items": items, "source": Source(**datum["source"])})


CODECS: dict[type, Codec] = {
    Play: Codec("play", _play, _to_play),
    SealedPlay: Codec("sealed_play", _sealed, lambda datum: SealedPlay(**datum)),
    UserProfile: Codec("user_profile", _profile, lambda datum: UserProfile(**datum)),
    TrackMetadata: Codec("track_metadata", _metadata, _to_metadata),
    AudioUpload: Codec("audio_upload", _upload, lambda datum: AudioUpload(**datum)),
    TrackFeature: Codec("track_feature", _feature, _to_feature),
    ModelVersion: Codec("model_version", _model, lambda datum: ModelVersion(**datum)),
    Recommendation: Codec("recommendation", _recommendation, _to_recommendation),
}
