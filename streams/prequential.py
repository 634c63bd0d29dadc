"""How good the lists of each model version turn out: a list hits when it holds its listener's next play. Pure."""

from collections.abc import Collection
from dataclasses import dataclass, field
from math import sqrt
from sys import intern

from scipy.special import stdtrit

from streams.recent import Recent
from streams.records import Recommendation

METRIC = "hr@20"
_LISTS = 100_000  # listeners whose newest list is remembered
_VERSIONS = 8  # the newest versions whose scores are kept
_LISTENERS = 20  # fewer say nothing about others: their plays are not independent


@dataclass(slots=True)
class Tally:
    """What became of the lists of one version: [plays, hits] by listener, and both in all."""

    plays: int = 0
    hits: int = 0
    by_user: dict[str, list[int]] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Hits a play; 0 without plays."""
        return self.hits / self.plays if self.plays else 0.0

    def add(self, user_id: str, hit: bool) -> None:
        """Count one list and the play after it."""
        mine = self.by_user.setdefault(user_id, [0, 0])
        mine[0] += 1
        mine[1] += hit
        self.plays += 1
        self.hits += hit


class Scores:
    """Tallies by version, from the lists in the order of their log."""

    def __init__(self, n: int = 20) -> None:
        self.tallies: dict[str, Tally] = {}
        self._n = n
        self._newest: Recent[str, tuple[str, int, Collection[str]]] = Recent(_LISTS)

    def add(self, record: Recommendation) -> str | None:
        """Take in a list; the version whose list before it was scored by the play that this one answers, if any."""
        user, source = record.user_id, record.source
        before = self._newest.get(user)
        tracks = tuple(intern(item.track_id) for item in record.items[: self._n])
        self._newest.put(user, (record.model_version, source.offset, tracks))
        if before is None or source.offset <= before[1]:  # made again (a backfill): nothing was played
            return None
        version = before[0]
        self._tally(version).add(user, source.track_id in before[2])
        return version

    def _tally(self, version: str) -> Tally:
        tally = self.tallies.pop(version, None) or Tally()
        if len(self.tallies) == _VERSIONS:
            del self.tallies[next(iter(self.tallies))]  # the one that was served longest ago
        self.tallies[version] = tally
        return tally


@dataclass(frozen=True, slots=True)
class Rule:
    """When a version is worse than the one before: by more than `margin` in hits a play, beyond what chance does.

    It is looked at after `plays` plays, after twice, four times as many and so on; look i may be wrong with the chance
    `alpha` / 2^(i+1), so that all looks together may with `alpha` (for a version that is worse by just the margin;
    for one that is as good as the one before it is far less).
    """

    margin: float = 0.02
    plays: int = 1000
    alpha: float = 0.001

    def look(self, plays: int) -> int | None:
        """The number of the look that is due after exactly so many plays, from 0; None for none."""
        times, rest = divmod(plays, self.plays)
        return None if rest or not times or times & (times - 1) else times.bit_length() - 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """A version beside the one before; `error` is the standard error of how far it fell, `worse` the verdict."""

    rate: float
    before: float
    error: float
    worse: bool


def compare(live: Tally, before: Tally, rule: Rule) -> Comparison | None:
    """What a look finds; None where there is none due, or where either side has too few plays or listeners.

    With N, n_u plays and H, h_u hits of all and of listener u, and p = H/N, for both versions:
    fell = p_before - p_live, and its variance is U/(U-1) sum_u d_u^2 with
    d_u = (h_u - p n_u)/N of the one before, less the same of the live one: the plays of one listener hang together,
    and most listeners had lists of both. `worse` when (fell - margin)/error is beyond Student's t with U-1 degrees.
    """
    look = rule.look(live.plays)
    users = live.by_user.keys() | before.by_user.keys()
    if look is None or before.plays < rule.plays or min(len(live.by_user), len(before.by_user)) < _LISTENERS:
        return None
    count = len(users)
    spread = sum((_share(before, user) - _share(live, user)) ** 2 for user in users)
    error = sqrt(spread * count / (count - 1))
    beyond = float(stdtrit(count - 1, 1 - rule.alpha / 2 ** (look + 1)))
    fell = before.rate - live.rate
    return Comparison(live.rate, before.rate, error, fell - rule.margin > beyond * error)


def _share(tally: Tally, user: str) -> float:
    plays, hits = tally.by_user.get(user, (0, 0))
    return (hits - tally.rate * plays) / tally.plays
