"""Publishes records from files: idempotent, murmur2 like Java, evenly paced, and honest about how many got through."""

import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, current_thread, main_thread
from types import FrameType

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from msam.errors import MethodError
from streams import sources
from streams.errors import MsamError, NotReady
from streams.serialization import encode

_ANSWER_S = 60.0
_STEP_S = 0.2  # longest wait in one call of librdkafka, so that Ctrl-C is seen soon


class PublishError(MsamError):
    """Publishing stopped; the message says why and how many records the broker has."""


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a run: records the broker acknowledged, seconds, and whether Ctrl-C ended it early."""

    topic: str
    records: int
    seconds: float
    interrupted: bool = False

    @property
    def per_second(self) -> float:
        """Mean rate."""
        return self.records / self.seconds if self.seconds > 0 else 0.0


@dataclass(slots=True)
class _Tally:
    """Counts what the broker said."""

    acknowledged: int = 0
    failure: KafkaError | None = None
    progress: Callable[[int], None] = field(default=lambda done: None)

    def report(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.acknowledged += 1
            self.progress(self.acknowledged)
        elif self.failure is None:
            self.failure = error


def publish(
    config: Mapping[str, str],
    topic: str,
    events: Iterable[sources.Event],
    *,
    rate: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Published:
    """Send every event to an existing topic and wait for the broker's word; `rate` in events per second, evenly.

    A bad row ends the run with PublishError before anything of it is sent; Ctrl-C ends it with `interrupted`. In both
    cases what was accepted before is flushed and counted. NotReady where broker or topic are missing.
    """
    producer = Producer(
        {
            **config,
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 5,
            "message.max.bytes": 16 * 2**20,
            "delivery.timeout.ms": int(_ANSWER_S * 1000),
            "log_level": 0,  # what goes wrong is said once, in words, by the errors below
        }
    )
    _need_topic(producer, topic)
    tally = _Tally(progress=progress or (lambda done: None))
    began = time.monotonic()
    stopped = None
    with _ctrl_c() as interrupted:
        try:
            _send_all(producer, topic, events, rate, tally, interrupted)
        except (MsamError, MethodError) as error:
            stopped = error
        unanswered = _flush(producer)
    done = tally.acknowledged
    if tally.failure is not None:
        raise PublishError(
            f"{topic}: the broker refused a record: {tally.failure.str()} ({done} records are published)"
        )
    if unanswered:
        raise PublishError(f"{topic}: {unanswered} records without an answer; {done} records are published")
    if stopped is not None:
        raise PublishError(f"{stopped} ({done} records before it are published to {topic})") from stopped
    return Published(topic, done, time.monotonic() - began, interrupted.is_set())


def _need_topic(producer: Producer, topic: str) -> None:
    try:
        found = producer.list_topics(topic, timeout=10.0).topics[topic]
    except KafkaException as error:
        raise NotReady(
            f"cannot reach Kafka: {error.args[0].str()}; is the broker running, is --bootstrap right?"
        ) from None
    if found.error is not None or not found.partitions:
        raise NotReady(f"no topic {topic!r}: create it with `msam topics create`")


def _send_all(
    producer: Producer,
    topic: str,
    events: Iterable[sources.Event],
    rate: float | None,
    tally: _Tally,
    interrupted: Event,
) -> None:
    began = time.monotonic()
    for number, event in enumerate(events):
        if rate is not None:
            _wait_until(producer, began + number / rate, interrupted)
            if interrupted.is_set():
                return
        value = encode(event.record)
        while True:
            try:
                producer.produce(topic, value, event.record.key.encode(), on_delivery=tally.report)
                break
            except BufferError:  # the queue is full: wait for acknowledgements to make room
                producer.poll(_STEP_S)
            except KafkaException as error:
                raise PublishError(f"{event.where}: {error.args[0].str()}") from None
        producer.poll(0)
        if tally.failure is not None or interrupted.is_set():
            return


def _wait_until(producer: Producer, due: float, interrupted: Event) -> None:
    while (left := due - time.monotonic()) > 0 and not interrupted.is_set():
        producer.poll(min(left, _STEP_S))


@contextmanager
def _ctrl_c() -> Iterator[Event]:
    """An event that the first Ctrl-C sets; the second one interrupts as usual.

    A KeyboardInterrupt could strike inside a delivery report and lose its count. Signals reach only the main thread;
    elsewhere the event stays unset.
    """
    pressed = Event()
    if current_thread() is not main_thread():
        yield pressed
        return

    def note(number: int, frame: FrameType | None) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _flush(producer: Producer) -> int:
    """Wait for what is in flight, at most _ANSWER_S; the number of records still without an answer."""
    until = time.monotonic() + _ANSWER_S + 1.0
    while (left := producer.flush(_STEP_S)) and time.monotonic() < until:
        pass
    return left
