"""track-metadata: words become BERT vectors, relations become a warm-started SiMF factor; features are published."""

from collections.abc import Callable, Sequence
from typing import Any

import faust
import numpy as np

from msam.features.text import TextEncoder, word_matrices
from msam.features.words import track_fields
from msam.simf import SiMFState, warm_start
from streams import topics
from streams.agents.batcher import Batcher
from streams.catalogue import AUDIO, METADATA, SIGHTING, Track
from streams.errors import MsamError
from streams.metrics import Metrics
from streams.outgoing import Out
from streams.pipeline import SourceEvent, SourceMessage
from streams.publishing import Publisher
from streams.records import TrackFeature, TrackMetadata
from streams.serialization import Registry, decode, encode
from streams.serving import log_dead, to_out


class WrongMetadata(MsamError):
    """Track metadata that its producer must send differently."""


class TrackStep:
    """From metadata to features. Blocking; runs on the features thread."""

    def __init__(
        self,
        encoder: Callable[[], TextEncoder],
        simf: Callable[[], SiMFState | None],
        publisher: Publisher,
        metrics: Metrics,
        registry: Registry | None = None,
    ) -> None:
        self._encoder, self._simf, self._publisher = encoder, simf, publisher
        self._metrics, self._registry = metrics, registry

    def __call__(self, batch: Sequence[SourceEvent]) -> None:
        """Publish the features, withdrawals and dead letters that follow from a batch."""
        outs: list[Out] = []
        described: list[TrackMetadata] = []
        for event in batch:
            message = event.message
            try:
                if message.value is None:
                    outs += self._withdraw(message)
                else:
                    described.append(self._decode(message))
            except MsamError as error:
                self._metrics.dead.labels(topics.TRACK_METADATA).inc()
                log_dead(topics.TRACK_METADATA, message, error)
                outs.append(to_out(topics.TRACK_METADATA, message, error))
        features = features_of(described, self._encoder(), self._simf()) if described else []
        outs += [Out(topics.TRACK_FEATURES, f.key.encode(), encode(f), 0) for f in features]
        self._publisher.send(outs)
        self._metrics.tracks.labels(METADATA).inc(len(described))

    def _decode(self, message: SourceMessage) -> TrackMetadata:
        metadata = decode(TrackMetadata, message.value or b"", registry=self._registry)
        if message.key != metadata.track_id.encode():
            raise WrongMetadata("the record's key must be its track_id in UTF-8")
        return metadata

    def _withdraw(self, message: SourceMessage) -> list[Out]:
        if not message.key:
            raise WrongMetadata("a tombstone needs the track_id as its key")
        try:
            message.key.decode()
        except UnicodeDecodeError as error:
            raise WrongMetadata("a tombstone's key must be a track_id in UTF-8") from error
        gone = TrackFeature(message.key.decode(), METADATA)  # a record, not a tombstone: trained models know the track
        parts = [Out(topics.TRACK_FEATURES, f"{part}/".encode() + message.key, None, 0) for part in (AUDIO, SIGHTING)]
        return [*parts, Out(topics.TRACK_FEATURES, gone.key.encode(), encode(gone), 0)]


def features_of(described: Sequence[TrackMetadata], encoder: TextEncoder, simf: SiMFState | None) -> list[TrackFeature]:
    """Features of tracks: word vectors of title, artist and labels, and the factor that their relations give."""
    texts = word_matrices(encoder, [track_fields(m.title, m.artist, m.labels, m.duration) for m in described])
    features = []
    for metadata, text in zip(described, texts, strict=True):
        factor = None
        if simf is not None and "track" in simf.types:
            links = Track(metadata.track_id, metadata).links()
            factor = warm_start(simf, "track", [links])[0].astype("<f4").tobytes()
        features.append(
            TrackFeature(
                metadata.track_id,
                METADATA,
                metadata,
                text.words,
                text.fields,
                text.vectors.astype(np.dtype("<f2")).tobytes() if len(text.words) else None,
                encoder.id,
                factor=factor,
                simf_version=None if simf is None else simf.version,
            )
        )
    return features


def attach(app: faust.App, topic: Any, step: TrackStep, run: Callable[..., Any]) -> Batcher:
    """Consume track metadata; `run` calls the step on its thread."""

    async def handle(batch: Sequence[SourceEvent]) -> None:
        await run(step, batch)

    batcher = Batcher(handle)

    @app.agent(topic, name="tracks")
    async def tracks(stream: Any) -> None:
        async for event in stream.noack().events():
            await batcher.put(event)

    return batcher
