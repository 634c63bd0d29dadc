"""Which plays the demo streams when, and which track it holds back to arrive cold. Pure."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from msam.datasets.canonical import PlayRow, TrackRow
from streams.errors import MsamError

HISTORY, BURST, SWAP = 0.30, 0.25, 0.15  # shares: the first model's log, saturation, while the second model is trained
_FEWEST = 200
_ROOM = 12  # tracks


@dataclass(frozen=True, slots=True)
class Plan:
    """The phases of plays in time order, the tracks described beforehand, and the one that arrives later."""

    history: Sequence[PlayRow]
    burst: Sequence[PlayRow]
    swap: Sequence[PlayRow]
    paced: Sequence[PlayRow]
    tracks: Sequence[TrackRow]
    cold: TrackRow | None
    listeners: frozenset[str]  # of the cold track's artist, in the paced phase

    @property
    def plays(self) -> list[PlayRow]:
        """All plays, in the order in which they are published."""
        return [*self.history, *self.burst, *self.swap, *self.paced]


def make_plan(plays: Sequence[PlayRow], tracks: Sequence[TrackRow], count: int | None) -> Plan:
    """Cut the first `count` plays into phases and choose the cold track."""
    chosen = list(plays[:count])
    if len(chosen) < _FEWEST:
        raise MsamError(f"the demo needs at least {_FEWEST} plays, there are {len(chosen)}")
    ends = [int(len(chosen) * share) for share in (HISTORY, HISTORY + BURST, HISTORY + BURST + SWAP)]
    history, paced = chosen[: ends[0]], chosen[ends[2] :]
    known = {track.track_id: track for track in tracks}
    cold, listeners = _cold(history, chosen[: ends[2]], paced, known)
    played = dict.fromkeys(play.track_id for play in chosen)
    described = [known[t] for t in played if t in known and (cold is None or t != cold.track_id)]
    return Plan(history, chosen[ends[0] : ends[1]], chosen[ends[1] : ends[2]], paced, described, cold, listeners)


def _cold(
    history: Sequence[PlayRow], before: Sequence[PlayRow], paced: Sequence[PlayRow], known: dict[str, TrackRow]
) -> tuple[TrackRow | None, frozenset[str]]:
    """A track of an artist that the history knows and a listener plays often just when it appears.

    A real track that nobody has played yet where there is one, else a new release of the artist.
    """
    tracks_of: defaultdict[str, set[str]] = defaultdict(set)
    for play in history:
        track = known.get(play.track_id)
        if track is not None and track.artist_id:
            tracks_of[track.artist_id].add(play.track_id)
    soon = paced[len(paced) // 6 : len(paced) // 2]
    heard: Counter[tuple[str, str]] = Counter()
    for play in soon:
        track = known.get(play.track_id)
        if track is not None and track.artist_id and len(tracks_of[track.artist_id]) >= 2:
            heard[track.artist_id, play.user_id] += 1
    if not heard:
        return None, frozenset()
    # An artist with fewer tracks than a list has places: room for one more, if the model thinks of the artist at all.
    roomy = [pair for pair in heard if len(tracks_of[pair[0]]) <= _ROOM] or list(heard)
    artist = max(roomy, key=lambda pair: (heard[pair], pair))[0]
    listeners = frozenset(user for a, user in heard if a == artist)
    used = {play.track_id for play in before}
    unheard = sorted(t for t, row in known.items() if row.artist_id == artist and t not in used)
    if unheard:
        return known[unheard[0]], listeners
    like = known[min(tracks_of[artist])]
    return like._replace(track_id=f"new-release-{artist}", title="New Release"), listeners
