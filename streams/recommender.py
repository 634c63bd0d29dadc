"""One model over one catalogue: windows in, ranked lists with reasons out. Pure logic, no Kafka.

Model calls have few shapes (`WINDOW_BATCH` windows or some fewer that give the same bits, `TRACK_BATCH` tracks), so a
list does not depend on what else was in its batch. A call has two halves, so that one batch can be gathered while
another is ranked: `ask`, on any one thread, and `answer`, on any other. `sync` must not run while something that was
asked is still to be answered.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msam.checkpoint import Checkpoint
from msam.counts import NO_PLAYS, Plays, keys_of
from msam.network.inference import WINDOW_BATCH, encode_catalogue, encode_tracks, encode_users, stack_windows
from msam.network.inputs import TrackInputs, UserInputs
from msam.network.precision import half_recurrent
from msam.network.ranked import Call, Inputs, eager, traced
from msam.network.sides import TrackSide, UserSide
from msam.network.wide import WideInputs
from msam.simf import SiMFState
from streams import avro
from streams.catalogue import Catalogue, Track
from streams.content import contents
from streams.counted import COUNTS, Counted
from streams.errors import MsamError
from streams.lists import Answers, Found, Known, Made
from streams.records import Item

log = logging.getLogger(__name__)
_ROOM = 1024  # the table of tracks grows by this many rows
_STEP = 1024  # tracks that are encoded without a pause
_SMALL = (8, 16)  # shapes for small batches, used where they give the bits of the full one on this machine
_WORDS_KEPT = 4096  # encoded profiles that are remembered


class ModelError(MsamError):
    """A model's answer is not usable."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A model call with all that it needs."""

    inputs: Inputs
    count: int  # of its windows that are queries


@dataclass(frozen=True, slots=True)
class Query:
    """One list to be made: the tracks of the window (oldest first), the profile's words, and all plays that count."""

    tracks: tuple[str, ...]
    profile: tuple[str, ...] = ()
    profile_vectors: NDArray[np.float16] | None = None
    plays: Plays = NO_PLAYS  # for the wide head


class Recommender:
    """Lists of one model version; follows the catalogue as it changes."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        simf: SiMFState,
        catalogue: Catalogue,
        n: int = 20,
        half: bool = False,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        """n: items of a list; half: LSTMs in bfloat16; pause: called after every step of the work."""
        self.version = checkpoint.version
        self.model = checkpoint.model
        self.simf = simf
        self.catalogue_version = 0
        self.trained = len(checkpoint.track_ids)
        self.ids: list[str] = list(checkpoint.track_ids)
        self.index: dict[str, int] = {track_id: row for row, track_id in enumerate(self.ids)}
        self._counted: Counted | None = None
        if self.model.wide_head is not None:
            arrays = {n.removeprefix(COUNTS): array for n, array in checkpoint.arrays.items() if n.startswith(COUNTS)}
            self._counted = Counted(self.model.config.counts, arrays, self.ids)
        self._catalogue = catalogue
        self._position = 0
        self._names: list[bytes] = [avro.string(track_id) for track_id in self.ids]
        self._tracks: list[Track] = [Track(track_id) for track_id in self.ids]
        self._artists: dict[str, int] = {}
        self._profiles: dict[tuple[str, ...], int] = {}
        width = -(-max(self.trained, len(catalogue.tracks), 1) // _ROOM) * _ROOM  # each growth would trace anew
        self._artist = np.full(width, -1, dtype=np.int64)
        self._mask = torch.full((width,), -torch.inf)
        self._silent = np.ones(width, dtype=np.bool_)
        self._side: TrackSide = encode_tracks(self.model, self._inputs([Track("")])).head(0).grown(width)
        self._rows = torch.zeros(width, self.model.row_width)
        self._units = torch.zeros_like(self._rows)
        self._users = self._nobody()
        self._place(self._tracks, list(range(self.trained)), pause)
        self._n = n
        self._fast = half_recurrent(self.model) if half else self.model
        self._calls: dict[int, Call] = {}
        self._gathering = threading.Lock()
        self._compile(pause)

    @property
    def behind(self) -> bool:
        """Whether the catalogue has changed since `sync`."""
        catalogue = self._catalogue
        return catalogue.behind(self._position) > 0 or catalogue.version != self.catalogue_version

    @property
    def counts_version(self) -> int:
        """How many plays everyone's counts know, 0 for a model without a wide head."""
        return 0 if self._counted is None else self._counted.version

    # -- the catalogue ----------------------------------------------------------------------------------------

    def sync(self, limit: int | None = None) -> int:
        """Take in changed tracks, at most `limit`; returns how many changes are still to come."""
        tracks, position, version = self._catalogue.since(self._position, limit)
        if tracks:
            for track in tracks:
                if track.track_id not in self.index:
                    self.index[track.track_id] = len(self.ids)
                    self.ids.append(track.track_id)
                    self._names.append(avro.string(track.track_id))
                    self._tracks.append(track)
            self._grow(len(self.ids))
            self._place(tracks, [self.index[track.track_id] for track in tracks])
            if self._counted is not None:
                self._counted.take(tracks)
        self._position, self.catalogue_version = position, version
        return self._catalogue.behind(position)

    def _grow(self, size: int) -> None:
        old = len(self._side)
        if size <= old:
            return
        width = -(-size // _ROOM) * _ROOM
        extra = width - old
        self._side = self._side.grown(width)
        self._rows = torch.cat([self._rows, self._rows.new_zeros(extra, self._rows.shape[1])])
        self._units = torch.cat([self._units, self._units.new_zeros(extra, self._units.shape[1])])
        self._mask = torch.cat([self._mask, torch.full((extra,), -torch.inf)])
        self._artist = np.concatenate([self._artist, np.full(extra, -1, dtype=np.int64)])
        self._silent = np.concatenate([self._silent, np.ones(extra, dtype=np.bool_)])
        self._compile()

    @torch.inference_mode()
    def _place(self, tracks: Sequence[Track], rows: Sequence[int], pause: Callable[[], None] = lambda: None) -> None:
        """Encode the tracks and write them to their rows."""
        for start in range(0, len(tracks), _STEP):
            some, where = tracks[start : start + _STEP], torch.tensor(rows[start : start + _STEP])
            known = torch.where(where < self.trained, where, -1)
            side, made, offsets = encode_catalogue(self.model, self._inputs(some), known)
            self._side.scatter(where, side)
            self._mask.index_copy_(0, where, offsets)
            self._rows.index_copy_(0, where, made)
            self._units.index_copy_(0, where, torch.nn.functional.normalize(made, dim=1))
            pause()
        # Lists are put into words later, on other threads: they keep the catalogue that they were made with.
        self._tracks, self._artist, self._silent = [*self._tracks], self._artist.copy(), self._silent.copy()
        for track, row in zip(tracks, rows, strict=True):
            self._tracks[row] = track
            artist = track.artist_id
            self._artist[row] = -1 if artist is None else self._artists.setdefault(artist, len(self._artists))
            if track.withdrawn:
                self._mask[row] = -torch.inf
            self._silent[row] = track.withdrawn

    def _inputs(self, tracks: Sequence[Track]) -> TrackInputs:
        return TrackInputs.build(contents(tracks, self.simf), self.model.config)

    def _compile(self, pause: Callable[[], None] = lambda: None) -> None:
        """Trace the model call in every batch shape, and keep the shapes that may stand for one another here.

        Matrix products of other shapes may sum in another order, by library and CPU, and a trace may miss a branch. So
        each is tried on windows of every length, with candidates, against the plain call; one with a different bit is
        not used.
        """
        rows, size = max(len(self.ids), 1), self.model.config.window
        windows = [[(b * 7 + j * 3) % rows for j in range(b % (size + 1))] for b in range(WINDOW_BATCH)]
        keys = keys_of(self.ids) if self.ids else np.ones(1, np.int64)
        queries = [Query((), plays=Plays(keys[window], np.arange(len(window), dtype=np.float64))) for window in windows]
        plain = eager(self._fast, self._n)
        whole = plain(self._inputs_of(stack_windows(windows, size, WINDOW_BATCH), queries))
        self._calls = {}
        pause()
        for shape in (*_SMALL, WINDOW_BATCH):
            parts = [
                self._inputs_of(stack_windows(windows[at : at + shape], size, shape), queries[at : at + shape])
                for at in range(0, WINDOW_BATCH, shape)
            ]
            call = traced(self._fast, self._n, parts[0])
            answers = [torch.cat(field) for field in zip(*map(call, parts), strict=True)]
            if all(torch.equal(one, other) for one, other in zip(answers, whole, strict=True)):
                self._calls[shape] = call
            pause()
        self._calls.setdefault(WINDOW_BATCH, plain)
        moved = plain(
            self._inputs_of(stack_windows([*windows[1:], windows[0]], size, WINDOW_BATCH), [*queries[1:], queries[0]])
        )
        if not all(torch.equal(one, other.roll(-1, 0)) for one, other in zip(moved, whole, strict=True)):
            log.warning(
                "model %s: sizes so small that the place in a batch can change a last bit: no exact replays",
                self.version,
            )
        log.info("model %s: batch shapes %s", self.version, sorted(self._calls))

    def _inputs_of(self, window: Tensor, queries: Sequence[Query]) -> Inputs:
        if len(self._profiles) + len(queries) > _WORDS_KEPT:
            self._profiles.clear()
            self._users = self._nobody()  # the one before may still be ranked with
        user = np.zeros(len(window), dtype=np.int64)
        user[: len(queries)] = [self._profile(query) for query in queries]
        wide = self._candidates(queries, len(window))
        who = torch.from_numpy(user)
        return Inputs(window, who, self._rows, self._units, self._mask, self._side, self._users, wide)

    def _candidates(self, queries: Sequence[Query], size: int) -> WideInputs | None:
        if self._counted is None:
            return None
        nobody = [NO_PLAYS] * (size - len(queries))
        return self._counted.candidates([*(query.plays for query in queries), *nobody])

    # -- lists ------------------------------------------------------------------------------------------------

    def recommend(self, queries: Sequence[Query], n: int) -> list[tuple[Item, ...]]:
        """The top n of every query, best first, with scores p = softmax(U h*) and reasons."""
        return [made.items() for made in self.prepare(queries, n)]

    def prepare(self, queries: Sequence[Query], n: int) -> list[Made]:
        """`recommend`, the model's part done: each list is put into words or bytes later, on any thread."""
        return [made for asked in self.ask(queries) for made in self.answer(asked, n)]

    def ask(self, queries: Sequence[Query]) -> list[Asked]:
        """The calls that answer the queries, in their order."""
        parts = (queries[start : start + WINDOW_BATCH] for start in range(0, len(queries), WINDOW_BATCH))
        return [self._ask(part) for part in parts]

    def _ask(self, queries: Sequence[Query]) -> Asked:
        size = self.model.config.window
        windows = [[row for t in query.tracks if (row := self.index.get(t)) is not None][-size:] for query in queries]
        shape = next(shape for shape in sorted(self._calls) if shape >= len(queries))
        with self._gathering:  # what candidates are gathered in is used for every play
            return Asked(self._inputs_of(stack_windows(windows, size, shape), queries), len(queries))

    def answer(self, asked: Asked, n: int) -> list[Made]:
        """The top n of each of its queries."""
        window = asked.inputs.window
        call = self._calls[len(window)] if n == self._n else eager(self._fast, min(n, len(self._side)))
        found = call(asked.inputs)
        # From here on only numpy: every torch operation lets go of Python's lock and may wait for it again.
        answers = Answers(
            window.numpy(),
            Found(*(tensor.numpy() for tensor in found)),
            Known(self._tracks, self._names, self._artist, self._silent, self.trained),
        )
        if np.isnan(answers.found.scores).any() and not self._silent.all():
            raise ModelError(f"model {self.version}: the scores are not numbers")
        return [Made(answers, b) for b in range(asked.count)]

    def _nobody(self) -> UserSide:
        """A table of users without profiles, of whom the first stays one."""
        nobody = encode_users(self.model, UserInputs.build([None], self.model.config))
        return nobody.select(torch.zeros(1 + _WORDS_KEPT, dtype=torch.int64))

    def _profile(self, query: Query) -> int:
        """The query's row in the table of users."""
        if query.profile_vectors is None or not query.profile:
            return 0
        row = self._profiles.get(query.profile)
        if row is None:
            side = encode_users(self.model, UserInputs.build([query.profile_vectors], self.model.config))
            row = self._profiles[query.profile] = 1 + len(self._profiles)
            self._users.put(row, side)
        return row
