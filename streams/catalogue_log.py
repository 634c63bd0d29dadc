"""The catalogue that `track-features` holds, read once."""

from collections.abc import Mapping

from streams import topics
from streams.catalogue import Catalogue
from streams.log_reader import key_of, read_to_end
from streams.records import TrackFeature
from streams.serialization import decode


def read_catalogue(config: Mapping[str, str]) -> Catalogue:
    """Every track as it stands at the end of the topic."""
    catalogue = Catalogue()
    for message in read_to_end(config, topics.TRACK_FEATURES):
        key, value, offset = key_of(message), message.value(), message.offset()
        if key is not None and offset is not None:
            catalogue.fold(key.decode(), None if value is None else decode(TrackFeature, value), offset)
    return catalogue
