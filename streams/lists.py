"""What a model call found, put into words or straight into bytes. On any thread, after the call."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msam.features.audio import AUDIO_GROUPS
from streams import avro
from streams.catalogue import Track
from streams.records import Item, Reasons, Recommendation
from streams.serialization import record_header


class Found(NamedTuple):
    """A `Ranking` as arrays: b indexes the windows, k their plays."""

    rows: NDArray[np.int64]  # [B, n] best first
    scores: NDArray[np.float32]  # [B, n]
    near: NDArray[np.int64]  # [B, n] the play that is nearest to the track
    gamma: NDArray[np.float32]  # [B, K, 3]
    beta: NDArray[np.float32]  # [B, K, G]
    alpha: NDArray[np.float32]  # [B, K, P]


class Known(NamedTuple):
    """The N tracks of a catalogue as it was when the call was made."""

    tracks: Sequence[Track]
    names: Sequence[bytes]  # ids as Avro strings
    artists: NDArray[np.int64]  # -1 for unknown
    silent: NDArray[np.bool_]  # never recommended
    trained: int  # the first of the tracks are those that the model was trained on


class Answers(NamedTuple):
    """One model call."""

    windows: NDArray[np.int64]  # [B, K] rows of tracks, -1 where there is no play
    found: Found
    known: Known


class _Why(NamedTuple):
    """What explains an item by one play of the window."""

    because: str
    gamma: tuple[float, float, float]
    group: str | None
    word: str | None


@dataclass(frozen=True, slots=True)
class Made:
    """The list of one window."""

    answers: Answers
    b: int

    def items(self) -> tuple[Item, ...]:
        """The list as records, best first."""
        whys: dict[int, _Why] = {}
        out = []
        for rank, (row, score, kind, k) in enumerate(self._places(), 1):
            if k is None:
                reasons = Reasons(kind)
            else:
                because, gamma, group, word = whys.get(k) or whys.setdefault(k, self._why(k))
                reasons = Reasons(kind, because, *gamma, group, word)
            out.append(Item(self.answers.known.tracks[row].track_id, score, rank, reasons))
        return tuple(out)

    def encode(self, blank: Recommendation) -> bytes:
        """Single-object Avro of `blank` with this list as its items: the bytes of `serialization.encode`.

        Twenty items with their reasons are most of what a play costs outside of the model, so they get no objects.
        """
        names, out = self.answers.known.names, [record_header("recommendation"), avro.string(blank.user_id)]
        whys: dict[int, bytes] = {}
        count = 0
        items: list[bytes] = []
        for count, (row, score, kind, k) in enumerate(self._places(), 1):
            why = _NO_WHY if k is None else whys.get(k) or whys.setdefault(k, _pack(self._why(k)))
            items += names[row], avro.double(score), avro.long(count), _KINDS[kind], why
        out.append(avro.block(count, b"".join(items)))
        source = blank.source
        out += avro.string(blank.model_version), avro.long(blank.catalogue_version), avro.long(blank.counts_version)
        out += avro.long(blank.profile_version), avro.string(source.topic), avro.long(source.partition)
        out += avro.long(source.offset), avro.double(source.played_at), avro.string(source.track_id)
        return b"".join(out)

    def _places(self) -> Iterator[tuple[int, float, str, int | None]]:
        """Row, score, kind and nearest play of each place."""
        (windows, found, catalogue), b = self.answers, self.b
        window = windows[b]
        known = set(window[window >= 0].tolist())
        artists = {artist for artist in catalogue.artists[sorted(known)].tolist() if artist >= 0}
        rows = found.rows[b]
        theirs = catalogue.artists[rows].tolist()
        for row, score, artist, k in zip(
            rows.tolist(), found.scores[b].tolist(), theirs, found.near[b].tolist(), strict=True
        ):
            if catalogue.silent[row] and not score > 0.0:
                return  # fewer tracks than places in the list
            if row in known:
                kind = "repeat"
            elif artist in artists:
                kind = "artist"
            else:
                kind = "similar" if row < catalogue.trained else "discovery"
            yield row, score, kind, k if known else None

    def _why(self, k: int) -> _Why:
        (windows, found, catalogue), b = self.answers, self.b
        play = catalogue.tracks[int(windows[b, k])]
        beta, alpha = found.beta[b, k], found.alpha[b, k]
        place = int(alpha.argmax())
        word = play.words[place] if alpha[place] > 0 and place < len(play.words) else None
        loudest = int(beta.argmax())
        group = AUDIO_GROUPS[loudest] if beta[loudest] > 0 else None
        audio, text, sequence = found.gamma[b, k].tolist()
        return _Why(play.track_id, (audio, text, sequence), group, word)


_KINDS = {kind: avro.string(kind) for kind in ("repeat", "artist", "similar", "discovery")}


def _pack(why: _Why) -> bytes:
    weights = b"".join(map(avro.double, why.gamma))
    return avro.optional(why.because) + weights + avro.optional(why.group) + avro.optional(why.word)


_NO_WHY = avro.NULL + 3 * avro.double(0.0) + avro.NULL + avro.NULL
