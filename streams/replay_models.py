"""Lists under any model and any version of the catalogue, for replays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streams.catalogue import Catalogue
from streams.catalogue_log import CatalogueTape, Change
from streams.errors import NotReady
from streams.recommender import Query, Recommender
from streams.records import Item, ModelVersion
from streams.served import load_model

_KEPT = 3  # recommenders in memory


@dataclass(slots=True)
class _Stand:
    """A model and the version of the catalogue that it stands at."""

    tape: CatalogueTape
    recommender: Recommender
    version: int


class PinnedModels:
    """Makes lists with the versions that it is told; cheapest when a model's catalogue versions do not go back."""

    def __init__(
        self, changes: Sequence[Change], versions: Mapping[str, ModelVersion], size: int, half: bool = False
    ) -> None:
        self._changes = changes
        self._versions = versions
        self._size, self._half = size, half
        self._stands: dict[str, _Stand] = {}

    def lists(self, model: str, catalogue: int, queries: Sequence[Query]) -> tuple[int, list[tuple[Item, ...]]]:
        """The version of everyone's counts, and a list for each query; NotReady for a model that is not known."""
        stand = self._stands.pop(model, None)
        if stand is None or stand.version > catalogue:
            stand = self._load(model, catalogue)
        elif stand.version < catalogue:
            stand.tape.forward(catalogue)
            stand.recommender.sync()
            stand.version = catalogue
        self._stands[model] = stand  # the last used is the last
        if len(self._stands) > _KEPT:
            del self._stands[next(iter(self._stands))]
        return stand.recommender.counts_version, stand.recommender.recommend(queries, self._size)

    def _load(self, model: str, catalogue: int) -> _Stand:
        record = self._versions.get(model)
        if record is None:
            raise NotReady(f"model {model} is not in model-versions; `msam models list` shows what there is")
        tape = CatalogueTape(Catalogue(), self._changes)
        tape.forward(catalogue)
        # A catalogue is named by the offset after it, which a commit marker may hold: the version asked for counts.
        tape.catalogue.version = catalogue
        return _Stand(tape, load_model(record, tape.catalogue, wait=0, n=self._size, half=self._half), catalogue)
