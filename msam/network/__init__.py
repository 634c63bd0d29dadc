"""The MSAM network (Sec. 4): encoders, attention, prediction. Imports torch; the rest of `msam` imports this lazily."""

from msam.network.inputs import TrackContent, TrackInputs, UserInputs
from msam.network.model import MSAM
from msam.network.sides import Explanation, Hidden, TrackSide, UserSide

__all__ = ["MSAM", "Explanation", "Hidden", "TrackContent", "TrackInputs", "TrackSide", "UserInputs", "UserSide"]
