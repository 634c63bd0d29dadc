"""Plays of the simulated listeners: sessions in time, and choices by liking, habit and what was just heard."""

from typing import NamedTuple

import numpy as np

from msam.simulate.config import SimulationConfig
from msam.simulate.heeding import Heeding
from msam.simulate.world import DAY, START, Floats, Integers, World

MEMORY = 0.6
"""Weight of the taste of the moment that the next play leaves over."""
REPEAT_SPAN = 30
"""A repeat comes from this many last plays, the latest most likely."""
_NOT_YET = -1e30


class Plays(NamedTuple):
    """Plays sorted by time: user [n], track [n], Unix seconds [n]."""

    user: Integers
    track: Integers
    timestamp: Integers


def listen(world: World, config: SimulationConfig, heeding: Heeding | None = None) -> Plays:
    """Draw the plays; costs O(plays x tracks). `heeding`: what listeners like in sound instead of its properties."""
    rng = np.random.default_rng([config.seed, 2])
    users = len(world.user_style)
    activity = rng.lognormal(0.0, 0.8, users)
    counts = 1 + rng.multinomial(config.plays - users, activity / activity.sum())
    liking = base_liking(world, config, heeding)
    user = np.repeat(np.arange(users), counts)
    timestamp = np.concatenate([_times(rng, int(count), config.days) for count in counts])
    track = np.concatenate(
        [
            _choices(rng, world, config, liking[index], moments)
            for index, moments in enumerate(np.split(timestamp, np.cumsum(counts)[:-1]))
        ]
    )
    order = np.lexsort((user, timestamp))
    return Plays(user[order], track[order], timestamp[order])


def base_liking(world: World, config: SimulationConfig, heeding: Heeding | None = None) -> Floats:
    """Liking [U, T] but for the share of time: standardised parts, each times the root of its share of the variance."""
    sound = (world.sound - world.sound.mean(axis=0)) / np.maximum(world.sound.std(axis=0), 1e-9)
    popular = np.broadcast_to(world.popularity, (len(world.user_style), len(world.style)))
    shares = config.shares
    parts = (
        (shares.audio, world.user_sound @ sound.T if heeding is None else heeding.liking),
        (shares.text, world.user_style @ world.style.T),
        (shares.artist, world.user_artist[:, world.artist]),
        (shares.popularity, popular),
    )
    return np.asarray(sum(np.sqrt(share) * _standard(values) for share, values in parts))


def _standard(values: Floats) -> Floats:
    centred = values - values.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(values.std(axis=1, keepdims=True), 1e-9))


def _times(rng: np.random.Generator, count: int, days: float) -> Integers:
    """Strictly rising moments: evening-heavy sessions of about eight plays, a few minutes apart."""
    sessions = max(1, count // 8)
    day = rng.integers(0, max(1, int(days)), sessions)
    hour = np.clip(rng.normal(19, 4, sessions), 0, 23)
    start = START + day * DAY + (hour * 3600).astype(np.int64)
    member = rng.integers(0, sessions, count)
    gap = rng.integers(150, 330, count)
    place = np.zeros(count, dtype=np.int64)
    for session in range(sessions):
        inside = member == session
        place[inside] = np.cumsum(gap[inside])
    moments = np.sort(start[member] + place)
    # Two sessions of one day can touch; a listener still hears one track at a time.
    return np.asarray(np.maximum.accumulate(moments - np.arange(count) * 30) + np.arange(count) * 30)


def _choices(
    rng: np.random.Generator, world: World, config: SimulationConfig, liking: Floats, moments: Integers
) -> Integers:
    weight = np.sqrt(config.shares.time)
    mood = np.zeros(world.style.shape[1])
    chosen = np.empty(len(moments), dtype=np.int64)
    heard = np.zeros(len(world.style), dtype=np.bool_)  # with `once` alone
    draws = rng.random((len(moments), 2))
    for place, moment in enumerate(moments):
        if place and draws[place, 0] < config.repeat:
            track = _repeat(chosen[max(0, place - REPEAT_SPAN) : place], draws[place, 1])
        else:
            now = world.style @ mood
            now = (now - now.mean()) / max(float(now.std()), 1e-9)
            released = world.release <= moment
            free = released & ~heard
            if not free.any():  # every track was played: from the beginning
                heard[:] = False
                free = released
            score = np.where(free, config.sharpness * (liking + weight * now), _NOT_YET)
            track = _draw(score, draws[place, 1])
        chosen[place] = track
        heard[track] = config.once
        mood = MEMORY * mood + (1 - MEMORY) * world.style[track]
    return chosen


def _repeat(last: Integers, draw: float) -> int:
    """One of the last plays; each step back is 0.85 times as likely."""
    weights = np.cumsum(0.85 ** np.arange(len(last)))
    return int(last[len(last) - 1 - int(np.searchsorted(weights, draw * weights[-1], side="right"))])


def _draw(score: Floats, draw: float) -> int:
    """A track by the softmax of the scores."""
    weights = np.cumsum(np.exp(score - score.max()))
    # Below the total even after rounding, so that a track of weight 0 at the end is never drawn.
    place = min(draw * weights[-1], np.nextafter(weights[-1], 0.0))
    return int(np.searchsorted(weights, place, side="right"))
