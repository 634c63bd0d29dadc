"""What the broker lets this user do: asked of the broker itself, so that a user needs no right to read ACLs."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AdminClient

from streams.findings import Finding, rights

Config = Mapping[str, str]
_TIMEOUT = 30.0
_ABSENT = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.GROUP_ID_NOT_FOUND}
#: What workers, trainers and operators need of every topic of ours; docs/operations.md says the same.
TOPIC = ("READ", "WRITE", "DESCRIBE_CONFIGS")


def missing_rights(config: Config, user: str, topics: Sequence[str], group: str) -> Iterator[Finding]:
    """One finding a right that is missing; none where the broker has no authorizer, as everybody may do everything."""
    admin = AdminClient({"log_level": 4, **config})
    described = admin.describe_topics(
        TopicCollection(list(topics)), include_authorized_operations=True, request_timeout=_TIMEOUT
    )
    for name, topic in described.items():
        yield from _found(topic, user, "topic", name, TOPIC, KafkaError.TOPIC_AUTHORIZATION_FAILED)
    (one,) = admin.describe_consumer_groups(
        [group], include_authorized_operations=True, request_timeout=_TIMEOUT
    ).values()
    yield from _found(one, user, "group", group, ("READ",), KafkaError.GROUP_AUTHORIZATION_FAILED)
    for name in dict.fromkeys((f"{group}-doctor", "msam-doctor")):
        if not _may_write(config, name):
            prefix = name.removesuffix("doctor")
            for finding in rights(user, "transactional-id", prefix, ("WRITE",), ()):
                yield Finding(finding.check, False, finding.text, f"{finding.remedy} --resource-pattern-type prefixed")


def _found(
    future: "Future[Any]", user: str, resource: str, name: str, needed: Sequence[str], refused: int
) -> list[Finding]:
    try:
        operations = future.result().authorized_operations  # the request has a timeout of its own
    except KafkaException as error:
        if error.args[0].code() == refused:
            return rights(user, resource, name, needed, None)
        if error.args[0].code() in _ABSENT:
            return []  # that is for others to find
        raise
    return [] if operations is None else rights(user, resource, name, needed, {one.name for one in operations})


def _may_write(config: Config, name: str) -> bool:
    """Whether a transactional id may be used: there is no way to ask but to take one, which nothing else uses."""
    silent = logging.getLogger(f"{__name__}.probe")
    silent.disabled = True  # librdkafka calls a refusal fatal, on stderr; it is what is asked
    try:
        Producer({**config, "transactional.id": name}, logger=silent).init_transactions(_TIMEOUT)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            return False
        raise
    return True
