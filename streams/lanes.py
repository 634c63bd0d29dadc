"""One transactional lane per source partition: outputs, window changes and the mark are committed as one.

`transactional.id` is `<group>-<partition>`, so the `init_transactions` of a new owner fences whoever held the
partition before it (KIP-98). Offsets are committed to the group after the transaction; a play that comes again is
recognised by the partition's mark, which travels in the same transaction.
"""

import logging
import time
from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.errors import MsamError
from streams.outgoing import FENCED, PRODUCER, Out, hand_over
from streams.stores import TableStore
from streams.windows import MARK_KEY, decode_mark, encode_mark

log = logging.getLogger(__name__)

_REFUSED = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.INVALID_RECORD,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
_TIMEOUT = 30.0


class LaneFenced(MsamError):
    """Another worker owns the partition now; whatever this one still holds of it is void."""


class LaneRefused(MsamError):
    """The broker will never take what was to be published; trying again cannot help."""


class Lane:
    """Publishes what follows from one source partition."""

    def __init__(
        self, config: Mapping[str, str], group: str, partition: int, store: TableStore, changelog: str
    ) -> None:
        self.partition = partition
        self.mark = -1
        self._store = store
        self._changelog = changelog
        self._position = -1
        self._failure: KafkaError | None = None
        self._producer = Producer(
            {
                **config,
                **PRODUCER,
                "transactional.id": f"{group}-{partition}",
                "linger.ms": 5,  # less, and a batch goes out piecemeal; more may be slept out, flush or not
                "transaction.timeout.ms": 60_000,
            }
        )

    def fence(self) -> None:
        """Fence every earlier owner of this partition and abort what it had open. Blocking."""
        self._producer.init_transactions(_TIMEOUT)

    def load(self) -> None:
        """Read the mark, after the store has been restored."""
        self.mark = decode_mark(self._store.get(self.partition, MARK_KEY))

    def commit(self, outs: Sequence[Out], state: Mapping[bytes, bytes | None], mark: int) -> None:
        """Publish and commit; then write the windows (None: delete) to RocksDB. Blocking; LaneFenced when it is lost.

        A crash after the commit and before RocksDB is made good by the restore from the changelog.
        """
        while True:
            try:
                self._transact(outs, state, mark)
                break
            except KafkaException as error:
                self._recover(error.args[0])
            except SystemError as error:  # how flush() reports that the producer was fenced while it was sending
                if isinstance(error.__cause__, KafkaException):
                    self._recover(error.__cause__.args[0])
                else:  # at times without saying so: the next call does
                    self._abort()
        self.mark = mark
        self._store.write(self.partition, [*state.items(), (MARK_KEY, encode_mark(mark))], self._position)

    def _transact(self, outs: Sequence[Out], state: Mapping[bytes, bytes | None], mark: int) -> None:
        producer = self._producer
        self._failure = None
        producer.begin_transaction()
        for out in outs:
            hand_over(producer, out, self._report)
        for key, value in state.items():
            producer.produce(self._changelog, value, key, partition=self.partition, on_delivery=self._report)
        producer.produce(
            self._changelog, encode_mark(mark), MARK_KEY, partition=self.partition, on_delivery=self._delivered
        )
        producer.flush(_TIMEOUT)
        if self._failure is not None:
            raise KafkaException(self._failure)
        self._commit_transaction()

    def _commit_transaction(self) -> None:
        while True:
            try:
                return self._producer.commit_transaction(_TIMEOUT)
            except KafkaException as error:
                cause = error.args[0]
                if not cause.retriable() or cause.txn_requires_abort():
                    raise
                log.warning("%s: commit not answered yet, asking again: %s", self, cause)

    def _recover(self, cause: KafkaError) -> None:
        """Abort, so that the same transaction can be tried again; raise when that is out of the question."""
        if cause.code() in FENCED or cause.fatal():
            raise LaneFenced(f"partition {self.partition} was taken over by another worker ({cause.str()})")
        self._abort()
        if cause.code() in _REFUSED:
            raise LaneRefused(f"partition {self.partition}: the broker refuses what follows from it ({cause.str()})")
        log.warning("%s: transaction failed, trying again: %s", self, cause)
        time.sleep(0.1)

    def _abort(self) -> None:
        while True:
            try:
                return self._producer.abort_transaction(_TIMEOUT)
            except SystemError as error:
                raise LaneFenced(f"partition {self.partition}: its producer is of no more use ({error})") from error
            except KafkaException as error:
                again = error.args[0]
                if again.code() in FENCED or again.fatal() or not again.retriable():
                    raise LaneFenced(
                        f"partition {self.partition}: the transaction cannot be aborted ({again})"
                    ) from error

    def _report(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._failure is None:  # the first: the others are only purged because of it
            self._failure = error

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        self._report(error, message)
        offset = message.offset()
        if error is None and offset is not None:
            self._position = offset

    def __repr__(self) -> str:
        return f"lane[{self.partition}]"
