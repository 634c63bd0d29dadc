"""What can be set about a simulation."""

from dataclasses import dataclass, field, fields
from typing import Self

from msam.errors import MethodError


class SimulationError(MethodError):
    """A simulation cannot be made as asked."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Parts of the variance of a listener's liking, each at least 0, together 1.

    audio: sound against the listener's taste in sound; text: tags and title; artist: favourites; time: likeness to the
    last plays; popularity: what everybody likes.
    """

    audio: float = 0.3
    text: float = 0.25
    artist: float = 0.2
    time: float = 0.15
    popularity: float = 0.1

    def __post_init__(self) -> None:
        values = [getattr(self, part.name) for part in fields(self)]
        if min(values) < 0 or abs(sum(values) - 1) > 1e-6:
            raise SimulationError(f"shares must be at least 0 and add up to 1, not {values}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Shares as `audio=0.6,time=0.4`; those that are not named are 0.

        >>> Shares.parse("audio=0.6, time=0.4").audio
        0.6
        """
        shares = dict.fromkeys((part.name for part in fields(cls)), 0.0)
        for part in text.split(","):
            name, _, value = part.partition("=")
            try:
                shares = {**shares, name.strip(): float(value)}
            except ValueError as error:
                raise SimulationError(f"{part!r} is not a share; say audio=0.6") from error
        if unknown := set(shares) - {part.name for part in fields(cls)}:
            raise SimulationError(f"no share is called {', '.join(sorted(unknown))}")
        return cls(**shares)


@dataclass(frozen=True, slots=True)
class SimulationConfig:
    """Sizes, seed and the truth behind the plays.

    `sharpness`: how much liking decides (0 = chance); `repeat`: probability that a play comes from the listener's own
    last plays; `new`: share of tracks released during the plays; `days`: span of the plays; `heed`: every listener
    heeds one group of audio descriptors alone, another one each, so that it pays to attend to it and to no other (all
    tracks are rendered, as their sound decides what is played); `apart`: sound and words tell nothing of each other (by
    default a track sounds like its styles, and its tags say how it sounds); `coherence`: how much of a track's style is
    its artist's (0: to know the artist tells nothing of the style);
    `once`: nobody plays a track again but by `repeat`, so that a favourite of the past says nothing.
    """

    users: int = 40
    tracks: int = 300
    plays: int = 6000
    seed: int = 0
    clips: int = 120
    clip_seconds: float = 4.0
    shares: Shares = field(default_factory=Shares)
    sharpness: float = 2.5
    repeat: float = 0.25
    new: float = 0.1
    days: float = 120.0
    heed: bool = False
    apart: bool = False
    once: bool = False
    coherence: float = 0.75

    def __post_init__(self) -> None:
        for name, least in (("users", 1), ("tracks", 2), ("plays", 1), ("clips", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise SimulationError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.plays < self.users:
            raise SimulationError(
                f"{self.plays} plays are too few for {self.users} users: everyone plays at least once"
            )
        if self.clips > self.tracks:
            raise SimulationError(f"{self.clips} clips are more than the {self.tracks} tracks")
        if not 1 <= self.clip_seconds <= 60:
            raise SimulationError(f"a clip lasts 1 to 60 seconds, not {self.clip_seconds:g}")
        if not 0 <= self.coherence <= 1:
            raise SimulationError(f"coherence must be in [0, 1], not {self.coherence:g}")
        if not (0 <= self.repeat < 1 and 0 <= self.new <= 0.5 and self.days > 0 and self.sharpness >= 0):
            raise SimulationError("repeat must be in [0, 1), new in [0, 0.5], days above 0 and sharpness at least 0")
