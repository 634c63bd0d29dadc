"""Backfill: lists of a past range of plays made again, with pinned versions or those of each live record.

Windows are rebuilt from the start of the log and only the range is published, into another topic. Nothing of the live
group, its tables or its topics is touched. Plays are taken in the order of their append times, so that a catalogue
hardly ever goes back.
"""

import heapq
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from confluent_kafka import Message

from msam.counts import Plays, UserHistory
from streams import topics
from streams.catalogue_log import read_changes
from streams.errors import MsamError
from streams.histories import track_key
from streams.log_reader import key_of, read_to_end
from streams.model_log import read_versions
from streams.operations import read_operations
from streams.partitioner import partition_for
from streams.profiles import Profile
from streams.recommender import Query
from streams.records import Item, Play, Recommendation, Source
from streams.registry import RegistryUnavailable
from streams.replay_models import PinnedModels
from streams.replay_output import Listed, ReplayOutput
from streams.replay_plan import Offsets, ReplayPlan
from streams.sealing import Keys, NotOpened, open_play
from streams.serialization import Registry, decode, encode
from streams.stored_profiles import StoredProfiles, read_profiles
from streams.versions import Versions
from streams.windows import Entry, Window

_CHUNK = 4096  # plays whose lists are made in the order of their versions
_SLICE = 256  # lists in one transaction

Place = tuple[int, int]  # partition and offset of a play


@dataclass(slots=True)
class Outcome:
    """What a replay did this time: lists published, and against the live records where it is as recorded."""

    lists: int = 0
    identical: int = 0
    different: int = 0
    unrecorded: int = 0  # plays whose live record is gone (compacted) or was never made
    not_opened: int = 0  # sealed plays without a key: it was deleted, or no master key is set


@dataclass(frozen=True, slots=True)
class _Job:
    source: Source
    user_id: str
    tracks: tuple[str, ...]
    plays: Plays


@dataclass(frozen=True, slots=True)
class _Live:
    versions: Versions
    value: bytes


def execute(
    config: Mapping[str, str],
    output: ReplayOutput,
    plan: ReplayPlan,
    place: Offsets,
    *,
    only: frozenset[str] | None,
    text_encoder: str | None = None,
    registry: Registry | None = None,
    keys: Keys | None = None,
    half: bool = False,
    rate: float | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Outcome:
    """Carry out a plan from a place on."""
    profiles = read_profiles(config, text_encoder, registry, plan.profiles_to)
    versions = {version.version: version for version in read_versions(config)[0]}
    models = PinnedModels(read_changes(config, plan.catalogue), versions, plan.size, half)
    live = _live_records(config, plan, place) if plan.as_recorded else None
    outcome, pace, place = Outcome(), _Pace(rate), dict(place)
    for chunk in _chunks(_jobs(config, plan, dict(place), only, registry, keys, outcome)):
        for some in _slices(_answered(chunk, plan, models, profiles, live, outcome), pace.size):
            for source, _ in some:
                place[source.partition] = source.offset + 1
            lists = [one for _, one in some if one is not None]
            output.publish(plan, lists, place)
            outcome.lists += len(lists)
            progress(outcome.lists)
            pace.wait(len(lists))
    output.publish(plan, [], {p: stop for p, (_, stop) in plan.offsets.items()})
    return outcome


# -- what is to be answered -----------------------------------------------------------------------------------------


def _jobs(
    config: Mapping[str, str],
    plan: ReplayPlan,
    place: Mapping[int, int],
    only: frozenset[str] | None,
    registry: Registry | None,
    keys: Keys | None,
    outcome: Outcome,
) -> Iterator[_Job]:
    """Every play of the range that is still to be answered, with the tracks of its window."""
    windows: dict[str, Window] = {}
    histories: defaultdict[str, UserHistory] = defaultdict(lambda: UserHistory(plan.history))
    gone = read_operations(config).forgotten
    for message in _by_time(config, plan):
        partition, offset = message.partition(), message.offset()
        user = (key_of(message) or b"").decode("utf-8", "replace")
        if partition is None or offset is None or user in gone or (only is not None and user not in only):
            continue
        try:
            play = _play(message, len(plan.offsets), registry, keys)
        except NotOpened:
            outcome.not_opened += offset >= place[partition]
            continue
        if play is None:
            continue
        entry = Entry(play.played_at, offset, play.track_id, partition)
        window = windows[play.user_id] = windows.get(play.user_id, Window()).apply(entry, plan.window + plan.slack)
        histories[play.user_id].append(track_key(play.track_id), play.played_at)
        if offset < place[partition]:
            continue
        plays = histories[play.user_id].plays()
        tracks = tuple(e.track_id for e in window.as_of(partition, offset, plan.window))
        yield _Job(Source(topics.PLAYS, partition, offset, play.played_at, play.track_id), play.user_id, tracks, plays)


def _by_time(config: Mapping[str, str], plan: ReplayPlan) -> Iterator[Message]:
    """Plays up to the end of the range, by append time; in the order of their offsets within a partition."""
    small = {**config, "queued.max.messages.kbytes": "8192"}  # one consumer a partition
    logs = [read_to_end(small, topics.PLAYS, stop={p: stop}, only={p}) for p, (_, stop) in sorted(plan.offsets.items())]
    return heapq.merge(*logs, key=lambda message: message.timestamp()[1])


def _play(message: Message, partitions: int, registry: Registry | None, keys: Keys | None) -> Play | None:
    """The play, or None for a record that live processing dead-lettered; NotOpened where its key is missing."""
    try:
        play = open_play(message.value() or b"", registry=registry, keys=keys)
    except (RegistryUnavailable, NotOpened):
        raise
    except MsamError:
        return None
    key = play.user_id.encode()
    return play if key_of(message) == key and partition_for(key, partitions) == message.partition() else None


def _live_records(config: Mapping[str, str], plan: ReplayPlan, place: Offsets) -> dict[Place, _Live]:
    """The live record of every play that is still to be answered."""
    found = {}
    for message in read_to_end(config, topics.RECOMMENDATIONS, stop=plan.records_to):
        value = message.value()
        if value is None:
            continue
        record = decode(Recommendation, value)
        source = record.source
        if place[source.partition] <= source.offset < plan.offsets[source.partition][1]:
            found[source.partition, source.offset] = _Live(Versions.of(record), value)
    return found


# -- lists ----------------------------------------------------------------------------------------------------------

_Made = tuple[Source, Listed | None]


def _answered(
    chunk: list[_Job],
    plan: ReplayPlan,
    models: PinnedModels,
    profiles: StoredProfiles,
    live: Mapping[Place, _Live] | None,
    outcome: Outcome,
) -> list[_Made]:
    """The records of a chunk, in its order; None for a play without a live record to take the versions from."""
    wanted: dict[Versions, list[int]] = {}
    people: dict[int, Profile] = {}
    for n, job in enumerate(chunk):
        versions = _versions(job, plan, profiles, live)
        if versions is None:
            outcome.unrecorded += 1
            continue
        people[n] = profiles(job.user_id, versions.profile)
        wanted.setdefault(versions._replace(profile=0), []).append(n)
    made: dict[int, Listed] = {}
    for versions in sorted(wanted):
        numbers = wanted[versions]
        queries = [Query(chunk[n].tracks, people[n].words, people[n].vectors, chunk[n].plays) for n in numbers]
        counts, lists = models.lists(versions.model, versions.catalogue, queries)
        for n, items in zip(numbers, lists, strict=True):
            mine = versions._replace(counts=counts, profile=people[n].version)
            made[n] = _listed(chunk[n], mine, items, live, outcome)
    return [(job.source, made.get(n)) for n, job in enumerate(chunk)]


def _versions(
    job: _Job, plan: ReplayPlan, profiles: StoredProfiles, live: Mapping[Place, _Live] | None
) -> Versions | None:
    if live is not None:
        found = live.get((job.source.partition, job.source.offset))
        return None if found is None else found.versions
    assert plan.model is not None and plan.catalogue is not None
    return Versions(plan.model, plan.catalogue, 0, profiles.newest(job.user_id))


def _listed(
    job: _Job, versions: Versions, items: tuple[Item, ...], live: Mapping[Place, _Live] | None, outcome: Outcome
) -> Listed:
    value = encode(versions.record(job.user_id, items, job.source))
    if live is not None:
        if value == live[job.source.partition, job.source.offset].value:
            outcome.identical += 1
        else:
            outcome.different += 1
    return Listed(job.source.partition, job.user_id.encode(), value)


# -- pace -----------------------------------------------------------------------------------------------------------


class _Pace:
    """Holds a replay to a number of lists a second."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._began, self._done = time.monotonic(), 0
        self.size = _SLICE if rate is None else max(1, min(_SLICE, int(rate)))

    def wait(self, lists: int) -> None:
        """Sleep until so many more lists were due."""
        self._done += lists
        if self._rate is not None:
            time.sleep(max(0.0, self._began + self._done / self._rate - time.monotonic()))


def _chunks(jobs: Iterator[_Job]) -> Iterator[list[_Job]]:
    chunk: list[_Job] = []
    for job in jobs:
        chunk.append(job)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _slices(made: list[_Made], size: int) -> Iterator[list[_Made]]:
    for start in range(0, len(made), size):
        yield made[start : start + size]
