"""A transactional producer for jobs: what belongs together is visible together, and a newer job shuts an older out."""

from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.errors import MsamError
from streams.outgoing import FENCED, PRODUCER, Out, hand_over
from streams.publishing import NotTaken

_TIMEOUT = 30.0


class Fenced(MsamError):
    """Another job with the same transactional id began after this one; nothing of this transaction is published."""


class Transactions:
    """One transaction a call. Blocking; librdkafka's connection is made by `take_over`."""

    def __init__(self, config: Mapping[str, str], name: str) -> None:
        self._name = name
        self._failure: KafkaError | None = None
        self._producer = Producer(
            {
                **config,
                **PRODUCER,
                "transactional.id": name,
                "linger.ms": 100,
            }
        )

    def take_over(self) -> None:
        """Shut out every earlier user of this name and abort what it had open: what is read now cannot change behind
        the back of the next `commit`."""
        self._producer.init_transactions(_TIMEOUT)

    def commit(self, outs: Sequence[Out]) -> None:
        """Publish all or none. Fenced: a newer job took over. NotTaken: the broker refuses a record."""
        self._failure = None
        try:
            self._producer.begin_transaction()
            for out in outs:
                hand_over(self._producer, out, self._report)
            self._producer.flush(_TIMEOUT)
            if self._failure is not None:
                raise KafkaException(self._failure)
            self._producer.commit_transaction(_TIMEOUT)
        except (KafkaException, SystemError) as error:  # SystemError: how flush reports that it was fenced meanwhile
            cause = error.args[0] if isinstance(error, KafkaException) else None
            self._abort(cause)
            raise NotTaken(f"the broker refused a record: {cause.str() if cause else error}") from error

    def _abort(self, cause: KafkaError | None) -> None:
        if cause is None or (cause.code() not in FENCED and not cause.fatal()):
            try:
                self._producer.abort_transaction(_TIMEOUT)
                return
            except (KafkaException, SystemError) as error:
                cause = error.args[0] if isinstance(error, KafkaException) else None
        said = "" if cause is None else f" ({cause.str()})"
        raise Fenced(f"{self._name}: another job of the same kind took over; nothing of this step is published{said}")

    def _report(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._failure is None:  # the first: the others are only purged because of it
            self._failure = error
