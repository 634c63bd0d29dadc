"""Follows the lists, scores each by its listener's next play, and points `live` back when a version proves worse.

One topic says all: a list names the version that made it and the play that it answers, which is the play after the
list before it. Several watches do no harm: whoever announces decides on what is live at that moment.
"""

import logging
import time
from collections.abc import Callable, Mapping

from confluent_kafka import KafkaException

from streams import channels, topics
from streams.errors import MsamError
from streams.model_log import read_models
from streams.moves import move
from streams.prequential import METRIC, Comparison, Rule, Scores, compare
from streams.reader import read
from streams.records import ModelVersion, Recommendation, RecordError
from streams.serialization import decode

log = logging.getLogger(__name__)
_LOOKBACK = 3600.0  # seconds before its start from which lists are scored, so that a restart forgets little
_PAUSE = 10.0  # seconds until it begins again after the broker went away


def watch(config: Mapping[str, str], rule: Rule, say: Callable[[str], None] = log.warning) -> None:
    """Never returns."""
    while True:
        try:
            follow(config, rule, say)
        except (MsamError, KafkaException) as error:
            say(f"lists are not watched for {_PAUSE:.0f} s: {error}")
        time.sleep(_PAUSE)


def follow(config: Mapping[str, str], rule: Rule, say: Callable[[str], None]) -> None:
    """Score lists as they come; ends only by an error."""
    scores = Scores()
    for message in read(config, topics.RECOMMENDATIONS, start=time.time() - _LOOKBACK):
        value = message.value()
        if value is None:  # somebody was forgotten
            continue
        try:
            version = scores.add(decode(Recommendation, value))
        except RecordError:  # not ours; the next one is
            continue
        if version is not None and rule.look(scores.tallies[version].plays) is not None:
            look(config, scores, version, rule, say)


def look(
    config: Mapping[str, str], scores: Scores, version: str, rule: Rule, say: Callable[[str], None]
) -> ModelVersion | None:
    """Hold a version against the one before, and roll back where it is worse; the channel's new record then."""
    versions, at = read_models(config)
    target = channels.on_trial(version, versions, at)
    if target is None or target not in scores.tallies:
        return None
    plays = scores.tallies[version].plays
    found = compare(scores.tallies[version], scores.tallies[target], rule)
    if found is None:
        return None
    say(f"model {version}: {METRIC} {found.rate:.4f} over {plays} plays, {found.before:.4f} with {target} before")
    if not found.worse:
        return None
    try:
        _, record = move(
            config,
            channels.LIVE,
            lambda known, now: channels.earlier(known, now, channels.LIVE),
            lambda known, now: channels.withdrawal(version, *_said(found, plays, target), known, now),
        )
    except MsamError as error:
        say(f"model {version} is worse than {target} and stays, as it cannot be rolled back: {error}")
        return None
    say(f"model {version}: rolled back, {record.version} is live again")
    return record


def _said(found: Comparison, plays: int, target: str) -> tuple[str, dict[str, float]]:
    """Why, in words, and the figures."""
    why = (
        f"rolled back: {METRIC} {found.rate:.4f} over {plays} plays, {found.before:.4f} with {target} before "
        f"(standard error {found.error:.4f})"
    )
    return why, {f"{channels.LIVE}_{METRIC}": found.rate, "live_plays": float(plays)}
