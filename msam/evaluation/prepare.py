"""From canonical files to a listening log with content, at artist or track level."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from msam import simf
from msam.config import HOLDOUT, MSAMConfig
from msam.content import MEL_BANDS, MEL_FRAMES, Content
from msam.datasets.canonical import PlayRow, TrackRow, UserRow, read_plays, read_tracks, read_users
from msam.errors import MethodError
from msam.features.audio import AUDIO_GROUPS, AUDIO_WIDTH, AudioError, describe, load
from msam.features.spectrum import analyse, resample
from msam.features.text import TextEncoder, word_matrices
from msam.features.words import P_MAX, USER_MAX, Field, track_fields, user_words
from msam.listening import Listening
from msam.network.inputs import TrackContent, TrackInputs, UserInputs

Level = Literal["artist", "track"]
Say = Callable[[str], None]
_LABELS = 4
"""Labels of an artist: the most common of its tracks."""
NARROW = 64
"""d of the extended MSAM, as models of the stream are trained by default; the published one has the paper's 100."""
_AUDIO = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")


class EvaluationError(MethodError):
    """An evaluation cannot be run as asked."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The files of an evaluation."""

    plays: Path
    tracks: Path | None = None
    users: Path | None = None
    audio: Path | None = None

    def kinds(self) -> frozenset[str]:
        """Which of the inputs that a system may insist on are there."""
        return frozenset({"sound"} if self.clips() else ())

    def clips(self) -> dict[str, Path]:
        """Audio files by the track id that names them."""
        if self.audio is None:
            return {}
        return {path.stem: path for path in sorted(self.audio.iterdir()) if path.suffix.lower() in _AUDIO}


@dataclass(frozen=True, slots=True)
class Item:
    """What is ranked: a track, or an artist with all its tracks."""

    item_id: str
    tracks: tuple[str, ...]
    artist_id: str | None
    fields: tuple[Field, ...]
    labels: tuple[str, ...]
    album_id: str | None = None


def plays_only(sources: Sources, level: Level, say: Say = lambda _: None) -> Listening:
    """The plays and the catalogue without any content: what tables are made from. EvaluationError."""
    return _read(sources, level, say)[0]


def prepare(sources: Sources, level: Level, share: float = 0.2, dim: int = 100, say: Say = lambda _: None) -> Listening:
    """Read everything; SiMF is fitted on each user's plays but the last `share`, less the last HOLDOUT of these.

    Raises EvaluationError.
    """
    bare, items, people = _read(sources, level, say)
    return _with_content(bare, items, people, sources.clips(), share, dim, say)


def _read(sources: Sources, level: Level, say: Say) -> tuple[Listening, list[Item], list[UserRow]]:
    rows = read_tracks(sources.tracks) if sources.tracks else []
    people = read_users(sources.users) if sources.users else []
    plays, items = _items(read_plays(sources.plays), {row.track_id: row for row in rows}, level, say)
    users = sorted({user for user, _, _ in plays} | {person.user_id for person in people})
    empty = Content.empty(len(items), len(users))
    data = Listening.build([item.item_id for item in items], users, plays, empty)
    return replace(data, level=level), items, people


def _items(
    log: Sequence[PlayRow], rows: Mapping[str, TrackRow], level: Level, say: Say
) -> tuple[list[tuple[str, str, float]], list[Item]]:
    """Plays of items, and the items: those played and, at track level, those of the catalogue that nobody played."""
    if level == "track":
        known = {play.track_id: _unknown(play.track_id) for play in log} | dict(rows)
        items = [
            Item(t, (t,), r.artist_id, track_fields(r.title, r.artist, r.labels, r.duration), r.labels, r.album_id)
            for t, r in sorted(known.items())
        ]
        return [(play.user_id, play.track_id, play.timestamp) for play in log], items
    artist = {track: row.artist_id for track, row in rows.items() if row.artist_id}
    plays = [(play.user_id, artist[play.track_id], play.timestamp) for play in log if play.track_id in artist]
    if not plays:
        raise EvaluationError("no play has an artist; give --tracks with artist ids, or use --level track")
    if len(plays) < len(log):
        say(f"{len(log) - len(plays)} of {len(log)} plays left out: their track has no artist")
    of_artist: defaultdict[str, list[TrackRow]] = defaultdict(list)
    for row in rows.values():
        if row.artist_id:
            of_artist[row.artist_id].append(row)
    return plays, [_artist(artist_id, of_artist[artist_id]) for artist_id in sorted(of_artist)]


def _unknown(track_id: str) -> TrackRow:
    return TrackRow(track_id, None, None, None, None, None, (), None, None)


def _artist(artist_id: str, rows: Sequence[TrackRow]) -> Item:
    name = next((row.artist for row in rows if row.artist), None)
    common = Counter(label for row in rows for label in row.labels).most_common(_LABELS)
    labels = tuple(label for label, _ in common)
    return Item(artist_id, tuple(row.track_id for row in rows), None, track_fields(None, name, labels), labels)


def _with_content(
    bare: Listening,
    items: Sequence[Item],
    people: Sequence[UserRow],
    clips: Mapping[str, Path],
    share: float,
    dim: int,
    say: Say,
) -> Listening:
    profile = {person.user_id: user_words(person.gender, person.age, person.country) for person in people}
    texts: list[tuple[Field, ...]] = [item.fields for item in items]
    texts += [((0, " ".join(told)),) if (told := profile.get(user)) else () for user in bare.users]
    config = MSAMConfig(dim=dim, text_dim=8, max_words=1, max_user_words=1)
    words = None
    if any(texts):
        say(f"words of {sum(map(bool, texts))} items and users")
        encoder = TextEncoder(cache_size=sum(map(len, texts)) + 1)
        words = word_matrices(encoder, texts)
        config = MSAMConfig(dim=dim, text_dim=encoder.width, max_words=P_MAX, max_user_words=USER_MAX)
    sound = _sound(items, clips, say)
    say("SiMF factors")
    train = bare.first(bare.cuts(share))
    train = train.first(train.cuts(HOLDOUT))  # factors that know the rest would flatter what reads them
    factors, artists = _factors(train, items, dim)
    tracks = [
        TrackContent(
            words[row].vectors if words else None,
            words[row].fields if words else (),
            sound[row][0] if row in sound else None,
            factors[row],
            artists.get(item.artist_id or ""),
        )
        for row, item in enumerate(items)
    ]
    spoken = [words[len(items) + row].vectors if words else None for row in range(len(bare.users))]
    mel = np.zeros((len(items), MEL_BANDS, MEL_FRAMES), dtype=np.float16)
    for row, (_, picture) in sound.items():
        mel[row] = picture
    content = Content(
        config,
        TrackInputs.build(tracks, config),
        UserInputs.build([vectors if vectors is not None and len(vectors) else None for vectors in spoken], config),
        mel,
        np.isin(np.arange(len(items)), list(sound)),
        _numbers([item.artist_id for item in items]),
        _numbers([item.album_id for item in items]),
        _narrow(train, items) if dim > NARROW else None,
    )
    return replace(bare, content=content)


def _numbers(identifiers: Sequence[str | None]) -> NDArray[np.int64]:
    """Each id as a number from 0, -1 where there is none."""
    number = {one: place for place, one in enumerate(sorted({one for one in identifiers if one}))}
    return np.array([number.get(one or "", -1) for one in identifiers], dtype=np.int64)


def _sound(items: Sequence[Item], clips: Mapping[str, Path], say: Say) -> dict[int, tuple[NDArray[np.float32], ...]]:
    """Row -> descriptors [G, A] and mel picture of the items with sound; an artist's are the means over its clips."""
    if clips:
        say(f"sound of {len(clips)} clips")
    found = {}
    for row, item in enumerate(items):
        heard = [told for track in item.tracks if track in clips and (told := _clip(clips[track], say)) is not None]
        if heard:
            found[row] = tuple(np.mean(np.stack(part), axis=0) for part in zip(*heard, strict=True))
    return found


def _clip(path: Path, say: Say) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    try:
        samples, rate = load(path)
        described = describe(samples, rate)
    except AudioError as error:
        say(f"{path} is left out: {error}")
        return None
    bands = analyse(resample(samples, rate)).mel
    edges = np.linspace(0, bands.shape[1], MEL_FRAMES + 1).astype(int)
    slices = [bands[:, a : max(b, a + 1)].mean(axis=1) for a, b in itertools.pairwise(edges.tolist())]
    assert described.shape == (len(AUDIO_GROUPS), AUDIO_WIDTH)
    return described, (np.stack(slices, axis=1) / 40 + 1).astype(np.float32)


def _narrow(train: Listening, items: Sequence[Item]) -> tuple[Tensor, Tensor]:
    """SiMF factors [M, NARROW] of the items and of their artists; 0 where there is none, as in `TrackInputs`."""
    factors, artists = _factors(train, items, NARROW)
    tracks = [
        TrackContent(factor=factor, artist_factor=artists.get(item.artist_id or ""))
        for item, factor in zip(items, factors, strict=True)
    ]
    built = TrackInputs.build(tracks, MSAMConfig(dim=NARROW, text_dim=1, max_words=1))
    return built.factor, built.artist_factor


def _factors(
    train: Listening, items: Sequence[Item], dim: int
) -> tuple[list[NDArray[np.float32] | None], dict[str, NDArray[np.float32]]]:
    """SiMF factors of the items (warm-started without plays, None without any relation) and of the artists."""
    who = train.owner(np.arange(len(train.plays)))
    heard = [train.items[item] for item in train.plays]
    rows = [simf.TrackRow(item.item_id, item.artist_id, item.album_id, item.labels) for item in items]
    relations = simf.relations_from_plays(
        ((train.users[user], item, 1.0) for user, item in zip(who, heard, strict=True)),
        rows,
        sessions=zip(map(str, np.cumsum(train.session_starts())), heard, strict=True),
    )
    fitted = simf.SiMF(simf.SiMFConfig(dim=dim)).fit(relations)
    places, fits = fitted.positions["track"], fitted.factors["track"].astype(np.float32)
    linked = [fits[places[item.item_id]] for item in items]
    artists = fitted.positions.get("artist", {})
    return (
        [factor if factor.any() else None for factor in linked],
        {name: fitted.factors["artist"][place].astype(np.float32) for name, place in artists.items()},
    )
