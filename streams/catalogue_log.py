"""The catalogue that `track-features` holds, read once: as it stands at the end, or as it stood at a version."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from streams import topics
from streams.catalogue import Catalogue
from streams.log_reader import key_of, read_to_end
from streams.records import TrackFeature
from streams.serialization import decode


class Change(NamedTuple):
    """One record of `track-features`; `feature` None for a tombstone."""

    key: str
    feature: TrackFeature | None
    offset: int


def read_changes(config: Mapping[str, str], version: int | None = None) -> list[Change]:
    """Every record of the topic as it stands, up to a version (the next offset) or the end."""
    found = []
    stop = None if version is None else {0: version}
    for message in read_to_end(config, topics.TRACK_FEATURES, stop=stop):
        key, value, offset = key_of(message), message.value(), message.offset()
        if key is not None and offset is not None:
            found.append(Change(key.decode(), None if value is None else decode(TrackFeature, value), offset))
    return found


def read_catalogue(config: Mapping[str, str]) -> Catalogue:
    """Every track as it stands at the end of the topic."""
    catalogue = Catalogue()
    CatalogueTape(catalogue, read_changes(config)).forward(None)
    return catalogue


class CatalogueTape:
    """Folds changes into a catalogue, as far as asked for.

    An old version is exact as long as compaction has not yet taken away records that it held.
    """

    def __init__(self, catalogue: Catalogue, changes: Sequence[Change]) -> None:
        self.catalogue = catalogue
        self._changes = changes
        self._position = 0

    def forward(self, version: int | None) -> None:
        """Go on to a version, or to the end; a catalogue never goes back."""
        while self._position < len(self._changes):
            change = self._changes[self._position]
            if version is not None and change.offset >= version:
                return
            self.catalogue.fold(change.key, change.feature, change.offset)
            self._position += 1
