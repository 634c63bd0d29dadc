"""Which model is served: follows `model-versions`, loads and verifies beside the stream, hands over when ready."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from urllib.parse import unquote, urlparse

from msam import checkpoint
from msam.errors import MethodError
from msam.simf import SiMFState
from streams.catalogue import Catalogue
from streams.errors import MsamError
from streams.recommender import Recommender
from streams.records import ModelVersion

log = logging.getLogger(__name__)
_FALLBACKS = 3  # earlier versions that a worker without a model tries, when the newest is refused
_REST = 3.0  # times the work
SIMF = "simf."  # prefix of SiMF's arrays within an artifact


class ModelRefused(MsamError):
    """A model version is not fit to be served; the old one stays."""


def artifact_path(uri: str) -> Path:
    """The directory that an artifact's URI names."""
    parsed = urlparse(uri)
    if parsed.scheme not in ("", "file"):
        raise ModelRefused(f"{uri}: only file:// artifacts can be loaded; mount the model store")
    return Path(unquote(parsed.path))


class Rests:
    """Called between the steps of some work, it rests for three times the processor time that the last step took.

    What is served meanwhile finds the processor, and Python's lock, free for most of the time.
    """

    def __init__(self) -> None:
        self._spent = time.thread_time()

    def __call__(self) -> None:
        """Rest on the thread that works."""
        time.sleep(_REST * (time.thread_time() - self._spent))
        self._spent = time.thread_time()


def load_model(
    record: ModelVersion,
    catalogue: Catalogue,
    wait: float = 60.0,
    n: int = 20,
    half: bool = False,
    pause: Callable[[], None] = lambda: None,
) -> Recommender:
    """Load, verify and warm up one version; ModelRefused says what is wrong with it.

    Waits until the catalogue holds what the model was trained on, so that its rows find their features. `pause` is
    called after every step of the work.
    """
    if record.uri is None or record.sha256 is None:
        raise ModelRefused(f"model {record.version}: the announcement names no artifact and sha256")
    try:
        loaded = checkpoint.load(artifact_path(record.uri), verify=True)
        pause()
        found = loaded.manifest["weights"]["sha256"]
        if found != record.sha256:
            raise ModelRefused(f"model {record.version}: sha256 is {found}, announced was {record.sha256}")
        needed = int(loaded.extra.get("catalogue_version", 0))
        deadline = time.monotonic() + wait
        while catalogue.version < needed and time.monotonic() < deadline:
            time.sleep(0.05)
        if catalogue.version < needed:
            raise ModelRefused(f"model {record.version} needs catalogue {needed}, this worker has {catalogue.version}")
        simf = SiMFState.from_arrays(
            {name.removeprefix(SIMF): a for name, a in loaded.arrays.items() if name.startswith(SIMF)}
        )
        if catalogue.tracks and not any(track in catalogue.tracks for track in loaded.track_ids):
            raise ModelRefused(
                f"model {record.version}: none of its tracks is in this catalogue; is it of another system?"
            )
        recommender = Recommender(loaded, simf, catalogue, n, half, pause)
        while recommender.sync(1024):
            pause()
        return recommender
    except (MethodError, OSError, ValueError, KeyError) as error:
        raise ModelRefused(f"model {record.version}: {error}") from error


class ModelWatch:
    """Keeps the newest good model of a channel; `take` gives it to the thread that serves, between two batches."""

    def __init__(
        self,
        catalogue: Catalogue,
        channel: str = "live",
        n: int = 20,
        half: bool = False,
        refused: Callable[[ModelRefused], None] = lambda error: None,
    ) -> None:
        self.versions: dict[str, ModelVersion] = {}
        self.wanted: str | None = None
        self.serving: str | None = None
        self.problem: str | None = None  # why what the channel points to is not served
        self._before: str | None = None  # what the channel pointed to before
        self._channel = channel
        self._n, self._half = n, half
        self._catalogue = catalogue
        self._refused = refused
        self._next: Recommender | None = None
        self._simf: SiMFState | None = None
        self._orders: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="models", daemon=True)
        self._thread.start()

    def on_record(self, key: bytes, value: ModelVersion | None) -> None:
        """Take in one record of `model-versions`."""
        if value is None:
            self.versions.pop(key.decode().partition("/")[2], None)
        elif value.channel is None:
            self.versions[value.version] = value
        elif value.channel == self._channel and value.version != self.wanted:
            self.wanted, self._before = value.version, value.parent
            self._orders.put(value.version)

    @property
    def available(self) -> bool:
        """Whether there is something to serve."""
        return self.serving is not None or self._next is not None

    @property
    def loading(self) -> bool:
        """Whether the first model is on its way."""
        return self.wanted is not None and not self.available and self.problem is None

    @property
    def waiting(self) -> bool:
        """Whether there is a model to go over to."""
        return self._next is not None

    @property
    def simf(self) -> SiMFState | None:
        """The SiMF of the newest model, by which new tracks are warm-started; None before the first."""
        return self._simf

    def take(self) -> Recommender | None:
        """The model to go over to, once; None while there is nothing new."""
        if self._next is None:
            return None
        found, self._next = self._next, None
        self.serving = found.version
        return found

    def stop(self) -> None:
        """End the loading thread."""
        self._orders.put(None)
        self._thread.join(30)

    def _work(self) -> None:
        while (version := self._orders.get()) is not None:
            if version != self.wanted:
                continue  # a newer order is waiting
            self.problem = None
            for name in self._candidates(version):
                if self._load(name):
                    break

    def _candidates(self, version: str) -> Iterator[str]:
        """The version that is wanted; where nothing is served yet, also what came before it, the newest first."""
        yield version
        passed = (v.version for v in reversed(self.versions.values()) if v.state == "accepted")
        others = dict.fromkeys(name for name in (self._before, *passed) if name not in (None, version))
        for name in islice(others, _FALLBACKS):
            if self.available or self.wanted != version:
                return
            assert name is not None
            log.warning("model %s: tried instead, nothing is served yet", name)
            yield name

    def _load(self, version: str) -> bool:
        try:
            record = self.versions.get(version)
            if record is None:
                raise ModelRefused(f"model {version}: the channel points to it, but it was never announced")
            log.info("model %s: loading", version)
            pause = Rests() if self.available else lambda: None
            found = load_model(record, self._catalogue, n=self._n, half=self._half, pause=pause)
            self._simf, self._next = found.simf, found
            log.info("model %s: verified, goes live between two batches", version)
            return True
        except ModelRefused as error:
            log.error("refused, the old model stays: %s", error)
            self._tell(error)
        except Exception as error:
            log.exception("refused, the old model stays: %s", version)
            self._tell(ModelRefused(f"model {version}: {error!r}"))
        return False

    def _tell(self, error: ModelRefused) -> None:
        self.problem = self.problem or str(error)
        self._refused(error)
