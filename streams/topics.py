"""Every topic, declared once: key, partitions, clean-up, retention. Created explicitly, never by the broker."""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from streams.errors import MsamError

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

PLAYS = "plays"
USER_PROFILES = "user-profiles"
TRACK_METADATA = "track-metadata"
AUDIO_UPLOADS = "audio-uploads"
TRACK_FEATURES = "track-features"
MODEL_VERSIONS = "model-versions"
RECOMMENDATIONS = "recommendations"
DEAD_LETTERS = "dead-letters"
OPERATIONS = "operations"
USER_KEYS = "user-keys"
# The name of the windows table's changelog begins with the group: two groups keep two sets of windows.
WINDOWS_CHANGELOG = "{group}-windows-changelog"
PROFILES_CHANGELOG = "{group}-profiles-changelog"

MIB = 2**20
DEFAULT_MESSAGE_BYTES = MIB + 12  # Kafka's own default of max.message.bytes
AUDIO_MESSAGE_BYTES = 11 * MIB  # a clip of 10 MiB, its record's other fields and Kafka's framing
# A dead letter is the original and its error headers, so it must hold the largest source record and more.
DEAD_LETTER_MESSAGE_BYTES = AUDIO_MESSAGE_BYTES + 64 * 1024
DAY_MS = 24 * 3600 * 1000
USER_KEYS_SEGMENT_MS = 5000
TIMEOUT = 30.0


class TopicError(MsamError):
    """A topic could not be created or looked at."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic as it must be; `config` holds what differs from the broker's defaults, beside the clean-up."""

    name: str
    key: str
    partitions: int
    cleanup: Literal["compact", "delete"]
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def full_config(self) -> dict[str, str]:
        """Topic configuration in Kafka's names."""
        return {"cleanup.policy": self.cleanup, **self.config}


def topic_specs(partitions: int, group: str) -> list[TopicSpec]:
    """All topics of a group.

    plays, user-profiles, the windows changelog and recommendations have the same `partitions`: a user's records of
    all four are then in the partition of the same number.

    >>> [spec.name for spec in topic_specs(4, "msam") if spec.partitions == 1]
    ['track-features', 'model-versions', 'operations', 'user-keys']
    """
    for_ever = {"retention.ms": "-1"}
    return [
        # Append time is the broker's, so that a replay's time range cannot be bent by a producer's clock.
        TopicSpec(PLAYS, "user_id", partitions, "delete", for_ever | {"message.timestamp.type": "LogAppendTime"}),
        TopicSpec(USER_PROFILES, "user_id", partitions, "compact"),
        TopicSpec(TRACK_METADATA, "track_id", partitions, "compact"),
        TopicSpec(
            AUDIO_UPLOADS, "track_id", partitions, "delete", for_ever | {"max.message.bytes": str(AUDIO_MESSAGE_BYTES)}
        ),
        # One partition each: its next offset is the version of the whole catalogue, and versions have one order.
        TopicSpec(TRACK_FEATURES, "part/track_id", 1, "compact"),
        TopicSpec(MODEL_VERSIONS, "version/<v> or channel/<name>", 1, "compact"),
        # Every list stays for a day, so that readers that follow see one list a play; then the newest one a user.
        TopicSpec(RECOMMENDATIONS, "user_id", partitions, "compact", {"min.compaction.lag.ms": str(DAY_MS)}),
        TopicSpec(
            DEAD_LETTERS,
            "original",
            partitions,
            "delete",
            for_ever | {"max.message.bytes": str(DEAD_LETTER_MESSAGE_BYTES)},
        ),
        # One partition: every worker reads all of it, and a redrive takes its marks and its letters in one order.
        TopicSpec(OPERATIONS, "what/of-whom", 1, "compact"),
        # A deleted key must soon be gone from the disk: segments are closed after seconds, and compacted after ten
        # minutes however few of their records are superseded. Tombstones hold no key and stay as long as elsewhere.
        TopicSpec(
            USER_KEYS,
            "sha256(user_id)/key_id",
            1,
            "compact",
            {
                "segment.ms": str(USER_KEYS_SEGMENT_MS),
                "max.compaction.lag.ms": str(10 * 60 * 1000),
                "message.timestamp.type": "LogAppendTime",  # segments are closed by the broker's clock alone
            },
        ),
        TopicSpec(WINDOWS_CHANGELOG.format(group=group), "user_id", partitions, "compact"),
        TopicSpec(PROFILES_CHANGELOG.format(group=group), "user_id", partitions, "compact"),
    ]


def create_topics(config: Mapping[str, str], specs: Iterable[TopicSpec]) -> list[str]:
    """Create the topics that are missing and return their names; those that exist are not touched.

    `config` is a librdkafka client configuration. Returns once every new topic is in the broker's metadata.
    """
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import NewTopic

    client = _client(config)
    existing = _partitions(client)
    missing = [spec for spec in specs if spec.name not in existing]
    if not missing:
        return []
    wanted = [NewTopic(spec.name, spec.partitions, -1, config=spec.full_config) for spec in missing]
    created = []
    for name, future in client.create_topics(wanted, operation_timeout=TIMEOUT).items():
        try:
            future.result(TIMEOUT)
            created.append(name)
        except KafkaException as error:
            # Somebody else created it between our look and our request: that is what we wanted.
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicError(f"cannot create topic {name}: {error.args[0].str()}") from error
    _await_metadata(client, {spec.name for spec in missing})
    return created


def _await_metadata(client: "AdminClient", names: set[str]) -> None:
    """The controller acknowledges a topic before the broker knows it: wait, or the next step finds it missing."""
    deadline = time.monotonic() + TIMEOUT
    while not names <= _partitions(client).keys():
        if time.monotonic() > deadline:
            raise TopicError(f"created topics do not appear after {TIMEOUT:g} s: {', '.join(sorted(names))}")
        time.sleep(0.02)


def check_topics(config: Mapping[str, str], specs: Iterable[TopicSpec]) -> list[str]:
    """What differs between the topics as declared and as they are, in words; empty when all is well."""
    client = _client(config)
    specs = list(specs)
    existing = _partitions(client)
    actual = _configs(client, [spec.name for spec in specs if spec.name in existing])
    return [line for spec in specs for line in _differences(spec, existing, actual)]


def _differences(spec: TopicSpec, existing: Mapping[str, int], actual: Mapping[str, Mapping[str, str]]) -> list[str]:
    if spec.name not in existing:
        return [f"{spec.name}: missing, create it with `msam topics create`"]
    found = []
    if existing[spec.name] != spec.partitions:
        found.append(f"{spec.name}: {existing[spec.name]} partitions, should be {spec.partitions}")
    for name, value in spec.full_config.items():
        is_now = actual[spec.name].get(name)
        if is_now != value:
            found.append(f"{spec.name}: {name} is {is_now}, should be {value}")
    return found


def _client(config: Mapping[str, str]) -> "AdminClient":
    from confluent_kafka.admin import AdminClient

    # Warnings and worse: at the default level librdkafka tells on stderr of how it empties its queues at the end.
    return AdminClient({"log_level": 4, **config})


def _partitions(client: "AdminClient") -> dict[str, int]:
    """Name -> number of partitions of every topic of the cluster."""
    from confluent_kafka import KafkaException

    try:
        topics = client.list_topics(timeout=TIMEOUT).topics
    except KafkaException as error:
        raise TopicError(f"cannot list topics: {error.args[0].str()}; is the broker there?") from error
    return {name: len(topic.partitions) for name, topic in topics.items()}


def _configs(client: "AdminClient", names: list[str]) -> dict[str, dict[str, str]]:
    """Name -> configuration in force, the broker's defaults included."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import ConfigResource, ResourceType

    if not names:
        return {}
    asked = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    answers: dict[ConfigResource, Future[dict[str, object]]] = client.describe_configs(asked, request_timeout=TIMEOUT)
    try:
        entries = {resource.name: future.result(TIMEOUT) for resource, future in answers.items()}
    except KafkaException as error:
        raise TopicError(f"cannot describe topics: {error.args[0].str()}") from error
    return {
        topic: {name: str(getattr(entry, "value", None)) for name, entry in config.items()}
        for topic, config in entries.items()
    }
