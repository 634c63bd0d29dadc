"""What a list depends on beside its user's window: the versions that every record names, in one place."""

from typing import NamedTuple

from streams.records import Item, Recommendation, Source


class Versions(NamedTuple):
    """The versions of one record; ordered as a replay goes through them: by model, then as its catalogue grows."""

    model: str
    catalogue: int
    counts: int
    profile: int

    @classmethod
    def of(cls, record: Recommendation) -> "Versions":
        """The versions that a record names."""
        return cls(record.model_version, record.catalogue_version, record.counts_version, record.profile_version)

    def record(self, user_id: str, items: tuple[Item, ...], source: Source) -> Recommendation:
        """The record of a list that was made with these versions."""
        return Recommendation(user_id, items, self.model, self.catalogue, self.counts, self.profile, source)
