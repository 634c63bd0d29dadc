"""Simulated listeners, tracks, tags and clips that belong together: for trying things out, no evidence of quality."""

from msam.simulate.config import Shares, SimulationConfig, SimulationError
from msam.simulate.files import simulate
from msam.simulate.listening import listen
from msam.simulate.sound import clip
from msam.simulate.world import World, make_world

__all__ = ["Shares", "SimulationConfig", "SimulationError", "World", "clip", "listen", "make_world", "simulate"]
