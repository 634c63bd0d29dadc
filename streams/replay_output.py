"""Where a replay's lists go, and how far it has come: both in one transaction, so that it can be cut off anywhere.

The place is kept as offsets of a consumer group of the replay's own, `msam-replay-<topic>`; each offset carries its
share of the plan as metadata, so that a replay which goes on does what it set out to do.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from streams import topics
from streams.errors import MsamError
from streams.log_reader import end_offsets, patiently
from streams.outgoing import Out, hand_over
from streams.replay_plan import Offsets, ReplayPlan

_TIMEOUT = 30.0


class Listed(NamedTuple):
    """A list's record, for the partition of its play."""

    partition: int
    key: bytes
    value: bytes


class ReplayOutput:
    """One topic of lists; a second replay into the same topic fences the first."""

    def __init__(self, config: Mapping[str, str], to_topic: str) -> None:
        self._config, self._topic = config, to_topic
        self._failure: KafkaError | None = None
        self._group = Consumer(
            {
                **config,
                "group.id": f"msam-replay-{to_topic}",
                "enable.auto.commit": False,
                "isolation.level": "read_uncommitted",  # a replay that was cut off must not be waited for
            }
        )
        self._producer = Producer(
            {
                **config,
                "transactional.id": f"msam-replay-{to_topic}",
                "compression.type": "lz4",
                "linger.ms": 20,
                "log_level": 2,
            }
        )

    def place(self, partitions: Sequence[int]) -> tuple[ReplayPlan, Offsets] | None:
        """The plan that was begun and the next offset of every partition; None where nothing was."""
        wanted = [TopicPartition(topics.PLAYS, p) for p in partitions]
        found = patiently(lambda: self._group.committed(wanted, timeout=_TIMEOUT))
        if all(place.offset < 0 for place in found):
            return None
        plan = ReplayPlan.joined({place.partition: place.metadata or "{}" for place in found})
        return plan, {place.partition: place.offset for place in found}

    def begin(self, plan: ReplayPlan) -> None:
        """Make the topic, and note the plan before the first list."""
        made = topics.create_topics(
            self._config,
            [topics.TopicSpec(self._topic, "user_id", len(plan.offsets), "delete", {"retention.ms": "-1"})],
        )
        ends = end_offsets(self._config, self._topic)
        if not made and (any(ends.values()) or len(ends) != len(plan.offsets)):
            raise MsamError(f"--to-topic {self._topic} is not empty and no replay's that is known here; name another")
        self.publish(plan, [], {p: start for p, (start, _) in plan.offsets.items()})

    def open(self) -> None:
        """Fence whoever wrote before."""
        self._producer.init_transactions(_TIMEOUT)

    def publish(self, plan: ReplayPlan, lists: Sequence[Listed], place: Offsets) -> None:
        """Commit lists and place together; MsamError when the broker does not take them: run again to go on."""
        producer = self._producer
        self._failure = None
        producer.begin_transaction()
        try:
            for one in lists:
                hand_over(producer, Out(self._topic, one.key, one.value, one.partition), self._report)
            offsets = [TopicPartition(topics.PLAYS, p, at, plan.part(p)) for p, at in place.items()]
            producer.send_offsets_to_transaction(offsets, self._group.consumer_group_metadata(), _TIMEOUT)
            producer.flush(_TIMEOUT)
            if self._failure is not None:
                raise KafkaException(self._failure)
            producer.commit_transaction(_TIMEOUT)
        except KafkaException as error:
            cause = error.args[0]
            raise MsamError(f"{self._topic}: {cause.str()}; the same command again goes on from here") from error

    def close(self) -> None:
        """Leave."""
        self._group.close()

    def _report(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._failure is None:
            self._failure = error
