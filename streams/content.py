"""From catalogue tracks to what the network is given; the trainer and the workers share it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from msam.network.inputs import TrackContent
from msam.simf import SiMFState, warm_start
from streams.catalogue import Track


def contents(tracks: Sequence[Track], simf: SiMFState) -> list[TrackContent]:
    """Words, sound and SiMF factors of each track."""
    artists = simf.positions.get("artist", {})
    out = []
    for track in tracks:
        place = artists.get(track.artist_id or "")
        artist = None if place is None else simf.factors["artist"][place].astype(np.float32)
        out.append(TrackContent(track.word_vectors, track.word_fields, track.audio, factor(track, simf), artist))
    return out


def factor(track: Track, simf: SiMFState) -> NDArray[np.float32] | None:
    """SiMF factor of a track: fitted, else as published under this very SiMF, else warm-started from its relations."""
    places = simf.positions.get("track", {})
    place = places.get(track.track_id)
    if place is not None:
        fitted: NDArray[np.float32] = simf.factors["track"][place].astype(np.float32)
        return fitted
    if track.factor is not None and track.simf_version == simf.version:
        return track.factor
    links = track.links()
    return warm_start(simf, "track", [links])[0] if places and links else None
