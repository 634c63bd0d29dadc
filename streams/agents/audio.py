"""audio-uploads: sound becomes descriptors, in processes of their own; what cannot be read becomes a dead letter."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import faust

from msam.errors import MethodError
from msam.features.audio import AUDIO_VERSION
from streams import topics
from streams.agents.batcher import Batcher
from streams.audio_intake import AudioPool
from streams.catalogue import AUDIO
from streams.errors import MsamError
from streams.metrics import Metrics
from streams.outgoing import Out
from streams.pipeline import SourceEvent
from streams.publishing import Publisher
from streams.records import AudioUpload, TrackFeature
from streams.serialization import Registry, decode, encode
from streams.serving import log_dead, to_out


class WrongUpload(MsamError):
    """An upload that its producer must send differently."""


class AudioStep:
    """From uploads to audio features."""

    def __init__(
        self, pool: AudioPool, publisher: Publisher, metrics: Metrics, registry: Registry | None = None
    ) -> None:
        self._pool, self._publisher, self._metrics, self._registry = pool, publisher, metrics, registry

    async def __call__(self, batch: Sequence[SourceEvent]) -> None:
        """Describe the sounds of a batch side by side, then publish."""
        outs = await asyncio.gather(*(self._one(event) for event in batch))
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._publisher.send, [out for out in outs if out is not None])

    async def _one(self, event: SourceEvent) -> Out | None:
        message = event.message
        try:
            if message.value is None:
                if not message.key:
                    raise WrongUpload("a tombstone needs the track_id as its key")
                return Out(topics.TRACK_FEATURES, f"{AUDIO}/".encode() + message.key, None, 0)
            loop = asyncio.get_running_loop()  # not on the loop itself: a registry may have to be waited for
            upload = await loop.run_in_executor(
                None, partial(decode, AudioUpload, message.value, registry=self._registry)
            )
            if message.key != upload.track_id.encode():
                raise WrongUpload("the record's key must be its track_id in UTF-8")
            audio = await self._pool.describe(upload)
        except (MsamError, MethodError) as error:
            self._metrics.dead.labels(topics.AUDIO_UPLOADS).inc()
            log_dead(topics.AUDIO_UPLOADS, message, error)
            return to_out(topics.AUDIO_UPLOADS, message, error)
        self._metrics.tracks.labels(AUDIO).inc()
        feature = TrackFeature(upload.track_id, AUDIO, audio=audio.astype("<f4").tobytes(), audio_version=AUDIO_VERSION)
        return Out(topics.TRACK_FEATURES, feature.key.encode(), encode(feature), 0)


def attach(app: faust.App, topic: Any, step: AudioStep) -> Batcher:
    """Consume audio uploads."""
    batcher = Batcher(step, size=8, bound=16)

    @app.agent(topic, name="audio")
    async def audio(stream: Any) -> None:
        async for event in stream.noack().events():
            await batcher.put(event)

    return batcher
