"""The simulated world: artists, albums, tracks and listeners with the truth behind them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msam.simulate.config import SimulationConfig
from msam.simulate.styles import COUNTRIES, FIRST_NAMES, LAST_NAMES, LINKS, STYLES

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

START = 1_704_067_200
"""2024-01-01 UTC: the first moment of the plays."""
DAY = 86_400
SOUND = ("tempo", "brightness", "level", "drums", "minor")
"""Columns of a track's sound: tempo in octaves from 120 beats a minute, the others from 0 to 1."""
_SPREAD = np.array([0.12, 0.15, 0.15, 0.15, 0.25])


@dataclass(frozen=True, slots=True)
class World:
    """S styles, T tracks, U users, R artists.

    style [T, S] mixture of each track; sound [T, 5]; key [T] tonic 0-11; release [T] Unix seconds (at or before START
    for old tracks); popularity [T]; artist [T], album [T]; user_style [U, S] taste in styles (a mixture);
    user_sound [U, 5] weights over standardised sound; user_artist [U, R] liking. The rest is what is written out.
    """

    style: Floats
    sound: Floats
    key: Integers
    release: Integers
    popularity: Floats
    artist: Integers
    album: Integers
    duration: Integers
    titles: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    artists: tuple[str, ...]
    albums: tuple[str, ...]
    user_style: Floats
    user_sound: Floats
    user_artist: Floats
    genders: tuple[str, ...]
    ages: tuple[int, ...]
    countries: tuple[str, ...]


def make_world(config: SimulationConfig) -> World:
    """Draw a world; the same seed and sizes give the same world, whatever clips and plays are asked for."""
    rng = np.random.default_rng([config.seed, 1])
    count, artists = config.tracks, max(2, config.tracks // 8)
    artist_style = _mixtures(rng, artists, 0.25)
    # Artists differ in how much they publish, as in life: their tracks follow a geometric-like tail.
    artist = np.sort(rng.choice(artists, count, p=_falling(artists, 0.6)))
    own = _mixtures(rng, count, 0.3)
    style = config.coherence * artist_style[artist] + (1 - config.coherence) * own
    sound = _sound(rng, _others(config, style) if config.apart else style)
    first_in_artist = np.searchsorted(artist, artist)
    album = _codes(artist, (np.arange(count) - first_in_artist) // 6)
    release = _releases(rng, config, album)
    user_style = _mixtures(rng, config.users, 0.35)
    genders, ages, countries = _people(rng, user_style)
    likes = rng.normal(size=(config.users, artists)) + 3 * user_style @ artist_style.T
    return World(
        style=style,
        sound=sound,
        key=rng.integers(0, 12, count),
        release=release,
        popularity=rng.permutation(np.log(_falling(count, 0.8))),
        artist=artist,
        album=album,
        duration=rng.integers(110, 420, count),
        titles=_titles(rng, style),
        labels=_labels(style, sound, release, told=not config.apart),
        artists=_names(rng, artists),
        albums=_titles(rng, style[np.unique(album, return_index=True)[1]]),
        user_style=user_style,
        user_sound=_sound_taste(rng, user_style, sound),
        user_artist=likes,
        genders=genders,
        ages=ages,
        countries=countries,
    )


def _mixtures(rng: np.random.Generator, rows: int, concentration: float) -> Floats:
    mixtures: Floats = rng.dirichlet(np.full(len(STYLES), concentration), rows)
    return mixtures


def _falling(count: int, power: float) -> Floats:
    weights = 1.0 / np.arange(1, count + 1) ** power
    return np.asarray(weights / weights.sum())


def _codes(major: Integers, minor: Integers) -> Integers:
    _, codes = np.unique(np.stack([major, minor]), axis=1, return_inverse=True)
    return np.asarray(codes, dtype=np.int64).reshape(-1)


def style_sounds() -> Floats:
    """Middle of each style's sound [S, 5]."""
    return np.array([[np.log2(s.tempo / 120), s.brightness, s.level, s.drums, s.minor] for s in STYLES])


def _others(config: SimulationConfig, style: Floats) -> Floats:
    """The styles of other tracks, by a generator of its own, so that the rest of the world is the same."""
    return np.random.default_rng([config.seed, 6]).permutation(style)


def _sound(rng: np.random.Generator, style: Floats) -> Floats:
    sound: Floats = style @ style_sounds() + rng.normal(size=(len(style), len(SOUND))) * _SPREAD
    sound[:, 0] = np.clip(sound[:, 0], -1.0, 0.6)
    sound[:, 1:] = np.clip(sound[:, 1:], 0.0, 1.0)
    return sound


def _releases(rng: np.random.Generator, config: SimulationConfig, album: Integers) -> Integers:
    """Albums of the last 40 years; a share `new` of the tracks appears in the second half of the plays."""
    albums = int(album.max()) + 1
    moment = (START - rng.integers(60, 40 * 365, albums) * DAY)[album]
    new = rng.permutation(len(album))[: round(config.new * len(album))]
    moment[new] = START + (rng.uniform(0.5, 0.9, len(new)) * config.days * DAY).astype(np.int64)
    return moment


def _sound_taste(rng: np.random.Generator, user_style: Floats, sound: Floats) -> Floats:
    """Taste in sound follows the sound of the liked styles, with a will of its own."""
    liked = (user_style @ style_sounds() - sound.mean(axis=0)) / np.maximum(sound.std(axis=0), 1e-9)
    taste: Floats = liked + 0.7 * rng.normal(size=liked.shape)
    return taste


def _titles(rng: np.random.Generator, style: Floats) -> tuple[str, ...]:
    titles: list[str] = []
    for mixture in style:
        chosen = rng.choice(len(STYLES), 2, p=mixture / mixture.sum())
        first, second = (str(rng.choice(STYLES[index].words)) for index in chosen)
        link = str(rng.choice(LINKS))
        titles.append(
            first if first == second else f"{first} {link} {second}" if rng.random() < 0.5 else f"{first} {second}"
        )
    return tuple(titles)


def _labels(style: Floats, sound: Floats, release: Integers, told: bool) -> tuple[tuple[str, ...], ...]:
    """Names of the styles above a quarter, the main style's tags, words for the sound (where `told`), the decade."""
    labels = []
    for mixture, (tempo, brightness, level, drums, minor), moment in zip(style, sound, release, strict=True):
        main = STYLES[int(np.argmax(mixture))]
        found = [main.name, *(s.name for s, part in zip(STYLES, mixture, strict=True) if part > 0.25)]
        found += main.tags[: 1 + int(mixture.max() * 2)]
        if told:
            found += ["fast"] if tempo > 0.15 else ["slow"] if tempo < -0.4 else []
            found += ["bright"] if brightness > 0.7 else ["dark"] if brightness < 0.3 and minor > 0.5 else []
            found += ["loud"] if level > 0.85 else ["quiet"] if level < 0.3 else []
            found += ["percussive"] if drums > 0.8 else []
        labels.append(tuple(dict.fromkeys([*found, f"{year(int(moment)) // 10 * 10}s"])))
    return tuple(labels)


def year(moment: int) -> int:
    """Calendar year (UTC) of Unix seconds."""
    return int(np.datetime64(moment, "s").astype("datetime64[Y]").astype(int)) + 1970


def _names(rng: np.random.Generator, count: int) -> tuple[str, ...]:
    """Distinct artist names; numbered once every pair of words is used."""
    pairs = [f"{first} {last}" for first in FIRST_NAMES for last in LAST_NAMES]
    order = rng.permutation(len(pairs))
    names = [pairs[order[index % len(pairs)]] for index in range(count)]
    return tuple(n if i < len(pairs) else f"{n} {i // len(pairs) + 1}" for i, n in enumerate(names))


def _people(rng: np.random.Generator, user_style: Floats) -> tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...]]:
    """Genders, ages and countries; age follows taste, country does for half of the users."""
    count = len(user_style)
    ages = user_style @ np.array([style.age for style in STYLES]) + rng.normal(0, 6, count)
    near = rng.random(count) < 0.5
    anywhere = rng.integers(0, len(COUNTRIES), count)
    country = np.where(near, user_style.argmax(axis=1) % len(COUNTRIES), anywhere)
    genders = rng.choice(["f", "m", ""], count, p=[0.45, 0.45, 0.1])
    return (
        tuple(str(gender) for gender in genders),
        tuple(int(age) for age in np.clip(ages, 14, 90)),
        tuple(COUNTRIES[int(index)] for index in country),
    )
