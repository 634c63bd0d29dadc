"""plays: every event goes to the micro-batcher, which answers it with exactly one record."""

from typing import Any

import faust

from streams.pipeline import Pipeline


def attach(app: faust.App, topic: Any, pipeline: Pipeline) -> None:
    """Consume plays without acknowledging them; the pipeline does, after its transaction."""

    @app.agent(topic, name="plays")
    async def plays(stream: Any) -> None:
        async for event in stream.noack().events():
            generation = event.message.generation_id

            def current(generation: int = generation) -> bool:
                return bool(generation == app.consumer_generation_id)

            await pipeline.put(event, current)
