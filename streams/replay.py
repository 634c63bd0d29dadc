"""Backfill: lists for a past range of plays, under a pinned model and catalogue, into another topic.

Windows are rebuilt from the start of the log and only the range is published. Nothing of the live group, its tables
or its topic is touched.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, Message, TopicPartition

from streams import topics
from streams.catalogue_log import read_catalogue
from streams.errors import MsamError, NotReady
from streams.log_reader import end_offsets, key_of, partitions_of, read_to_end
from streams.model_log import read_versions
from streams.operations import read_operations
from streams.outgoing import Out
from streams.partitioner import partition_for
from streams.profiles import NOBODY, Profile
from streams.publishing import Publisher
from streams.recommender import Query, Recommender
from streams.records import Play, Recommendation, Source
from streams.registry import RegistryUnavailable
from streams.serialization import Registry, decode, encode
from streams.served import load_model
from streams.windows import Entry, Window

Range = dict[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What a replay would do: offsets [from, to) of every partition of plays, and with which model."""

    offsets: Range
    model: str
    to_topic: str
    users: int | None

    @property
    def records(self) -> int:
        """Offsets in the range; an upper bound of the lists, as offsets may be empty."""
        return sum(stop - start for start, stop in self.offsets.values())


def make_plan(
    config: Mapping[str, str], start: float, stop: float | None, to_topic: str, model: str | None, users: int | None
) -> ReplayPlan:
    """Turn append times (Unix seconds) into offsets and choose the model (default: the live one)."""
    if to_topic in {spec.name for spec in topics.topic_specs(1, "msam")} or to_topic.endswith("-changelog"):
        raise MsamError(f"--to-topic {to_topic}: a replay never writes to a live topic; name another")
    versions, channels = read_versions(config)
    chosen = model or channels.get("live")
    if chosen is None or chosen not in {version.version for version in versions}:
        raise NotReady(f"no model version {chosen or 'is live'}; `msam models list` shows what there is")
    consumer = Consumer({**config, "group.id": "msam-replay-plan", "enable.auto.commit": False})
    try:
        names = partitions_of(consumer, topics.PLAYS)
        ends = end_offsets(config, topics.PLAYS)
        first = _at(consumer, names, start, ends)
        last = ends if stop is None else _at(consumer, names, stop, ends)
    finally:
        consumer.close()
    return ReplayPlan({p: (first[p], max(first[p], last[p])) for p in names}, chosen, to_topic, users)


def _at(consumer: Consumer, partitions: list[int], time: float, ends: Mapping[int, int]) -> dict[int, int]:
    asked = [TopicPartition(topics.PLAYS, p, round(time * 1000)) for p in partitions]
    found = consumer.offsets_for_times(asked, timeout=30)
    return {tp.partition: tp.offset if tp.offset >= 0 else ends[tp.partition] for tp in found}


def execute(
    config: Mapping[str, str],
    plan: ReplayPlan,
    *,
    k: int,
    slack: int,
    n: int,
    only: frozenset[str] | None,
    profile_of: Callable[[str], Profile] = lambda user: NOBODY,
    registry: Registry | None = None,
    half: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Carry out a plan; returns the number of lists published."""
    recommender = _recommender(config, plan.model, n, half)
    _make_topic(config, plan)
    publisher = Publisher(config)
    done = 0
    for batch in _batches(_asked(config, plan, k, slack, only, profile_of, registry)):
        lists = recommender.recommend([query for _, query, _ in batch], n)
        outs = []
        for (source, _, user), items in zip(batch, lists, strict=True):
            version = profile_of(user).version
            record = Recommendation(user, items, plan.model, recommender.catalogue_version, 0, version, source)
            outs.append(Out(plan.to_topic, user.encode(), encode(record), source.partition))
        publisher.send(outs)
        done += len(outs)
        progress(done)
    return done


def _recommender(config: Mapping[str, str], version: str, n: int, half: bool) -> Recommender:
    record = next(v for v in read_versions(config)[0] if v.version == version)
    return load_model(record, read_catalogue(config), wait=0, n=n, half=half)


def _make_topic(config: Mapping[str, str], plan: ReplayPlan) -> None:
    topics.create_topics(config, [topics.TopicSpec(plan.to_topic, "user_id", len(plan.offsets), "delete")])


Asked = tuple[Source, Query, str]


def _asked(
    config: Mapping[str, str],
    plan: ReplayPlan,
    k: int,
    slack: int,
    only: frozenset[str] | None,
    profile_of: Callable[[str], Profile],
    registry: Registry | None,
) -> Iterator[Asked]:
    """Every play of the range with its window, in order per partition."""
    windows: dict[str, Window] = {}
    gone = read_operations(config).forgotten
    for message in read_to_end(config, topics.PLAYS, stop={p: stop for p, (_, stop) in plan.offsets.items()}):
        play = _play(message, len(plan.offsets), registry)
        partition, offset = message.partition(), message.offset()
        if play is None or partition is None or offset is None or (only is not None and play.user_id not in only):
            continue
        if play.user_id in gone:
            continue
        entry = Entry(play.played_at, offset, play.track_id, partition)
        window = windows[play.user_id] = windows.get(play.user_id, Window()).apply(entry, k + slack)
        if offset < plan.offsets[partition][0]:
            continue
        profile = profile_of(play.user_id)
        tracks = tuple(e.track_id for e in window.as_of(partition, offset, k))
        source = Source(topics.PLAYS, partition, offset, play.played_at, play.track_id)
        yield source, Query(tracks, profile.words, profile.vectors), play.user_id


def _play(message: Message, partitions: int, registry: Registry | None) -> Play | None:
    """The play, or None for a record that live processing dead-lettered."""
    try:
        play = decode(Play, message.value() or b"", registry=registry)
    except RegistryUnavailable:
        raise
    except MsamError:
        return None
    key = play.user_id.encode()
    return play if key_of(message) == key and partition_for(key, partitions) == message.partition() else None


def _batches(asked: Iterator[Asked], size: int = 256) -> Iterator[list[Asked]]:
    batch: list[Asked] = []
    for one in asked:
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
