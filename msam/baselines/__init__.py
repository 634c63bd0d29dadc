"""Every system of the table by name; a module is imported when its system is asked for."""

from __future__ import annotations

from importlib import import_module

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
}
"""Name -> module:class, in the order of the table."""


ABLATIONS = ("msam+content-rows", "msam+copy-head", "msam+wide-head")
"""The published model with one extension; run only when asked for."""


def system(name: str) -> type[Recommender]:
    """The class of a system; BaselineError lists the names there are."""
    if name not in SYSTEMS:
        raise BaselineError(f"no system {name!r}; there are {', '.join(SYSTEMS)}")
    module, _, cls = SYSTEMS[name].partition(":")
    found: type[Recommender] = getattr(import_module(f"{__name__}.{module}"), cls)
    return found
