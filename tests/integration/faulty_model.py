"""The command `msam` with a fault planted in the model: it fails on every window whose newest track is FAULT."""

from collections.abc import Sequence
from typing import Any

from streams import cli
from streams.recommender import Query, Recommender

FAULT = "planted-fault"
_prepare = Recommender.prepare


def prepare(self: Recommender, queries: Sequence[Query], *rest: Any, **named: Any) -> Any:
    """As the model does, or an exception such as a library throws."""
    if any(query.tracks and query.tracks[-1] == FAULT for query in queries):
        raise IndexError("index out of range in self")
    return _prepare(self, queries, *rest, **named)


if __name__ == "__main__":
    Recommender.prepare = prepare  # type: ignore[method-assign]
    cli.main()
