"""The demo's figures, from what the independent consumer read. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from streams.records import Recommendation

Place = tuple[int, int]  # partition and offset of a play


@dataclass(frozen=True, slots=True)
class Seen:
    """One record as it was read: when it arrived, and what it says."""

    arrived: float
    record: Recommendation

    @property
    def place(self) -> Place:
        """The play that it answers."""
        return self.record.source.partition, self.record.source.offset


def counts(plays: Iterable[Place], seen: Sequence[Seen], dead: Iterable[Place]) -> dict[str, int]:
    """Plays in the log, lists, plays without an answer and answers too many."""
    places = set(plays)
    answers = Counter(s.place for s in seen)
    answers.update(dead)
    return {
        "plays": len(places),
        "recommendations": len(seen),
        "lost": len(places - set(answers)),
        "duplicates": sum(n - 1 for n in answers.values()) + len(set(answers) - places),
    }


def latency_ms(sent: Mapping[Place, float], seen: Iterable[Seen]) -> dict[str, float]:
    """Median and 99th percentile from produce to the list's arrival, in milliseconds."""
    delays = [(s.arrived - sent[s.place]) * 1000 for s in seen if s.place in sent]
    if not delays:
        return {"p50": 0.0, "p99": 0.0}
    return {"p50": round(float(np.percentile(delays, 50)), 2), "p99": round(float(np.percentile(delays, 99)), 2)}


def prequential(seen: Sequence[Seen], first: Mapping[int, int], n: int = 20) -> dict[str, float]:
    """HR@10, HR@20 and MRR@20: each list against the user's next play.

    `first`: offset per partition before which the first model had seen the plays; those do not count as targets.
    """
    by_user: defaultdict[str, list[Seen]] = defaultdict(list)
    for s in seen:
        by_user[s.record.user_id].append(s)
    ranks: list[int] = []
    for lists in by_user.values():
        lists.sort(key=lambda s: s.place)
        for now, after in pairwise(lists):
            partition, offset = after.place
            if offset >= first.get(partition, 0):
                target = after.record.source.track_id
                ranks.append(next((i.rank for i in now.record.items if i.track_id == target), 0))
    if not ranks:
        return {"hr@10": 0.0, "hr@20": 0.0, "mrr@20": 0.0}
    found = np.array(ranks, dtype=np.float64)
    return {
        "hr@10": round(float(((found > 0) & (found <= 10)).mean()), 4),
        "hr@20": round(float(((found > 0) & (found <= n)).mean()), 4),
        "mrr@20": round(float(np.where(found > 0, 1 / np.maximum(found, 1), 0.0).mean()), 4),
    }


def cold_track(
    track_id: str, feature_version: int, published: float, seen: Sequence[Seen], listeners: frozenset[str]
) -> dict[str, object]:
    """When a new track began to be scored for every play, and when it entered a list of a listener of its artist."""
    scored = [s.arrived for s in seen if s.record.catalogue_version >= feature_version and s.arrived >= published]
    late = [s.arrived for s in seen if s.record.catalogue_version < feature_version and s.arrived >= published]
    listed = [s for s in seen if any(item.track_id == track_id for item in s.record.items)]
    theirs = [s.arrived for s in listed if s.record.user_id in listeners]
    first = max([min(scored), *late]) if scored else None
    return {
        "track_id": track_id,
        "seconds_to_scored": None if first is None else round(first - published, 3),
        "seconds_to_first_recommendation": round(min(theirs) - published, 3) if theirs else None,
        "lists": len(listed),
        "best_rank": min((i.rank for s in listed for i in s.record.items if i.track_id == track_id), default=None),
    }
