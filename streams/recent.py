"""A dictionary that forgets what was put longest ago."""

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The last `limit` values put, by key.

    What is not yet stored elsewhere must be among the last: `limit` is far above the plays that can be in flight.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        """The value put last under `key`, None if it is forgotten."""
        return self._values.get(key)

    def put(self, key: K, value: V) -> V:
        """Remember a value as the newest."""
        self._values.pop(key, None)
        self._values[key] = value
        if len(self._values) > self._limit:
            del self._values[next(iter(self._values))]
        return value
