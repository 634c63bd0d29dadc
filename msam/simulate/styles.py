"""Styles: what each sounds like, and its words."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Style:
    """A style's middle: beats a minute, and from 0 to 1 brightness, level, drums and share of minor keys; its words."""

    name: str
    tempo: float
    brightness: float
    level: float
    drums: float
    minor: float
    age: float
    tags: tuple[str, ...]
    words: tuple[str, ...]


STYLES = (
    Style("techno", 132, 0.75, 0.90, 0.95, 0.7, 28, ("electronic", "club", "hypnotic"),
          ("Pulse", "Neon", "Circuit", "Machine", "Strobe", "Voltage", "Warehouse", "Signal", "Grid", "Vector")),
    Style("ambient", 66, 0.20, 0.20, 0.02, 0.5, 38, ("atmospheric", "drone", "sleep"),
          ("Mist", "Drift", "Horizon", "Glacier", "Stillness", "Vapour", "Orbit", "Tide", "Haze", "Lull")),
    Style("folk", 96, 0.45, 0.40, 0.15, 0.3, 45, ("acoustic", "singer-songwriter", "storytelling"),
          ("River", "Harvest", "Lantern", "Meadow", "Cabin", "Fiddle", "Orchard", "Homeward", "Willow", "Hearth")),
    Style("jazz", 112, 0.50, 0.45, 0.45, 0.5, 52, ("instrumental", "improvisation", "late night"),
          ("Blue", "Midnight", "Swing", "Velvet", "Smoke", "Avenue", "Brass", "Stride", "Waltz", "Cellar")),
    Style("metal", 160, 0.95, 1.00, 0.90, 0.9, 31, ("heavy", "aggressive", "guitar"),
          ("Iron", "Wrath", "Thunder", "Ashes", "Hammer", "Inferno", "Skull", "Fury", "Blade", "Ruin")),
    Style("hip hop", 90, 0.55, 0.80, 0.80, 0.6, 25, ("rap", "beats", "urban"),
          ("Hustle", "Block", "Crown", "Rhyme", "Corner", "Cipher", "Gold", "Streetlight", "Mic", "Bounce")),
    Style("classical", 78, 0.35, 0.30, 0.00, 0.4, 58, ("orchestral", "strings", "composer"),
          ("Sonata", "Nocturne", "Prelude", "Adagio", "Elegy", "Fugue", "Aria", "Rondo", "Cantata", "Serenade")),
    Style("pop", 120, 0.65, 0.75, 0.65, 0.2, 22, ("catchy", "dance", "radio"),
          ("Heartbeat", "Summer", "Kiss", "Sparkle", "Tonight", "Sugar", "Forever", "Dancing", "Crush", "Glitter")),
)  # fmt: skip

FIRST_NAMES = (
    "Silver", "Hollow", "Golden", "Quiet", "Broken", "Electric", "Paper", "Northern", "Crimson", "Lost", "Wild",
    "Glass", "Hidden", "Distant", "Little", "Grand", "Secret", "Burning", "Frozen", "Wandering",
)  # fmt: skip
LAST_NAMES = (
    "Foxes", "Harbour", "Parade", "Engines", "Choir", "Sisters", "Atlas", "Gardens", "Wolves", "Assembly", "Mirrors",
    "Union", "Pilots", "Shadows", "Company", "Birds", "Rooms", "Kingdom", "Letters", "Society",
)  # fmt: skip
LINKS = ("of", "in the", "after", "without", "and", "beyond")
COUNTRIES = ("Germany", "Brazil", "Japan", "United States", "Poland", "France", "Nigeria", "Finland")
