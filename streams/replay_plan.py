"""What a replay will do, decided once: the range, the versions, whose lists. A replay that goes on keeps its plan."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from confluent_kafka import Consumer, TopicPartition

from streams import topics
from streams.errors import ConfigError, MsamError, NotReady
from streams.log_reader import end_offsets, partitions_of
from streams.model_log import read_versions

Offsets = dict[int, int]
Bound = float | Mapping[int, int] | int  # append time in Unix seconds, an offset a partition, one offset for all

_PINNED = ("model", "catalogue", "window", "slack", "history", "size")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user asked for; the same words go on with the same replay. `users` is a digest of the ids, if any."""

    start: str
    stop: str | None
    model: str | None
    catalogue: int | None
    users: str | None


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """Offsets [from, to) of every partition of plays, and what the lists are made with.

    `model` and `catalogue` are None where each list takes the versions of its live record (then looked for in
    `recommendations` up to the offsets `records_to`). `profiles_to` pins the profiles in the same way.
    """

    asked: Asked
    offsets: dict[int, tuple[int, int]]
    model: str | None
    catalogue: int | None
    profiles_to: Offsets
    records_to: Offsets
    window: int
    slack: int
    history: int
    size: int

    @property
    def as_recorded(self) -> bool:
        """Whether each list takes the versions of its live record."""
        return self.model is None

    @property
    def records(self) -> int:
        """Offsets in the range; an upper bound of the lists, as offsets may be empty and users left out."""
        return sum(stop - start for start, stop in self.offsets.values())

    def part(self, partition: int) -> str:
        """The plan as one partition's share, in few bytes; `joined` puts the shares together again."""
        share = {
            "offsets": self.offsets[partition],
            "profiles_to": self.profiles_to.get(partition, 0),
            "records_to": self.records_to.get(partition, 0),
        }
        rest = {name: getattr(self, name) for name in _PINNED}
        return json.dumps({"asked": asdict(self.asked), **rest, **share}, separators=(",", ":"))

    @classmethod
    def joined(cls, parts: Mapping[int, str]) -> "ReplayPlan":
        """The plan whose shares these are."""
        shares = {partition: json.loads(text) for partition, text in parts.items()}
        rest = next(iter(shares.values()))
        return cls(
            asked=Asked(**rest["asked"]),
            offsets={p: (share["offsets"][0], share["offsets"][1]) for p, share in shares.items()},
            profiles_to={p: share["profiles_to"] for p, share in shares.items()},
            records_to={p: share["records_to"] for p, share in shares.items()},
            **{name: rest[name] for name in _PINNED},
        )


def digest(users: Iterable[str]) -> str:
    """A short name of a set of users."""
    return hashlib.sha256("\n".join(sorted(users)).encode()).hexdigest()[:16]


def check_target(to_topic: str, group: str) -> None:
    """Refuse a topic that the live system writes or reads."""
    if to_topic in {spec.name for spec in topics.topic_specs(1, group)} or to_topic.endswith("-changelog"):
        raise MsamError(f"--to-topic {to_topic}: a replay never writes to a live topic; name another")


def make_plan(
    config: Mapping[str, str],
    asked: Asked,
    start: Bound,
    stop: Bound | None,
    *,
    as_recorded: bool,
    window: int,
    slack: int,
    history: int,
    size: int,
) -> ReplayPlan:
    """Turn the bounds into offsets and pin the versions: the model asked for or the live one, the present catalogue."""
    model = None if as_recorded else _model(config, asked.model)
    end = end_offsets(config, topics.TRACK_FEATURES)[0]
    if asked.catalogue is not None and not 0 < asked.catalogue <= end:
        raise ConfigError(f"--catalogue {asked.catalogue}: there are versions 1 to {end}")
    consumer = Consumer({**config, "group.id": "msam-replay-plan", "enable.auto.commit": False})
    try:
        names = partitions_of(consumer, topics.PLAYS)
        ends = end_offsets(config, topics.PLAYS)
        first = _offsets(consumer, names, start, ends)
        last = ends if stop is None else _offsets(consumer, names, stop, ends)
    finally:
        consumer.close()
    return ReplayPlan(
        asked,
        {p: (first[p], max(first[p], last[p])) for p in names},
        model,
        None if as_recorded else asked.catalogue or end,
        end_offsets(config, topics.USER_PROFILES),
        end_offsets(config, topics.RECOMMENDATIONS) if as_recorded else {},
        window,
        slack,
        history,
        size,
    )


def _model(config: Mapping[str, str], wanted: str | None) -> str:
    versions, channels = read_versions(config)
    chosen = wanted or channels.get("live")
    if chosen is None or chosen not in {version.version for version in versions}:
        raise NotReady(f"no model version {chosen or 'is live'}; `msam models list` shows what there is")
    return chosen


def _offsets(consumer: Consumer, partitions: list[int], bound: Bound, ends: Offsets) -> Offsets:
    if isinstance(bound, float):
        asked = [TopicPartition(topics.PLAYS, p, round(bound * 1000)) for p in partitions]
        found = consumer.offsets_for_times(asked, timeout=30)
        return {tp.partition: tp.offset if tp.offset >= 0 else ends[tp.partition] for tp in found}
    by_partition = dict.fromkeys(partitions, bound) if isinstance(bound, int) else dict(bound)
    if by_partition.keys() != set(partitions):
        raise ConfigError(f"offsets must be given for every partition of plays: {', '.join(map(str, partitions))}")
    return {p: min(offset, ends[p]) for p, offset in by_partition.items()}
