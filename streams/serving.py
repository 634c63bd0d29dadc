"""From consumed plays to what has to be published: decode, window, list. Sends nothing.

One thread calls it, and owns all that it remembers; only the answer that `ask` returns is called on the model's thread.
"""

import gc
import logging
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from streams import topics
from streams.catalogue import SIGHTING
from streams.dead_letters import dead_letter
from streams.errors import MsamError
from streams.histories import Histories
from streams.lanes import Lane
from streams.lists import Made
from streams.metrics import Metrics
from streams.outgoing import Out
from streams.partitioner import partition_for
from streams.pipeline import Answer, Result, SourceEvent, SourceMessage
from streams.profiles import Profile
from streams.recent import Recent
from streams.recommender import Asked, Query, Recommender
from streams.records import Play, Recommendation, Source, TrackFeature
from streams.sealing import Keys, is_sealed, open_play
from streams.serialization import Registry, encode
from streams.served import ModelWatch
from streams.stores import TableStore
from streams.windows import Entry, Window, decode_window, encode_window

log = logging.getLogger(__name__)
_TRACKS_A_BATCH = 64  # changed tracks taken in between two batches: bounds what a flood of metadata may cost a play
_WINDOWS_KEPT = 50_000


class WrongPlay(MsamError):
    """A play that its producer must send differently."""


class ModelFailed(MsamError):
    """The model could not answer this play."""


@dataclass(slots=True)
class _Asked:
    message: SourceMessage
    play: Play
    query: Query
    profile: Profile


class PlayStep:
    """Turns micro-batches of plays into outputs; holds the served model and the windows being worked on."""

    def __init__(
        self,
        windows: TableStore,
        profile_of: Callable[[int, str], Profile],
        watch: ModelWatch,
        metrics: Metrics,
        *,
        partitions: int,
        k: int,
        slack: int,
        n: int,
        history: int,
        registry: Registry | None = None,
        keys: Keys | None = None,
        forgotten: Container[str] = (),
    ) -> None:
        self._forgotten = forgotten
        self._store = windows
        self._profile_of = profile_of
        self._watch = watch
        self._metrics = metrics
        self._partitions, self._k, self._keep, self._n = partitions, k, k + slack, n
        self._registry, self._keys = registry, keys
        self._windows: dict[int, Recent[str, Window]] = {}
        self._histories = Histories(windows, history)
        self._sighted: set[str] = set()
        self.recommender: Recommender | None = None

    def ready(self) -> bool:
        """Whether there is a model; until then plays wait in their topic."""
        return self._watch.available

    def news(self) -> bool:
        """Whether there is a new model, or the catalogue has changed."""
        return self._watch.waiting or (self.recommender is not None and self.recommender.behind)

    def idle(self) -> None:
        """Take in new models and track features."""
        found = self._watch.take()
        if found is not None:
            if self.recommender is None:
                gc.freeze()  # the catalogue is here to stay: going through it for garbage stops everything for 0.3 s
            else:
                self._metrics.model.labels(self.recommender.version).set(0)
            self.recommender = found
            self._metrics.model.labels(found.version).set(1)
            log.info("model %s: live", found.version)
        if self.recommender is not None:
            self.recommender.sync(_TRACKS_A_BATCH)
            self._metrics.catalogue.set(self.recommender.catalogue_version)
            self._metrics.known.set(len(self.recommender.ids))

    def forget(self, partitions: Iterable[int]) -> None:
        """Drop the cached windows of partitions, and what was sighted: it may not have been published."""
        partitions = list(partitions)
        for partition in partitions:
            self._windows.pop(partition, None)
        self._histories.forget(partitions)
        self._sighted.clear()

    def ask(self, lanes: Mapping[int, Lane], batch: Sequence[SourceEvent]) -> Answer:
        """Read the records of a batch; the answer has the outputs of every lane for them, in order."""
        assert self.recommender is not None
        results = {partition: Result() for partition in lanes}
        asked: list[_Asked] = []
        answers: list[tuple[SourceMessage, MsamError | None]] = []
        for event in batch:
            message = event.message
            if message.offset <= lanes[message.partition].mark:
                self._metrics.redelivered.inc()
                continue
            if message.key and message.key.decode("utf-8", "replace") in self._forgotten:
                self._metrics.forgotten.inc()  # neither list nor dead letter: both would hold what is to be forgotten
                continue
            try:
                asked.append(self._ask(message, results[message.partition]))
                answers.append((message, None))
            except MsamError as error:
                answers.append((message, error))
        self._metrics.batch.observe(len(batch))
        calls: list[Asked] = []
        try:
            calls = self.recommender.ask([question.query for question in asked])
        except Exception:
            log.exception("no candidates could be gathered for a batch; its plays are tried one by one")
        return partial(self._answers, self.recommender, results, answers, asked, calls)

    def _answers(
        self,
        recommender: Recommender,
        results: dict[int, Result],
        answers: Sequence[tuple[SourceMessage, MsamError | None]],
        asked: Sequence[_Asked],
        calls: Sequence[Asked],
    ) -> dict[int, Result]:
        started = time.perf_counter()
        lists = iter(zip(asked, self._lists(recommender, asked, calls), strict=True))
        now = time.time()
        for message, wrong in answers:
            result = results[message.partition]
            if wrong is not None:
                result.outs.append(self._dead(message, wrong))
                continue
            question, answer = next(lists)
            if isinstance(answer, MsamError):
                result.outs.append(self._dead(message, answer))
            else:
                result.outs.append(self._answer(recommender, question, answer))
                self._metrics.plays.inc()
                self._metrics.delay.observe(max(now - message.timestamp, 0.0))
        self._metrics.infer.observe(time.perf_counter() - started)
        return results

    def window(self, partition: int, user_id: str) -> Window:
        """A user's window as it stands in this worker."""
        cached = self._windows.setdefault(partition, Recent(_WINDOWS_KEPT))
        window = cached.get(user_id)
        if window is None:
            data = self._store.get(partition, user_id.encode())
            window = cached.put(user_id, Window() if data is None else decode_window(data))
        return window

    def _ask(self, message: SourceMessage, result: Result) -> _Asked:
        play = self._decode(message)
        partition, user = message.partition, play.user_id
        before = self.window(partition, user)
        window = before.apply(Entry(play.played_at, message.offset, play.track_id, partition), self._keep)
        self._windows[partition].put(user, window)
        result.state[user.encode()] = partial(encode_window, window)
        if window is not before:
            part, value = self._histories.add(partition, user, play.track_id, play.played_at)
            result.state[part] = value
        self._sight(play, result)
        entries = window.as_of(partition, message.offset, self._k)
        return _Asked(message, play, *self.query(partition, user, entries, window.beyond(partition, message.offset)))

    def query(self, partition: int, user_id: str, entries: Sequence[Entry], beyond: int = 0) -> tuple[Query, Profile]:
        """What a list is made from: these plays of the window, the profile, and all plays but the last `beyond`."""
        profile = self._profile_of(partition, user_id)
        plays = self._histories.get(partition, user_id).without(beyond)
        return Query(tuple(e.track_id for e in entries), profile.words, profile.vectors, plays), profile

    def _decode(self, message: SourceMessage) -> Play:
        if not message.value:
            raise WrongPlay("a play without a value; plays cannot be deleted one by one")
        play = open_play(message.value, registry=self._registry, keys=self._keys)
        if message.key != play.user_id.encode():
            raise WrongPlay("the key must be the play's user_id in UTF-8, so that a user stays in one partition")
        right = partition_for(message.key, self._partitions)
        if right != message.partition:
            raise WrongPlay(
                f"user {play.user_id!r} belongs to partition {right} by murmur2 but came in {message.partition}; "
                "set the producer's partitioner to murmur2_random (librdkafka) or leave Java's default"
            )
        return play

    def _sight(self, play: Play, result: Result) -> None:
        """Tell the catalogue of a track that nobody described, so that it too can be recommended."""
        assert self.recommender is not None
        if play.track_id in self.recommender.index or play.track_id in self._sighted:
            return
        self._sighted.add(play.track_id)
        feature = TrackFeature(play.track_id, SIGHTING, users=(play.user_id,))
        sighting = Out(topics.TRACK_FEATURES, feature.key.encode(), encode(feature), 0)
        result.outs.append(lambda: sighting)

    def _lists(
        self, recommender: Recommender, asked: Sequence[_Asked], calls: Sequence[Asked]
    ) -> list[Made | MsamError]:
        if calls or not asked:
            try:
                return [made for call in calls for made in recommender.answer(call, self._n)]
            except Exception:
                log.exception("the model failed on a batch; its plays are tried one by one")
        lists: list[Made | MsamError] = []
        for question in asked:
            try:
                lists.extend(recommender.prepare([question.query], self._n))
            except Exception as error:
                # What an error says may tell the track, and a letter must not tell what its play keeps sealed.
                what = type(error).__name__ if is_sealed(question.message.value) else repr(error)
                lists.append(ModelFailed(f"model {recommender.version} failed on this play: {what}"))
        return lists

    def _answer(self, recommender: Recommender, question: _Asked, made: Made) -> Callable[[], Out]:
        message, play = question.message, question.play
        source = Source(topics.PLAYS, message.partition, message.offset, play.played_at, play.track_id)
        blank = Recommendation(
            play.user_id,
            (),
            recommender.version,
            recommender.catalogue_version,
            recommender.counts_version,
            question.profile.version,
            source,
        )
        return partial(_list_out, blank, made, message.partition)

    def _dead(self, message: SourceMessage, error: MsamError) -> Callable[[], Out]:
        self._metrics.dead.labels(topics.PLAYS).inc()
        log_dead(topics.PLAYS, message, error)
        return partial(to_out, topics.PLAYS, message, error)


def _list_out(blank: Recommendation, made: Made, partition: int) -> Out:
    return Out(topics.RECOMMENDATIONS, blank.user_id.encode(), made.encode(blank), partition)


def log_dead(topic: str, message: SourceMessage, error: Exception) -> None:
    """Say which record goes to dead-letters, and why."""
    log.warning("%s[%d]@%d: dead letter: %s", topic, message.partition, message.offset, error)


def to_out(topic: str, message: SourceMessage, error: Exception) -> Out:
    """The dead letter for a record of `topic`: its own bytes, key, headers and time, and what was wrong."""
    letter = dead_letter(
        topic=topic,
        partition=message.partition,
        offset=message.offset,
        key=message.key,
        value=message.value,
        headers=message.headers,
        timestamp_ms=round(message.timestamp * 1000),
        error=error,
    )
    return Out(topics.DEAD_LETTERS, letter.key, letter.value, None, letter.headers, letter.timestamp_ms)
