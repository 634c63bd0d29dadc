"""The worker: a Faust app whose tables are restored, and whose partitions are fenced, before their first event."""

import asyncio
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, cast

import faust
from faust.types import TP

from msam.features.text import TextEncoder, may_be
from streams import memory, topics
from streams.agents import audio, plays, profiles, tracks
from streams.catalogue import Catalogue
from streams.channels import withdrawn
from streams.cutover import Cutover, Requests, asked_for, pending, requests
from streams.erasure import Eraser
from streams.errors import NotReady
from streams.feeds import TopicFeed
from streams.group import HEARTBEAT, SESSION, CommittedConsumer, RestoredTables
from streams.lanes import Lane
from streams.metrics import Metrics
from streams.operations import Forgotten
from streams.partitioner import partition_for
from streams.pipeline import Pipeline
from streams.profiles import Profiles, ProfileWords, profile_words
from streams.publishing import Publisher
from streams.records import ModelVersion, TrackFeature, UserProfile
from streams.registry import PatientRegistry
from streams.restore import restore
from streams.sealing import Keyring
from streams.serialization import Registry, decode
from streams.served import ModelWatch
from streams.serving import PlayStep
from streams.settings import Settings
from streams.show import item_object
from streams.stores import ROCKSDB_OPTIONS, TableStore
from streams.user_keys import FollowedKeys
from streams.web.server import WebServer

log = logging.getLogger(__name__)
ROLES = ("plays", "tracks", "audio")
_PATIENCE = 60.0  # seconds for operations, and for keys, to be read when partitions come
_LEAVING = 45.0  # seconds for a worker to end; what it holds then is void, and others wait for its partitions
_MODEL_FIRST = 20.0  # seconds for which the text encoder waits for the first model to be served
_NO_MODEL = "no model is served here yet"
_STALLED = 60.0  # seconds without progress on waiting plays after which a worker is not ready


class StreamApp(faust.App):
    """One worker process. Build it with `create_app`."""

    settings: Settings
    roles: frozenset[str]

    def build(self, settings: Settings, roles: frozenset[str]) -> None:
        """Wire the parts together; touches neither Kafka nor disk yet."""
        self.settings, self.roles = settings, roles
        self.metrics = Metrics()
        self.catalogue = Catalogue()
        self.kafka = settings.kafka_config()
        self.stopping = threading.Event()
        self.registry: Registry | None = None
        if (registry := settings.registry()) is not None:
            self.registry = PatientRegistry(registry, self.stopping)
        self.publisher = Publisher(self.kafka)
        self.features = ThreadPoolExecutor(1, "features")
        self.watch = ModelWatch(
            self.catalogue, n=settings.list_size, half=settings.half(), refused=lambda error: self.metrics.refused.inc()
        )
        self.versions = TopicFeed(self.kafka, topics.MODEL_VERSIONS, self._on_model)
        self.operations = TopicFeed(self.kafka, topics.OPERATIONS, self._on_operation)
        self.first = [self.operations]  # what must be read before a play is answered
        self.feeds = [TopicFeed(self.kafka, topics.TRACK_FEATURES, self._on_feature), self.versions, self.operations]
        self.endpoint = WebServer(
            settings.web_host,
            settings.web_port,
            self.metrics,
            self.readiness,
            self.list_for_user,
            settings.web_token(),
        )
        self._encoder: TextEncoder | None = None
        self._encoder_lock = threading.Lock()
        self._runs: list[Callable[[], Any]] = []
        self._tables: list[tuple[str, str, TableStore]] = []
        self.forgotten = Forgotten()
        self._asked_for = self._seen_to = 0  # rounds of what operators want done
        self._cutover_asked = False  # ever: until then nothing has to be read for it
        self.pipeline: Pipeline | None = None
        if "plays" in roles:
            self._build_plays()
        if "tracks" in roles:
            step = tracks.TrackStep(self.encoder, lambda: self.watch.simf, self.publisher, self.metrics, self.registry)
            self._runs.append(tracks.attach(self, self._source(topics.TRACK_METADATA), step, self._on_features).run)
        if "audio" in roles:
            self._build_audio()

    def _build_plays(self) -> None:
        settings = self.settings
        windows = self._bytes_table("windows")
        people = self._bytes_table("profiles")
        self.windows = TableStore(windows, settings.windows_changelog)
        profile_store = TableStore(people, settings.profiles_changelog)
        self._tables = [
            (topics.PLAYS, settings.windows_changelog, self.windows),
            (topics.USER_PROFILES, settings.profiles_changelog, profile_store),
        ]
        made_here = partial(may_be, name_or_path=settings.text_encoder)
        self.known_profiles = Profiles(profile_store, self._profile_words, made_here, self.registry)
        keys = None
        if (master := settings.master_key()) is not None:
            keyring = Keyring(master)
            feed = TopicFeed(self.kafka, topics.USER_KEYS, lambda name, value, offset: keyring.fold(name, value))
            self.feeds.append(feed)
            self.first.append(feed)
            keys = FollowedKeys(keyring, feed.catch_up)
        self.step = PlayStep(
            self.windows,
            self.known_profiles,
            self.watch,
            self.metrics,
            partitions=settings.partitions,
            k=settings.window,
            slack=settings.slack,
            n=settings.list_size,
            history=settings.history,
            registry=self.registry,
            keys=keys,
            forgotten=self.forgotten,
        )
        self.pipeline = Pipeline(
            self.step,
            batch=settings.batch,
            linger=settings.linger,
            reached=lambda partition: self._committed_consumer().reached(TP(topics.PLAYS, partition)),
            reread=lambda: self.consumer.perform_seek(),
            following=lambda partition, offset: self._committed_consumer().following(
                TP(topics.PLAYS, partition), offset
            ),
        )
        self._runs.append(self.pipeline.run)
        plays.attach(self, self._source(topics.PLAYS), self.pipeline)
        self.eraser = Eraser(self.forgotten, self.windows)
        profiles.attach(
            self,
            self._source(topics.USER_PROFILES),
            people,
            self.publisher,
            self.metrics,
            self.registry,
            lambda profile: self._on_features(self._encoded, profile),
            self.known_profiles.changed,
            self.forgotten,
        )

    def _build_audio(self) -> None:
        from streams.audio_intake import AudioPool

        pool = AudioPool(
            allowed_roots=self.settings.audio_roots, max_bytes=self.settings.audio_max_bytes, max_workers=1
        )
        self.audio_pool = pool
        step = audio.AudioStep(pool, self.publisher, self.metrics, self.registry)
        self._runs.append(audio.attach(self, self._source(topics.AUDIO_UPLOADS), step).run)

    def _source(self, name: str) -> Any:
        return self.topic(
            name,
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
            partitions=self.settings.partitions,
        )

    def _bytes_table(self, name: str) -> Any:
        return self.Table(
            name,
            key_type=bytes,
            value_type=bytes,
            partitions=self.settings.partitions,
            options=dict(ROCKSDB_OPTIONS),
        )

    # -- parts that are made when first used ------------------------------------------------------------------

    def encoder(self) -> TextEncoder:
        """The text encoder, loaded on first use."""
        with self._encoder_lock:
            if self._encoder is None:
                self._encoder = TextEncoder(self.settings.text_encoder)
            return self._encoder

    def _prepare(self) -> None:
        """Load the encoder before the first track needs it, but let the model be served first: each slows the other."""
        deadline = time.monotonic() + _MODEL_FIRST
        self.versions.caught_up.wait(_MODEL_FIRST)
        while self.watch.loading and time.monotonic() < deadline and not self.stopping.wait(0.05):
            pass
        if not self.stopping.is_set():
            self.encoder()

    def _profile_words(self, profile: UserProfile) -> ProfileWords:
        return profile_words(self.encoder(), [profile])[0]

    def _encoded(self, profile: UserProfile) -> tuple[str, ProfileWords]:
        return self.encoder().id, self._profile_words(profile)

    async def _on_features(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.features, function, *args)

    # -- feeds ------------------------------------------------------------------------------------------------

    def _on_feature(self, key: bytes, value: bytes | None, offset: int) -> None:
        self.catalogue.fold(key.decode(), None if value is None else decode(TrackFeature, value), offset)

    def _on_model(self, key: bytes, value: bytes | None, offset: int) -> None:
        self.watch.on_record(key, None if value is None else decode(ModelVersion, value))
        self.metrics.rolled_back.set(sum(map(withdrawn, self.watch.versions.values())))

    def _on_operation(self, key: bytes, value: bytes | None, offset: int) -> None:
        if value is None or self.pipeline is None:
            return
        self._cutover_asked |= asked_for(key)
        new = self.forgotten.fold(key) or asked_for(key)
        if new and self.operations.caught_up.is_set():  # what was there before is seen to when partitions come
            asyncio.run_coroutine_threadsafe(self._operate(), self._events)

    async def _operate(self) -> None:
        """Do what operators asked for in the partitions that are served here, each between two of its batches."""
        self._asked_for += 1
        mine = self._asked_for
        async with self._operating:
            if self._seen_to >= mine:
                return  # a round that began after this call has done it
            await self._recovered()
            assert self.pipeline is not None
            self._seen_to, lanes = self._asked_for, self.pipeline.lanes()
            for partition, lane in sorted(lanes.items()):
                if self.eraser.behind(partition):
                    await self.pipeline.exclusively(lane, self.eraser)
            if not self._cutover_asked:
                return
            try:
                asked = await asyncio.to_thread(requests, self.kafka)
                for partition, lane in sorted(lanes.items()):
                    for work in await asyncio.to_thread(self._cutovers, asked, partition):
                        await self._recovered()
                        await self.pipeline.exclusively(lane, work)
            except Exception:
                log.exception("a replay is not swapped in; tried again with the next one")

    async def _recovered(self) -> None:
        """Wait until a rebalance is over, the step of it in which Faust would recover tables included."""
        while not self.should_stop and (self.rebalancing or not self._recovery().completed.is_set()):
            await asyncio.sleep(0.05)

    def _cutovers(self, asked: Requests, partition: int) -> list[Cutover]:
        return list(pending(self.kafka, asked, partition, self.windows, self.forgotten))

    # -- life -------------------------------------------------------------------------------------------------

    def on_init_dependencies(self) -> Any:
        """Faust's monitor stays out: its figures are shown nowhere, and it looks at every event twice."""
        services = super().on_init_dependencies()
        self.sensors.remove(self.monitor)
        return services

    async def on_start(self) -> None:
        """Start the feeds, the endpoint and the batchers, then Faust."""
        self._events = asyncio.get_running_loop()
        self._operating = asyncio.Lock()
        for feed in self.feeds:
            feed.start()
        if "tracks" in self.roles:
            self.features.submit(self._prepare)
        await self.endpoint.start()
        for run in self._runs:
            self.add_future(self._guard(run))
        self.add_future(self._trim())
        await super().on_start()

    async def _trim(self) -> None:
        while not self.should_stop:
            await self.sleep(memory.EVERY)
            await asyncio.to_thread(memory.trim)

    async def _guard(self, run: Callable[[], Any]) -> None:
        try:
            await run()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("the worker stops")
            await self.crash(error)

    async def on_stop(self) -> None:
        """Finish what is in flight, then let Faust commit and leave the group."""
        self.stopping.set()
        end_in(_LEAVING)
        if self.pipeline is not None:
            await self.pipeline.settle()  # the marks stay: they are what Faust commits at the end
        await super().on_stop()

    async def on_shutdown(self) -> None:
        """Stop threads and processes."""
        await super().on_shutdown()
        await self.endpoint.stop()
        for feed in self.feeds:
            feed.stop()
        self.watch.stop()
        if self.pipeline is not None:
            self.pipeline.close()
        if "audio" in self.roles:
            self.audio_pool.close()
        self.features.shutdown(cancel_futures=True)

    # -- partitions -------------------------------------------------------------------------------------------

    async def _on_partitions_revoked(self, revoked: set[TP]) -> None:
        started = time.monotonic()
        await super()._on_partitions_revoked(revoked)
        if self.pipeline is not None:
            await self.pipeline.revoke()
        log.info("partitions let go in %.1f s", time.monotonic() - started)

    async def _on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        # Faust pauses them too, but later: an older assignment may set the flow going while tables are restored.
        self.consumer.pause_partitions(assigned)
        self._committed_consumer().places = self._places
        if self.pipeline is not None and not self.should_stop:
            await self.pipeline.revoke()
            started = time.monotonic()
            try:
                lanes = await asyncio.get_running_loop().run_in_executor(
                    self.pipeline.io, self._take_over, set(assigned)
                )
            except Exception as error:
                log.exception("partitions cannot be taken over")
                await self.crash(error)
                return
            if lanes is None:
                log.info("the group forms anew before partitions were taken over; what was restored is kept")
                return
            self.pipeline.assign(lanes)
            self.add_future(self._operate())  # what was asked for since, or by now of these partitions
            log.info("partitions %s: taken over in %.1f s", [x.partition for x in lanes], time.monotonic() - started)
        await super()._on_partitions_assigned(assigned, generation_id)

    def _take_over(self, assigned: set[TP]) -> list[Lane] | None:
        """Fence the earlier owners first, so that nothing of theirs can land behind the restore.

        None when the group forms anew meanwhile: the others must not have to wait for a long restore.
        """
        self.known_profiles.forget(range(self.settings.partitions))
        for feed in self.first:  # who is forgotten, and listeners' keys
            if not feed.caught_up.wait(_PATIENCE):
                raise NotReady(f"{feed.topic} was not read in {_PATIENCE:.0f} s, and no play is answered without it")
        partitions = sorted(tp.partition for tp in assigned if tp.topic == topics.PLAYS)
        changelog = self.settings.windows_changelog
        lanes = [Lane(self.kafka, self.settings.group, p, self.windows, changelog) for p in partitions]
        with ThreadPoolExecutor(max(len(lanes), 1)) as pool:
            list(pool.map(Lane.fence, lanes))
        for source, log_topic, store in self._tables:
            mine = sorted(tp.partition for tp in assigned if tp.topic == source)
            if mine:
                restore(self.kafka, log_topic, mine, store, stop=self._void)
        if self._void():
            return None
        for lane in lanes:
            lane.load()
            self.eraser(lane)  # of who was forgotten while nobody served the partition
        return lanes

    def _places(self) -> dict[TP, int]:
        """Where reading begins at the latest: behind what is answered."""
        marks = {} if self.pipeline is None else self.pipeline.marks()
        return {TP(topics.PLAYS, partition): mark + 1 for partition, mark in marks.items()}

    def _void(self) -> bool:
        """Whether the assignment that is being taken over will not last."""
        return self.should_stop or self._committed_consumer().overtaken()

    def _committed_consumer(self) -> CommittedConsumer:
        return cast(CommittedConsumer, self.consumer)

    # -- what the endpoint shows ------------------------------------------------------------------------------

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether plays are being answered, and what is missing if not."""
        failed = [feed.topic for feed in self.feeds if feed.failure is not None]
        detail: dict[str, Any] = {
            "recovered": self._recovery().completed.is_set() and not self.rebalancing,
            "caught_up": all(feed.caught_up.is_set() for feed in self.feeds),
            "model": self.watch.serving or self.watch.wanted,
            "model_refused": self.watch.problem,
            "failed_feeds": failed,
            "catalogue_version": self.catalogue.version,
        }
        good = detail["recovered"] and detail["caught_up"] and not failed
        if self.pipeline is not None:
            detail["stalled_seconds"] = round(self.pipeline.stalled(), 1)
            good = good and self.watch.available and detail["stalled_seconds"] < _STALLED and not self.pipeline.lost
        return good, detail

    def _recovery(self) -> Any:
        return cast(Any, self.tables).recovery

    async def list_for_user(self, user_id: str, n: int) -> tuple[int, dict[str, Any]]:
        """A fresh list for one user from the window that this worker holds."""
        if self.pipeline is None:
            return 503, {"error": _NO_MODEL}
        if user_id in self.forgotten:
            return 404, {"error": f"user {user_id!r} has not played anything yet"}
        partition = partition_for(user_id.encode(), self.settings.partitions)
        if partition not in self.pipeline.partitions:
            return 404, {"error": f"user {user_id!r} is in partition {partition}, which another worker serves"}
        return await self.pipeline.beside(self._list, partition, user_id, n)

    def _list(self, partition: int, user_id: str, n: int) -> tuple[int, dict[str, Any]]:
        if self.step.recommender is None:  # not even among what was just taken in
            return 503, {"error": _NO_MODEL}
        entries = self.step.window(partition, user_id).entries[-self.settings.window :]
        if not entries:
            return 404, {"error": f"user {user_id!r} has not played anything yet"}
        query, profile = self.step.query(partition, user_id, entries)
        (items,) = self.step.recommender.recommend([query], n)
        return 200, {
            "user_id": user_id,
            "items": [item_object(item) for item in items],
            "model_version": self.step.recommender.version,
            "catalogue_version": self.step.recommender.catalogue_version,
            "counts_version": self.step.recommender.counts_version,
            "profile_version": profile.version,
            "window": [entry.track_id for entry in entries],
        }


def end_in(seconds: float) -> None:
    """End this process the hard way if it is still there then.

    Faust can wait for ever in its last steps, for events that it has dropped or a thread that a full disk has ended.
    Nothing is lost by it: what is not committed comes again.
    """

    def end() -> None:
        log.error("not ended after %.0f s: ended the hard way", seconds)
        logging.shutdown()
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def credentials(settings: Settings) -> Any:
    """The settings' Kafka security as Faust takes it; None for plaintext."""
    protocol = (settings.kafka_security_protocol or "plaintext").lower()
    if protocol == "plaintext":
        return None
    context = None
    if "ssl" in protocol:
        ca = settings.kafka_ssl_ca_location
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        if settings.kafka_ssl_certificate_location is not None:
            key = settings.kafka_ssl_key_location
            context.load_cert_chain(str(settings.kafka_ssl_certificate_location), None if key is None else str(key))
    if protocol == "ssl":
        return faust.SSLCredentials(context)
    return faust.SASLCredentials(
        mechanism=settings.kafka_sasl_mechanism,
        username=settings.kafka_sasl_username,
        password=settings.kafka_password(),
        ssl_context=context,
    )


def create_app(settings: Settings, roles: frozenset[str]) -> StreamApp:
    """The Faust app of one worker; its tables live under the settings' data directory."""
    servers = settings.servers().split(",")
    # Faust's assignor takes the members of a group to be alike: workers that serve no plays form one of their own.
    app = StreamApp(
        settings.group if "plays" in roles else f"{settings.group}-features",
        broker=[f"kafka://{server.strip()}" for server in servers],
        store="rocksdb://",
        datadir=str(settings.state),
        web_enabled=False,
        topic_partitions=settings.partitions,
        topic_replication_factor=1,
        table_standby_replicas=0,
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=1.0,
        broker_session_timeout=SESSION,
        broker_heartbeat_interval=HEARTBEAT,
        TableManager=RestoredTables,
        stream_recovery_delay=0.0,
        stream_buffer_maxsize=1024,
        stream_wait_empty=False,  # what is dropped at a rebalance or stop is not acknowledged, and comes again
        broker_credentials=credentials(settings),
    )
    cast(Any, app.transport).Consumer = CommittedConsumer
    app.build(settings, roles)
    return app
