"""Every system of the table by name; a module is imported when its system is asked for."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from msam.baselines.contract import BaselineError, Recommender

SYSTEMS = {
    "vlhm": "vlhm:VLHM",
    "dlan": "dlan:DLAN",
    "rscn": "rscn:RSCN",
    "mcum": "mcum:MCUM",
    "blcr": "blcr:BLCR",
    "msam": "msam:MSAMPublished",
    "msam-extended": "msam:MSAMExtended",
    "msam+content-rows": "msam:WithContentRows",
    "msam+simf-rows": "msam:WithSiMFRows",
    "msam+tied-rows": "msam:WithTiedRows",
    "msam+group-attention": "msam:WithGroupAttention",
    "msam+cold-share": "msam:WithColdShare",
    "msam+copy-head": "msam:WithCopyHead",
    "msam+wide-head": "msam:WithWideHead",
    "popularity": "popularity:Popularity",
    "personal-popularity": "popularity:PersonalPopularity",
    "newest-first": "newest_first:NewestFirst",
    "markov": "markov:Markov",
    "mix": "online:OnlineMix",
    "blend": "online:OnlineBlend",
    "vsknn": "vsknn:VSKNN",
    "stan": "stan:STAN",
    "vstan": "vstan:VSTAN",
    "gru4rec": "cornac_peers:GRU4Rec",
    "sasrec": "cornac_peers:SASRec",
}
"""Name -> module:class, in the order of the table."""


ABLATIONS = (
    "msam+content-rows",
    "msam+simf-rows",
    "msam+tied-rows",
    "msam+group-attention",
    "msam+cold-share",
    "msam+copy-head",
    "msam+wide-head",
)
"""The published model with one extension; run only when asked for."""


PEERS = ("gru4rec", "sasrec")
"""Systems of the library cornac, which the extra `peers` brings."""


def able(name: str) -> bool:
    """Whether the library of a system is installed."""
    return name not in PEERS or find_spec("cornac") is not None


def system(name: str) -> type[Recommender]:
    """The class of a system; BaselineError lists the names there are, or says what to install."""
    if name not in SYSTEMS:
        raise BaselineError(f"no system {name!r}; there are {', '.join(SYSTEMS)}")
    if not able(name):
        raise BaselineError(f"{name} needs the library cornac: pip install 'msam[peers]'")
    module, _, cls = SYSTEMS[name].partition(":")
    found: type[Recommender] = getattr(import_module(f"{__name__}.{module}"), cls)
    return found
