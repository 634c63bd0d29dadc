"""Moving a channel: the version that is aimed at is verified as a worker would, then it is announced."""

from collections.abc import Callable, Mapping, Sequence

from streams.catalogue_log import read_catalogue
from streams.channels import Decide, Versions, announce, known
from streams.errors import MsamError
from streams.model_log import read_models
from streams.records import ModelVersion
from streams.served import load_model

Aim = Callable[[Versions, Versions], str]


class ChannelMoved(MsamError):
    """What was to be announced was decided on a state that is over."""


def move(config: Mapping[str, str], channel: str, aim: Aim, decide: Decide) -> tuple[str | None, ModelVersion]:
    """Announce what `decide` makes of the state of that moment, the record of the channel last.

    Returns the version that the channel pointed to before, and its new record. ModelRefused where the version that is
    aimed at is not fit to be served, ChannelMoved where the decision is for another one by then.
    """
    versions, at = read_models(config)
    decide(versions, at)
    target = aim(versions, at)
    load_model(known(target, versions), read_catalogue(config), wait=0)

    def checked(versions: Versions, at: Versions) -> Sequence[ModelVersion]:
        records = decide(versions, at)
        if records[-1].version != target:
            raise ChannelMoved(f"{channel} was moved meanwhile, by a trainer or another operator; look again")
        return records

    before = at.get(channel)
    *_, record = announce(config, checked)
    return None if before is None else before.version, record
