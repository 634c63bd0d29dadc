"""What `model-versions` holds, read once."""

from collections.abc import Mapping

from streams import topics
from streams.log_reader import read_to_end
from streams.records import ModelVersion
from streams.serialization import decode


def read_versions(config: Mapping[str, str]) -> tuple[list[ModelVersion], dict[str, str]]:
    """Versions in the order of their announcement, and the version each channel points to."""
    versions: dict[str, ModelVersion] = {}
    channels: dict[str, str] = {}
    for message in read_to_end(config, topics.MODEL_VERSIONS):
        value = message.value()
        if value is None:
            continue
        record = decode(ModelVersion, value)
        if record.channel is None:
            versions[record.version] = record
        else:
            channels[record.channel] = record.version
    return list(versions.values()), channels
