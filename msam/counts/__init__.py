"""Counts that every play updates: own histories, what everyone's plays tell, and candidates with features from both."""

from msam.config import CountsConfig
from msam.counts.candidates import FEATURES, CandidateMaker, Candidates
from msam.counts.discography import Discography
from msam.counts.history import NO_PLAYS, Plays, UserHistory
from msam.counts.keys import ABSENT, KeyIndex, key_of, keys_of, optional_keys
from msam.counts.shared import SharedCounts

__all__ = [
    "ABSENT",
    "FEATURES",
    "NO_PLAYS",
    "CandidateMaker",
    "Candidates",
    "CountsConfig",
    "Discography",
    "KeyIndex",
    "Plays",
    "SharedCounts",
    "UserHistory",
    "key_of",
    "keys_of",
    "optional_keys",
]
