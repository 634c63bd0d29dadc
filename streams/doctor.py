"""Looks at what `msam doctor` judges: topics, records, groups, registry, disks, the live model. Changes nothing."""

import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from streams import topics
from streams.errors import MsamError
from streams.findings import (
    Finding,
    Lag,
    Sampled,
    clocks,
    compatibility,
    disk_space,
    keys_in_place,
    lag_of,
    live_model,
    schemas_known,
    sealed_plays,
    topics_as_declared,
)
from streams.log_reader import bounds, key_of, read_to_end
from streams.model_log import read_models
from streams.registry import HttpRegistry, RegistryUnavailable
from streams.rights import missing_rights
from streams.sealing import Keys, NotOpened, is_sealed, open_play
from streams.settings import Settings
from streams.topics import TopicError, check_topics, topic_specs
from streams.user_keys import keyring_of

SCHEMAS = {
    topics.PLAYS: "play",
    topics.USER_PROFILES: "user_profile",
    topics.TRACK_METADATA: "track_metadata",
    topics.AUDIO_UPLOADS: "audio_upload",
}
Config = Mapping[str, str]


def examine(settings: Settings, seconds: float = 6.0, sampled: int = 200) -> Iterator[Finding]:
    """One finding after another. `seconds`: how long lags are watched; `sampled`: newest records a partition."""
    config = settings.kafka_config()
    specs = topic_specs(settings.partitions, settings.group)
    try:
        check_topics(config, ())  # whether anybody answers
        user = settings.kafka_sasl_username or "this user"
        forbidden = list(missing_rights(config, user, [spec.name for spec in specs], settings.group))
    except (TopicError, KafkaException) as error:
        text = str(error) if isinstance(error, TopicError) else error.args[0].str()
        yield Finding("kafka", False, text, "start it (`msam kafka start`), or correct --bootstrap and security")
        return
    yield Finding("kafka", True, f"{config['bootstrap.servers']} answers")
    yield from forbidden or [Finding("rights", True, f"{user} may do what workers and operators do")]
    if any(not finding.ok for finding in forbidden):
        return  # what cannot be read cannot be judged
    differences = check_topics(config, specs)
    yield from topics_as_declared(len(specs), differences)
    there = {spec.name: spec for spec in specs if not any(d.startswith(f"{spec.name}: missing") for d in differences)}
    plays: list[Sampled] = []
    for name, schema in SCHEMAS.items():
        if name in there:
            sample, partitions = _sample(config, name, sampled)
            plays = sample if name == topics.PLAYS else plays
            yield keys_in_place(name, sample, partitions)
            yield schemas_known(name, schema, sample, settings.registry_url is not None)
    if topics.RECOMMENDATIONS in there:
        yield keys_in_place(topics.RECOMMENDATIONS, *_sample(config, topics.RECOMMENDATIONS, sampled))
    keys = keyring_of(settings) if topics.USER_KEYS in there else None
    if topics.USER_KEYS in there:
        yield _sealed(plays, keys, any(low < high for low, high in bounds(config, topics.USER_KEYS).values()))
    yield from clocks(time.time(), (record.time for record in plays), _played(plays, keys))
    yield from _registry(settings.registry_url)
    for path in dict.fromkeys([settings.home, settings.state, settings.models]):
        usage = shutil.disk_usage(_existing(path))
        yield disk_space(str(path), usage.total, usage.free)
    if topics.MODEL_VERSIONS in there:
        yield _model(config)
    yield from _lags(config, settings.group, [name for name in SCHEMAS if name in there], seconds)


def _sample(config: Config, topic: str, count: int) -> tuple[list[Sampled], int]:
    """The newest records of every partition, and the number of partitions."""
    ends = bounds(config, topic)
    start = {partition: max(low, high - count) for partition, (low, high) in ends.items()}
    found = [
        Sampled(m.partition() or 0, m.offset() or 0, key_of(m), m.value(), m.timestamp()[1] / 1000)
        for m in read_to_end(config, topic, start)
    ]
    return found, len(ends)


def _sealed(plays: list[Sampled], keys: Keys | None, any_key: bool) -> Finding:
    values = [record.value for record in plays if record.value and is_sealed(record.value)]
    broken = []
    for value in values:
        try:
            open_play(value, keys=keys)
        except NotOpened:  # that of a forgotten listener is meant to be unreadable
            continue
        except MsamError as error:
            broken.append(str(error))
    return sealed_plays(len(values), broken, any_key, keys is not None)


def _played(sample: list[Sampled], keys: Keys | None) -> Iterator[tuple[float, float]]:
    for record in sample:
        try:
            yield open_play(record.value or b"", keys=keys).played_at, record.time
        except MsamError:
            continue


def _registry(url: str | None) -> Iterator[Finding]:
    if url is None:
        yield Finding("registry", True, "none is configured")
        return
    registry = HttpRegistry(url)
    try:
        known = [(topic, f"{topic}-value") for topic in SCHEMAS]
        there = set(registry.subjects())
        answers = {s: registry.compatible(s, SCHEMAS[topic]) for topic, s in known if s in there}
        yield from compatibility(answers)
    except RegistryUnavailable as error:
        yield Finding("registry", False, str(error), "start it: framed plays wait until it answers")
    except MsamError as error:
        yield Finding("registry", False, str(error), "is MSAM_REGISTRY_URL the root of Confluent's API?")


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def _model(config: Config) -> Finding:
    from msam.checkpoint import read_manifest
    from msam.errors import MethodError
    from streams.served import ModelRefused, artifact_path

    versions, channels = read_models(config)
    if "live" not in channels:
        return live_model(None, None)
    name = channels["live"].version
    record = versions.get(name)
    if record is None or record.uri is None:
        return live_model(name, "it was never announced")
    try:
        read_manifest(artifact_path(record.uri))
    except (MethodError, ModelRefused) as error:
        return live_model(name, str(error))
    return live_model(name, None)


def _lags(config: Config, group: str, names: list[str], seconds: float) -> Iterator[Finding]:
    admin = AdminClient({"log_level": 4, **config})
    series: dict[tuple[str, int], list[Lag]] = {}
    for turn in range(3):
        if turn:
            time.sleep(seconds / 2)
        try:
            committed = _committed(admin, group)
        except KafkaException as error:
            remedy = "may this user describe groups? (ACL: DESCRIBE on the group)"
            yield Finding("lag", False, f"offsets of {group} cannot be read: {error.args[0].str()}", remedy)
            return
        for name in names:
            for partition, (low, high) in bounds(config, name).items():
                at = committed.get((name, partition), low)
                series.setdefault((name, partition), []).append(Lag(at, high))
    found = [
        lag_of(group, f"{name}[{p}]", lags, _anything(config, name, p, lags[-1])) for (name, p), lags in series.items()
    ]
    behind = sum(lags[-1].behind for lags in series.values())
    wrong = [finding for finding in found if finding is not None]
    yield from wrong or [Finding("lag", True, f"{group} keeps up; {behind} offsets behind in all")]


def _committed(admin: AdminClient, group: str) -> dict[tuple[str, int], int]:
    (future,) = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]).values()
    places: list[TopicPartition] = future.result(30).topic_partitions
    return {(tp.topic, tp.partition): tp.offset for tp in places if tp.offset >= 0}


def _anything(config: Config, topic: str, partition: int, lag: Lag) -> bool:
    """Whether a record, not only commit markers, lies beyond what is committed."""
    if not lag.behind:
        return False
    skip = {p: high for p, (_, high) in bounds(config, topic).items()}
    return next(iter(read_to_end(config, topic, {**skip, partition: lag.committed})), None) is not None
