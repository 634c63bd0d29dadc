"""The command `msam` with a fault planted in the model: it fails on every window whose newest track is FAULT."""

from collections.abc import Sequence

from streams import cli
from streams.recommender import Asked, Query, Recommender

FAULT = "planted-fault"
_ask = Recommender.ask


def ask(self: Recommender, queries: Sequence[Query]) -> list[Asked]:
    """As the model does, or an exception such as a library throws."""
    if any(query.tracks and query.tracks[-1] == FAULT for query in queries):
        raise IndexError("index out of range in self")
    return _ask(self, queries)


if __name__ == "__main__":
    Recommender.ask = ask  # type: ignore[method-assign]
    cli.main()
