"""Pointing a channel to a model version: one writer at a time, each of which decides on what it has just read.

Trainers and operators share one transactional id. Whoever announces shuts everybody else out first, reads what the
topic holds now, decides, and commits; somebody who was shut out between reading and committing begins again. So no
writer undoes what it has not seen, and a version is never visible without the channel that was to point to it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from streams import topics
from streams.errors import MsamError, NotReady
from streams.model_log import read_models
from streams.outgoing import Out
from streams.records import ModelVersion
from streams.serialization import encode
from streams.transactions import Fenced, Transactions

LIVE = "live"
_BACK = "rolled back from"
Versions = Mapping[str, ModelVersion]
Decide = Callable[[Versions, Versions], Sequence[ModelVersion]]
_TRIES = 10


class NotPromoted(MsamError):
    """The channel stays where it is."""


def announce(config: Mapping[str, str], decide: Decide) -> Sequence[ModelVersion]:
    """Publish what `decide` makes of (versions, channel records), in one transaction; may call it more than once."""
    tries = 0
    while True:
        producer = Transactions(config, "msam-models")
        try:
            producer.take_over()
            records = decide(*read_models(config))
            producer.commit([Out(topics.MODEL_VERSIONS, one.key.encode(), encode(one), 0) for one in records])
            return records
        except Fenced:
            tries += 1
            if tries == _TRIES:
                raise


def known(name: str, versions: Versions) -> ModelVersion:
    """The version of this name; NotReady where it was never announced."""
    if name not in versions:
        raise NotReady(f"there is no model version {name}; `msam models list` shows what there is")
    return versions[name]


def pointing(
    name: str, versions: Versions, channels: Versions, channel: str = LIVE, reason: str | None = None
) -> ModelVersion:
    """The record that points a channel to a version, remembering which one it leaves."""
    before = channels.get(channel)
    return ModelVersion(
        known(name, versions).version,
        channel=channel,
        parent=None if before is None else before.version,
        created_at=time.time(),
        state="channel",
        reason=reason,
    )


def promotion(name: str, versions: Versions, channels: Versions, channel: str, even_refused: bool) -> ModelVersion:
    """What `msam models promote` announces; NotPromoted where the gate refused the version or it is there already."""
    version = known(name, versions)
    if channel in channels and channels[channel].version == name:
        raise NotPromoted(f"{channel} points to {name} already")
    if version.state != "accepted" and not even_refused:
        raise NotPromoted(
            f"{name} is {version.state} ({version.reason or 'no reason given'}); --even-refused promotes it anyway"
        )
    return pointing(name, versions, channels, channel, "promoted")


def earlier(versions: Versions, channels: Versions, channel: str) -> str:
    """The version that a roll-back goes to: the one before, else the one that the present one was trained from."""
    now = channels.get(channel)
    if now is None:
        raise NotPromoted(f"the channel {channel} points to nothing yet")
    present = versions.get(now.version)
    for name in (now.parent, None if present is None else present.parent):
        if name is not None and name != now.version and name in versions:
            return name
    raise NotPromoted(f"{channel} knows no version before {now.version}; `msam models promote VERSION` names one")


def rollback(versions: Versions, channels: Versions, channel: str) -> ModelVersion:
    """What `msam models rollback` announces. A second roll-back goes one further back, not forth again."""
    target = earlier(versions, channels, channel)
    made = pointing(target, versions, channels, channel, f"{_BACK} {channels[channel].version}")
    parent = versions[target].parent
    return replace(made, parent=parent if parent in versions else None)


def on_trial(name: str, versions: Versions, channels: Versions) -> str | None:
    """The version that a live one is held against while its lists are scored; None where it is not on trial.

    A version that was rolled back to is not: where every version does worse than before, the listeners have changed,
    and one roll-back after the other would not help. Nor is one that somebody promoted though it had been refused,
    or that follows such a one.
    """
    now = channels.get(LIVE)
    if now is None or now.version != name or (now.reason or "").startswith(_BACK):
        return None
    try:
        target = earlier(versions, channels, LIVE)
    except NotPromoted:
        return None
    passed = all(one in versions and versions[one].state == "accepted" for one in (name, target))
    return target if passed else None


def withdrawal(
    name: str, why: str, figures: Mapping[str, float], versions: Versions, channels: Versions
) -> list[ModelVersion]:
    """What is announced when a live version has proved worse: it is refused from now on, and `live` goes back.

    NotPromoted where it is not on trial any more.
    """
    if on_trial(name, versions, channels) is None:
        raise NotPromoted(f"{name} is not what {LIVE} was moved to last")
    version = versions[name]
    refused = replace(version, state="refused", reason=why, metrics={**version.metrics, **figures})
    return [refused, rollback(versions, channels, LIVE)]


def withdrawn(version: ModelVersion) -> bool:
    """Whether a version was live and was rolled back because its lists were worse."""
    return version.state == "refused" and "live_plays" in version.metrics
