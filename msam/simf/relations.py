"""The relation matrices R_ij and the same-type networks that SiMF factorises."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from msam.errors import MethodError


class RelationsError(MethodError):
    """Relations whose shapes, ids or values do not fit together."""


class TrackRow(NamedTuple):
    """What SiMF needs of a track's metadata; None or empty = unknown."""

    track_id: str
    artist_id: str | None = None
    album_id: str | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Relations:
    """Objects, relations between types and networks within a type.

    Attributes:
        types: object type -> ids in row order, unique.
        relations: (i, j) -> non-negative sparse R_ij of shape [n_i, n_j], i != j.
        networks: type -> symmetric non-negative sparse adjacency matrices [n_i, n_i]; the diagonal is ignored.

    Raises:
        RelationsError: on any disagreement, naming the relation.
    """

    types: Mapping[str, Sequence[str]]
    relations: Mapping[tuple[str, str], csr_matrix]
    networks: Mapping[str, Sequence[csr_matrix]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, ids in self.types.items():
            if len(set(ids)) != len(ids):
                raise RelationsError(f"type {name!r} has duplicate ids")
            if "/" in name:
                raise RelationsError(f"type {name!r} must not contain '/'")
        for (i, j), matrix in self.relations.items():
            if i == j:
                raise RelationsError(f"relation {i}-{j} joins a type with itself: give it as a network")
            self._check(f"relation {i}-{j}", matrix, i, j)
        for name, sources in self.networks.items():
            for t, matrix in enumerate(sources):
                self._check(f"network {t} of {name}", matrix, name, name)
                if abs(matrix - matrix.T).sum() > 1e-9 * max(1.0, abs(matrix).sum()):
                    raise RelationsError(f"network {t} of {name} is not symmetric")

    def _check(self, label: str, matrix: Any, i: str, j: str) -> None:
        for name in (i, j):
            if name not in self.types:
                raise RelationsError(f"{label} names the unknown type {name!r}")
        expected = (len(self.types[i]), len(self.types[j]))
        if tuple(matrix.shape) != expected:
            raise RelationsError(f"{label} has shape {tuple(matrix.shape)}, expected {expected}")
        if matrix.nnz and not (np.isfinite(matrix.data).all() and (matrix.data >= 0).all()):
            raise RelationsError(f"{label} has negative or non-finite values")


def matrix_from_counts(
    counts: Mapping[tuple[Any, Any], float], rows: Sequence[Hashable], columns: Sequence[Hashable]
) -> csr_matrix:
    """Sparse [rows, columns] matrix of `counts`; pairs naming an unlisted object are left out."""
    row_of = {key: n for n, key in enumerate(rows)}
    column_of = {key: n for n, key in enumerate(columns)}
    known = sorted((row_of[a], column_of[b], v) for (a, b), v in counts.items() if a in row_of and b in column_of)
    where = np.array([(r, c) for r, c, _ in known], dtype=np.int64).reshape(-1, 2)
    values = np.array([v for _, _, v in known], dtype=np.float64)
    return csr_matrix((values, (where[:, 0], where[:, 1])), shape=(len(rows), len(columns)))


def relations_from_plays(
    plays: Iterable[tuple[str, str, float]],
    tracks: Iterable[TrackRow],
    countries: Mapping[str, str | None] | None = None,
    networks: Mapping[str, Sequence[csr_matrix]] | None = None,
    sessions: Iterable[tuple[str, str]] = (),
) -> Relations:
    """Relations of listening counts and track metadata.

    Args:
        plays: (user_id, track_id, number of plays); repeated pairs add up.
        tracks: metadata; tracks without plays are kept, tracks of plays without metadata too. One row per track.
        countries: user -> country, None or empty = unknown.
        networks: passed on; their rows follow the sorted ids of the type.
        sessions: (session, track) of every play; who heard what together. A session of one track tells nothing and is
            left out.

    Returns:
        user-track, user-artist and session-track log(1 + plays); track-artist, track-album, track-tag, user-country
        0/1; artist-tag log(1 + tracks of the artist with the tag). Ids are sorted, so the order of arrival does not
        matter; relations and types without any link (no album known, say) are left out.
    """
    played: defaultdict[tuple[str, str], float] = defaultdict(float)
    for user, track, count in plays:
        played[user, track] += count
    rows = {row.track_id: row for row in tracks}
    links = _describe(rows)
    by_artist: defaultdict[tuple[str, str], float] = defaultdict(float)
    for (user, track), count in played.items():
        if (row := rows.get(track)) is not None and row.artist_id:
            by_artist[user, row.artist_id] += count
    links["user", "track"] = {pair: float(np.log1p(n)) for pair, n in played.items() if n > 0}
    links["user", "artist"] = {pair: float(np.log1p(n)) for pair, n in by_artist.items() if n > 0}
    links["session", "track"] = _together(sessions)
    links["user", "country"] = {(user, country): 1.0 for user, country in (countries or {}).items() if country}
    ids: dict[str, set[str]] = {"user": set(countries or {}), "track": set(rows)}
    for (i, j), pairs in links.items():
        for a, b in pairs:
            ids.setdefault(i, set()).add(a)
            ids.setdefault(j, set()).add(b)
    types = {name: sorted(ids[name]) for name in sorted(ids) if ids[name]}
    matrices = {(i, j): matrix_from_counts(links[i, j], types[i], types[j]) for i, j in sorted(links) if links[i, j]}
    return Relations(types, matrices, networks or {})


def _together(sessions: Iterable[tuple[str, str]]) -> dict[tuple[str, str], float]:
    heard = Counter(sessions)
    tracks = Counter(session for session, _ in heard)
    return {pair: float(np.log1p(n)) for pair, n in heard.items() if tracks[pair[0]] > 1}


def _describe(rows: Mapping[str, TrackRow]) -> dict[tuple[str, str], dict[tuple[str, str], float]]:
    artist: dict[tuple[str, str], float] = {}
    album: dict[tuple[str, str], float] = {}
    tag: dict[tuple[str, str], float] = {}
    artist_tag: Counter[tuple[str, str]] = Counter()
    for track, row in rows.items():
        if row.artist_id:
            artist[track, row.artist_id] = 1.0
        if row.album_id:
            album[track, row.album_id] = 1.0
        for label in set(row.labels):
            tag[track, label] = 1.0
            if row.artist_id:
                artist_tag[row.artist_id, label] += 1
    weighted = {pair: float(np.log1p(n)) for pair, n in artist_tag.items()}
    return {
        ("track", "artist"): artist,
        ("track", "album"): album,
        ("track", "tag"): tag,
        ("artist", "tag"): weighted,
    }
