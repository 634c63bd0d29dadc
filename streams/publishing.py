"""An idempotent producer for what is not bound to a transaction: features, model versions, other dead letters."""

from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.errors import MsamError
from streams.outgoing import PRODUCER, Out, hand_over


class NotTaken(MsamError):
    """A record was not taken by the broker."""


class Publisher:
    """Sends batches and waits for every acknowledgement. Blocking: call it off the event loop."""

    def __init__(self, config: Mapping[str, str]) -> None:
        self._failure: KafkaError | None = None
        self._producer = Producer(
            {
                **config,
                **PRODUCER,
                "enable.idempotence": True,
                "linger.ms": 5,
            }
        )

    def send(self, outs: Sequence[Out], timeout: float = 60.0) -> None:
        """Publish all and return once the broker has them; NotTaken when one is refused."""
        self._failure = None
        for out in outs:
            try:
                hand_over(self._producer, out, self._report)
            except KafkaException as error:
                raise NotTaken(f"{out.topic}: {error}") from error
        if self._producer.flush(timeout):
            raise NotTaken(f"the broker did not answer within {timeout:.0f} s; is it reachable?")
        if self._failure is not None:
            raise NotTaken(f"the broker refused a record: {self._failure.str()}")

    def _report(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failure = error
