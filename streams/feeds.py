"""Followers of the compacted, one-partition topics that every worker reads whole: track features and model versions."""

import logging
import threading
import time
from collections.abc import Callable, Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

log = logging.getLogger(__name__)

OnRecord = Callable[[bytes, bytes | None, int], None]


class TopicFeed:
    """Reads partition 0 of a topic from its beginning, for ever, on a thread; no group, nothing committed."""

    def __init__(self, config: Mapping[str, str], topic: str, on_record: OnRecord) -> None:
        self.topic = topic
        self.caught_up = threading.Event()
        self.failure: Exception | None = None
        self._on_record = on_record
        self._stop = threading.Event()
        self._position = 0
        self._config = {
            **config,
            "group.id": "msam-feed",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
        self._consumer = Consumer(self._config)
        self._asker: Consumer | None = None  # to ask while the other one reads can take for ever
        self._consumer.assign([TopicPartition(topic, 0, 0)])
        self._thread = threading.Thread(target=self._run, name=f"feed-{topic}", daemon=True)

    def start(self) -> "TopicFeed":
        """Begin to read."""
        self._thread.start()
        return self

    def catch_up(self, patience: float) -> bool:
        """Wait until everything that the topic holds now is taken in; False where `patience` seconds do not suffice."""
        deadline = time.monotonic() + patience
        self._asker = self._asker or Consumer(self._config)
        try:
            _, end = self._asker.get_watermark_offsets(TopicPartition(self.topic, 0), timeout=patience)
        except KafkaException as error:
            log.warning("%s: its end is not known: %s", self.topic, error)
            return False
        while self._position < end and self.failure is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return self._position >= end

    def stop(self) -> None:
        """Stop reading and wait for the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10)
        self._consumer.close()
        if self._asker is not None:
            self._asker.close()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                for message in self._consumer.consume(500, timeout=0.1):
                    error, offset = message.error(), message.offset()
                    if error is None:
                        self._take(message.key(), message.value(), offset)
                        self._position = (offset or 0) + 1
                    elif error.code() == KafkaError._PARTITION_EOF:
                        self._position = offset or 0  # behind commit markers, which are no messages
                        self.caught_up.set()
                    elif error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION):
                        raise KafkaException(error)
                    else:
                        log.warning("%s: %s", self.topic, error)
        except Exception as error:
            log.exception("%s: the feed stopped", self.topic)
            self.failure = error

    def _take(self, key: bytes | str | None, value: bytes | None, offset: int | None) -> None:
        if key is None or offset is None:
            log.warning("%s[0]@%s: a record without a key is ignored", self.topic, offset)
            return
        try:
            self._on_record(key.encode() if isinstance(key, str) else key, value, offset)
        except Exception:  # one bad record must not end the feed; it is logged with its place
            log.exception("%s[0]@%d: ignored", self.topic, offset)
