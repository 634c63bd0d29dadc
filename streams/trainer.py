"""The trainer: reads the log, fits SiMF and MSAM from where the live model stands, gates, stores and announces."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from msam import checkpoint, metrics
from msam.config import MSAMConfig, TrainConfig
from msam.counts import Plays, keys_of
from msam.features.text import TextEncoder
from msam.golden import Golden
from msam.listening import SESSION_GAP
from msam.network.inputs import TrackInputs, UserInputs
from msam.simf import SiMF, SiMFConfig, SiMFState, TrackRow, relations_from_plays
from msam.training import Dataset, Progress, Trained, train
from streams import channels, topics
from streams.catalogue import Catalogue
from streams.catalogue_log import read_catalogue
from streams.content import contents
from streams.counted import counts_of
from streams.errors import MsamError
from streams.log_reader import key_of, read_to_end
from streams.model_log import read_versions
from streams.operations import read_operations
from streams.profiles import NOBODY, Profile, profile_words
from streams.recommender import Query, Recommender
from streams.records import ModelVersion, UserProfile
from streams.registry import RegistryUnavailable
from streams.sealing import Keys, NotOpened, open_play
from streams.serialization import Registry, decode
from streams.served import SIMF, ModelRefused, load_model
from streams.settings import Settings
from streams.user_keys import keyring_of

log = logging.getLogger(__name__)
Say = Callable[[str], None]
_RIVALS = 5  # earlier live versions a candidate is held against
_GATE_PLAYS = 1000


class NothingToTrain(MsamError):
    """The log holds too little, or nothing that the live model has not seen."""


@dataclass(frozen=True, slots=True)
class Gate:
    """A candidate goes live unless it is worse than the best of the last five live versions by more than `margin`."""

    metric: str = "hr@20"
    margin: float = 0.02


@dataclass(slots=True)
class LogState:
    """What the topics hold: plays in append order within a partition, features, profiles, versions."""

    plays: list[tuple[str, str, float, int, int]] = field(default_factory=list)  # user, track, time, partition, offset
    profiles: dict[str, UserProfile] = field(default_factory=dict)
    catalogue: Catalogue = field(default_factory=Catalogue)
    versions: dict[str, ModelVersion] = field(default_factory=dict)
    live: str | None = None
    not_opened: int = 0  # sealed plays without a key: of forgotten listeners, or no master key is set

    @property
    def served(self) -> list[str]:
        """Versions that passed the gate, the live one first, then the newest first."""
        passed = [version.version for version in self.versions.values() if version.state == "accepted"]
        first = [] if self.live is None else [self.live]
        return list(dict.fromkeys([*first, *reversed(passed)]))

    @property
    def trained_through(self) -> dict[str, int]:
        """The next offset of every partition of plays."""
        found: dict[str, int] = {}
        for *_, partition, offset in self.plays:
            found[str(partition)] = max(found.get(str(partition), 0), offset + 1)
        return found


def read_log(config: Mapping[str, str], registry: Registry | None = None, keys: Keys | None = None) -> LogState:
    """Read everything a training needs; records that cannot be decoded are left to the workers' dead letters."""
    versions, channels = read_versions(config)
    state = LogState(
        catalogue=read_catalogue(config),
        versions={version.version: version for version in versions},
        live=channels.get("live"),
    )
    gone = read_operations(config).forgotten
    for message in read_to_end(config, topics.USER_PROFILES):
        _take_profile(state, key_of(message), message.value(), registry)
    state.profiles = {user: profile for user, profile in state.profiles.items() if user not in gone}
    for message in read_to_end(config, topics.PLAYS):
        partition, offset, value = message.partition(), message.offset(), message.value()
        assert partition is not None and offset is not None
        try:
            play = open_play(value or b"", registry=registry, keys=keys)
        except RegistryUnavailable:
            raise
        except NotOpened:
            state.not_opened += 1
            continue
        except MsamError:
            continue
        if play.user_id in gone:
            continue
        state.plays.append((play.user_id, play.track_id, play.played_at, partition, offset))
    return state


def _take_profile(state: LogState, key: bytes | None, value: bytes | None, registry: Registry | None = None) -> None:
    if key is None:
        return
    try:
        if value is None:
            state.profiles.pop(key.decode(), None)
        else:
            state.profiles[key.decode()] = decode(UserProfile, value, registry=registry)
    except (MsamError, UnicodeDecodeError):
        return


class Trainer:
    """One training after another; `once` is a whole round."""

    def __init__(
        self,
        settings: Settings,
        *,
        model: MSAMConfig | None = None,
        training: TrainConfig | None = None,
        simf: SiMFConfig | None = None,
        gate: Gate | None = None,
        say: Say = log.info,
    ) -> None:
        self._settings = settings
        self._kafka = settings.kafka_config()
        self._model = model or MSAMConfig(dim=settings.dim, hidden=settings.dim, window=settings.window)
        self._training = training or TrainConfig()
        self._simf = simf or SiMFConfig(dim=self._model.dim)
        self._gate = gate or Gate()
        self._say = say
        self._encoder: TextEncoder | None = None

    def once(self) -> ModelVersion:
        """Read, train, gate, store, announce; the announced version. NothingToTrain when the log holds nothing new."""
        started = time.monotonic()
        checkpoint.sweep(self._settings.models)
        state = read_log(self._kafka, self._settings.registry(), keyring_of(self._settings))
        self._say(
            f"read {len(state.plays)} plays, {len(state.catalogue.tracks)} tracks, {len(state.profiles)} profiles"
            + (f"; {state.not_opened} sealed plays have no key and are left out" if state.not_opened else "")
        )
        self._model = replace(self._model, text_dim=_text_width(state, self._model.text_dim))
        parent = self._parent(state)
        if len(state.plays) < 2 or (parent is not None and parent.record.trained_through == state.trained_through):
            raise NothingToTrain(f"{len(state.plays)} plays in the log, none that the live model has not seen")
        simf = self._fit_simf(state, None if parent is None else parent.recommender.simf)
        profiles = self._profiles(state)
        data = self._dataset(state, simf, profiles)
        trained = train(
            data, self._model, self._training, init=self._init(parent), progress=self._progress, say=self._say
        )
        stored = self._store(state, data, trained, simf, parent, time.monotonic() - started)
        return self._announce(self._judge(stored, state, parent, profiles), state.live)

    # -- steps ------------------------------------------------------------------------------------------------

    def _parent(self, state: LogState) -> "Rival | None":
        """The live model, if there is one that loads."""
        found = self._rivals(state, 1)
        return found[0] if found else None

    def _rivals(self, state: LogState, count: int, parent: "Rival | None" = None) -> "list[Rival]":
        found: list[Rival] = []
        for version in state.served:
            record = state.versions.get(version)
            if record is None or len(found) == count:
                continue
            try:
                if parent is not None and parent.record.version == version:
                    found.append(parent)
                else:
                    found.append(Rival(record, load_model(record, state.catalogue, wait=0)))
            except ModelRefused as error:
                self._say(f"left out of the comparison: {error}")
        return found

    def _fit_simf(self, state: LogState, init: SiMFState | None) -> SiMFState:
        plays = learned(state, self._training.holdout)
        rows = [
            TrackRow(
                t.track_id,
                t.artist_id,
                t.metadata.album_id if t.metadata else None,
                t.metadata.labels if t.metadata else (),
            )
            for t in state.catalogue.tracks.values()
            if not t.withdrawn
        ]
        countries = {user: profile.country for user, profile in state.profiles.items()}
        played = ((user, track, 1.0) for user, mine in plays.items() for *_, track in mine)
        relations = relations_from_plays(played, rows, countries, sessions=heard_together(plays))
        same = init is not None and init.config.dim == self._simf.dim
        fitted = SiMF(self._simf).fit(relations, init=init if same else None).without("session")
        self._say(f"SiMF: {len(fitted.history)} sweeps, objective {fitted.history[-1]:.4g}")
        return fitted

    def _profiles(self, state: LogState) -> dict[str, Profile]:
        known = {user: p for user, p in state.profiles.items() if p.gender or p.age or p.country}
        if not known:
            return {}
        self._encoder = self._encoder or TextEncoder(self._settings.text_encoder)
        made = profile_words(self._encoder, known.values())
        return {user: Profile(1, *words) for user, words in zip(known, made, strict=True)}

    def _dataset(self, state: LogState, simf: SiMFState, profiles: Mapping[str, Profile]) -> Dataset:
        every = dict.fromkeys([track for _, track, *_ in state.plays])
        every |= dict.fromkeys(
            state.catalogue.tracks
        )  # tracks that nobody played yet: they are ranked too, as cold ones
        ids = [t for t in every if not state.catalogue.get(t).withdrawn]
        tracks = [state.catalogue.get(t) for t in ids]
        inputs = TrackInputs.build(contents(tracks, simf), self._model)
        users = sorted({user for user, *_ in state.plays})
        people = UserInputs.build([profiles.get(user, NOBODY).vectors for user in users], self._model)
        kept = set(ids)
        plays = [(user, track, at) for user, track, at, *_ in state.plays if track in kept]
        artists = [track.artist_id for track in tracks]
        albums = [None if track.metadata is None else track.metadata.album_id for track in tracks]
        return Dataset.build(ids, inputs, users, people, plays, artists, albums)

    def _init(self, parent: "Rival | None") -> Trained | None:
        if parent is None or parent.recommender.model.config != self._model:
            return None
        return Trained(parent.recommender.model, tuple(parent.recommender.ids[: parent.recommender.trained]), None)

    def _progress(self, step: Progress) -> None:
        hit = step.holdout.get("hr@20")
        self._say(f"epoch {step.epoch}: loss {step.loss:.3f}" + ("" if hit is None else f", holdout HR@20 {hit:.3f}"))

    def _store(
        self,
        state: LogState,
        data: Dataset,
        trained: Trained,
        simf: SiMFState,
        parent: "Rival | None",
        seconds: float,
    ) -> ModelVersion:
        report = trained.report
        figures = {} if report is None else {f"holdout_{name}": value for name, value in report.holdout.items()}
        path = checkpoint.save(
            self._settings.models,
            trained.model,
            trained.track_ids,
            Golden.pick(data, self._model.window, wide_inputs=self._model.wide_inputs * self._model.wide_head),
            arrays={
                **{f"{SIMF}{name}": array for name, array in simf.to_arrays().items()},
                **(counts_of(self._model.counts, state.plays, state.catalogue) if self._model.wide_head else {}),
            },
            extra={"catalogue_version": state.catalogue.version, "trained_through": state.trained_through},
            metrics=figures,
            parent=None if parent is None else parent.record.version,
        )
        manifest = checkpoint.read_manifest(path)
        return ModelVersion(
            str(manifest["version"]),
            parent=None if parent is None else parent.record.version,
            uri=path.resolve().as_uri(),
            sha256=str(manifest["weights"]["sha256"]),
            created_at=time.time(),
            trained_through=state.trained_through,
            metrics={**figures, "train_seconds": seconds, "tracks": float(len(trained.track_ids))},
        )

    def _judge(
        self, candidate: ModelVersion, state: LogState, parent: "Rival | None", profiles: Mapping[str, Profile]
    ) -> ModelVersion:
        """Hold the candidate, loaded as a worker would load it, against earlier live versions on the newest plays."""
        loaded = load_model(candidate, state.catalogue, wait=0)
        if parent is None:
            return candidate
        rivals = self._rivals(state, _RIVALS, parent)
        queries, targets = newest_plays(state, self._model.window, self._training.holdout, parent.record, profiles)
        name, scores = self._gate.metric, {}
        for rival in (*rivals, Rival(candidate, loaded)):
            scores[rival.record.version] = score(rival.recommender, queries, targets)[name]
        mine = scores.pop(candidate.version)
        figures = {**candidate.metrics, f"gate_{name}": mine, "gate_plays": float(len(targets))}
        if scores and targets:
            best = max(scores, key=lambda version: scores[version])
            figures[f"gate_best_{name}"] = scores[best]
            if mine < scores[best] - self._gate.margin:
                reason = f"{name} {mine:.4f} on {len(targets)} new plays; {best} has {scores[best]:.4f}"
                return replace(candidate, metrics=figures, state="refused", reason=reason)
        return replace(candidate, metrics=figures)

    def _announce(self, version: ModelVersion, basis: str | None) -> ModelVersion:
        version, *_ = channels.announce(self._kafka, lambda known, at: announcement(version, basis, known, at))
        self._say(f"model {version.version}: {version.state}" + (f", {version.reason}" if version.reason else ", live"))
        return version


def announcement(
    version: ModelVersion, basis: str | None, versions: channels.Versions, pointers: channels.Versions
) -> list[ModelVersion]:
    """What is announced: the version and, if it passed and `basis` is live still, the channel that points to it.

    The gate has compared it with what was live when training began. Where another trainer, or an operator who rolled
    back, has moved the channel since, the comparison says nothing about what is live now.
    """
    live = pointers.get(channels.LIVE)
    now = None if live is None else live.version
    if version.state != "accepted":
        return [version]
    if now != basis:
        return [replace(version, state="refused", reason=f"{now} went live while it was trained")]
    return [version, channels.pointing(version.version, {**versions, version.version: version}, pointers)]


def _text_width(state: LogState, default: int) -> int:
    """Columns of the word vectors in the catalogue: those of whatever encoder the workers use."""
    widths = [t.word_vectors.shape[1] for t in state.catalogue.tracks.values() if t.word_vectors is not None]
    return int(widths[-1]) if widths else default


@dataclass(frozen=True, slots=True)
class Rival:
    """A version and what it serves."""

    record: ModelVersion
    recommender: Recommender


Played = tuple[float, int, int, str]
"""When, offset, partition, track."""


def by_user(state: LogState) -> dict[str, list[Played]]:
    """Each user's plays in time order."""
    found: defaultdict[str, list[Played]] = defaultdict(list)
    for user, track, at, partition, offset in state.plays:
        found[user].append((at, offset, partition, track))
    return {user: sorted(found[user]) for user in sorted(found)}


def held_from(plays: Sequence[Played], holdout: float) -> int:
    """Place of a user's first play that is held out of training, never the very first."""
    return max(len(plays) - int(len(plays) * holdout), 1)


def learned(state: LogState, holdout: float) -> dict[str, list[Played]]:
    """Each user's plays that factors are fitted on.

    Those held out are not among them: factors that know them would make a network look better there than it will be.
    """
    return {user: plays[: held_from(plays, holdout)] for user, plays in by_user(state).items()}


def heard_together(plays: Mapping[str, Sequence[Played]]) -> Iterator[tuple[str, str]]:
    """(session, track) of every play."""
    for user, mine in plays.items():
        session, before = 0, 0.0
        for at, *_, track in mine:
            session += at - before > SESSION_GAP
            before = at
            yield f"{user} {session}", track


def newest_plays(
    state: LogState, k: int, holdout: float, parent: ModelVersion, profiles: Mapping[str, Profile]
) -> tuple[list[Query], list[str]]:
    """Windows and targets that neither the candidate (its holdout) nor the parent (its cut) was trained on."""
    queries, targets = [], []
    for user, plays in by_user(state).items():
        profile = profiles.get(user, NOBODY)
        tracks = keys_of(track for *_, track in plays)
        times = np.array([at for at, *_ in plays], dtype=np.float64)
        for place in range(held_from(plays, holdout), len(plays)):
            _, offset, partition, track = plays[place]
            if offset >= parent.trained_through.get(str(partition), 0):
                window = tuple(t for *_, t in plays[max(place - k, 0) : place])
                own = Plays(tracks[:place], times[:place])
                queries.append(Query(window, profile.words, profile.vectors, own))
                targets.append(track)
    if len(targets) > _GATE_PLAYS:
        keep = np.linspace(0, len(targets) - 1, _GATE_PLAYS).astype(int).tolist()
        queries, targets = [queries[i] for i in keep], [targets[i] for i in keep]
    return queries, targets


def score(recommender: Recommender, queries: Sequence[Query], targets: Sequence[str], n: int = 20) -> dict[str, float]:
    """HR@10, HR@20 and MRR@20 of the lists that this recommender would publish."""
    lists = recommender.recommend(queries, n)
    ranks = np.array(
        [next((i.rank for i in items if i.track_id == t), n + 1) for items, t in zip(lists, targets, strict=True)],
        dtype=np.float64,
    )
    found: dict[str, float] = {"hr@10": 0.0, "hr@20": 0.0, "mrr@20": 0.0}
    if len(ranks):
        found = {
            "hr@10": metrics.hit_rate(ranks, 10),
            "hr@20": metrics.hit_rate(ranks, 20),
            "mrr@20": metrics.mrr(ranks, n),
        }
    return found


def describe(version: ModelVersion) -> dict[str, Any]:
    """A version as the command line shows it."""
    return {
        "version": version.version,
        "state": version.state,
        "reason": version.reason,
        "parent": version.parent,
        "created_at": version.created_at,
        "metrics": dict(version.metrics),
        "uri": version.uri,
        "sha256": version.sha256,
    }
