"""What `model-versions` holds, read once."""

from collections.abc import Mapping

from streams import topics
from streams.log_reader import read_to_end
from streams.records import ModelVersion
from streams.serialization import decode


def read_versions(config: Mapping[str, str]) -> tuple[list[ModelVersion], dict[str, str]]:
    """Versions in the order of their announcement, and the version each channel points to."""
    versions, channels = read_models(config)
    return list(versions.values()), {name: record.version for name, record in channels.items()}


def read_models(config: Mapping[str, str]) -> tuple[dict[str, ModelVersion], dict[str, ModelVersion]]:
    """Versions by name in the order of their announcement, and the record of each channel.

    The `parent` of a channel's record is the version that the channel pointed to before.
    """
    versions: dict[str, ModelVersion] = {}
    channels: dict[str, ModelVersion] = {}
    for message in read_to_end(config, topics.MODEL_VERSIONS):
        value = message.value()
        if value is None:
            continue
        record = decode(ModelVersion, value)
        if record.channel is None:
            versions[record.version] = record
        else:
            channels[record.channel] = record
    return versions, channels
