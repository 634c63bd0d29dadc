"""Uploads to audio descriptors in processes of their own, so that no file can stop or block the event loop."""

import asyncio
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from streams.audio_source import (
    AudioIntakeError,
    ChecksumMismatch,
    FileUnavailable,
    UploadTooLarge,
    UriRefused,
    resolve,
)
from streams.audio_worker import WorkerLimits, process_upload, start_worker, warm_up
from streams.records import AudioUpload

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "AudioIntakeError", "AudioPool", "AudioTimeout", "AudioWorkerCrashed", "ChecksumMismatch", "FileUnavailable",
    "UploadTooLarge", "UriRefused", "WorkerLimits", "process_upload", "resolve",
]  # fmt: skip

START_SECONDS = 120.0
"""A new process imports scipy and the decoder; on a loaded machine that takes a while."""

T = TypeVar("T")


class AudioTimeout(AudioIntakeError):
    """An upload took too long; its process was killed."""


class AudioWorkerCrashed(AudioIntakeError):
    """An audio process cannot start, or ended twice: by the decoder, by its CPU limit, or from outside."""


class AudioPool:
    """`max_workers` audio processes; each handles one upload at a time and is replaced when it dies or hangs.

    Every worker is an executor of its own, so a crash is known to belong to one upload and touches no other.
    """

    def __init__(
        self,
        max_workers: int = 1,
        timeout_s: float = 60.0,
        allowed_roots: Sequence[Path] = (),
        max_bytes: int = 64 * 2**20,
        limits: WorkerLimits | None = None,
    ) -> None:
        self._timeout = timeout_s
        self._roots, self._max_bytes = tuple(Path(root) for root in allowed_roots), max_bytes
        self._limits = limits or WorkerLimits()
        self._workers = [_Worker(self._limits) for _ in range(max_workers)]
        self._idle: asyncio.LifoQueue[_Worker] = asyncio.LifoQueue()
        for worker in self._workers:
            self._idle.put_nowait(worker)

    async def describe(self, upload: AudioUpload) -> "NDArray[np.float32]":
        """Descriptors float32 [G, A]; raises AudioIntakeError (also for a time-out or a crash) or AudioError."""
        import numpy as np

        from msam.features.audio import AUDIO_GROUPS

        worker = await self._idle.get()
        try:
            data, _ = await self._twice(worker, upload)
        finally:
            self._idle.put_nowait(worker)
        return np.frombuffer(data, dtype="<f4").reshape(len(AUDIO_GROUPS), -1)

    async def _twice(self, worker: "_Worker", upload: AudioUpload) -> tuple[bytes, str]:
        # A second try: the first process may have been killed for reasons that have nothing to do with this upload.
        for last in (False, True):
            try:
                return await worker.run(
                    self._timeout, process_upload, upload, self._roots, self._max_bytes, self._limits
                )
            except BrokenProcessPool:
                if last:
                    break
            except TimeoutError:
                message = f"audio of track {upload.track_id!r} took more than {self._timeout:g} s"
                raise AudioTimeout(message) from None
        raise AudioWorkerCrashed(f"audio of track {upload.track_id!r}: the process that read it died, twice")

    @property
    def pids(self) -> list[int]:
        """Ids of the processes that have started."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def close(self) -> None:
        """End every process, also one that is busy."""
        for worker in self._workers:
            worker.kill()


class _Worker:
    """One executor with one process, started on first use and again after it was killed."""

    def __init__(self, limits: WorkerLimits) -> None:
        self._limits = limits
        self._executor: ProcessPoolExecutor | None = None
        self.pid: int | None = None

    async def run(self, timeout_s: float, function: Callable[..., T], *arguments: Any) -> T:
        """The function's result; TimeoutError, BrokenProcessPool. The clock starts when the process is ready."""
        try:
            executor = self._executor or await self._start()
            return await _result(executor.submit(function, *arguments), timeout_s)
        except (BrokenProcessPool, TimeoutError, asyncio.CancelledError):
            # A worker that is still busy with what nobody waits for any more must not meet the next upload.
            self.kill()
            raise

    async def _start(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        self._executor = executor = ProcessPoolExecutor(1, context, start_worker, (self._limits,))
        try:
            self.pid = await _result(executor.submit(warm_up), START_SECONDS)
        except (ImportError, MemoryError, OSError) as error:
            # TimeoutError is an OSError: whichever it is, no upload is to blame.
            self.kill()
            raise AudioWorkerCrashed(f"an audio process cannot start: {type(error).__name__}: {error}") from error
        return executor

    def kill(self) -> None:
        """End the process at once."""
        executor, self._executor, self.pid = self._executor, None, None
        if executor is None:
            return
        # The only handle on processes that an executor offers before Python 3.14 (kill_workers).
        processes = list((executor._processes or {}).values())
        for process in processes:
            process.kill()
        executor.shutdown(wait=True, cancel_futures=True)


async def _result(future: "Future[T]", timeout_s: float) -> T:
    return await asyncio.wait_for(asyncio.wrap_future(future), timeout_s)
