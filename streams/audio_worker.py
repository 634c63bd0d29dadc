"""What runs inside an audio process: limits first, then one upload at a time."""

import os
import resource
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streams.audio_source import AudioIntakeError, resolve
from streams.records import AudioUpload


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Bounds of one audio process: address space in bytes, CPU seconds of one upload."""

    memory_bytes: int = 2 * 2**30
    cpu_seconds: int = 20


def start_worker(limits: WorkerLimits) -> None:
    """Initializer: bound memory, write no core, use one thread, and end when the parent does."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot stop its workers, and they would wait for work for ever."""
    from multiprocessing import parent_process
    from multiprocessing.connection import wait

    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def warm_up() -> int:
    """Load what a first upload would wait for; this process's id."""
    from msam.features.audio import feature_names

    feature_names()
    return os.getpid()


def process_upload(
    upload: AudioUpload, allowed_roots: Sequence[Path], max_bytes: int, limits: WorkerLimits
) -> tuple[bytes, str]:
    """Descriptors as float32 little-endian bytes, row-major [G, A], and AUDIO_VERSION.

    Raises AudioIntakeError or AudioError, both of which travel between processes. CPU time beyond the limit kills the
    process (SIGXCPU), which the pool reports.
    """
    from msam.errors import MethodError
    from msam.features.audio import AUDIO_VERSION, AudioLimits, describe_bytes

    _limit_cpu(limits.cpu_seconds)
    data = resolve(upload, allowed_roots, max_bytes)
    try:
        return describe_bytes(data, AudioLimits(max_bytes=max_bytes)).astype("<f4").tobytes(), AUDIO_VERSION
    except MethodError:
        raise
    except MemoryError:
        raise AudioIntakeError(f"audio of track {upload.track_id!r} needs more memory than allowed") from None
    except Exception as error:
        # Whatever a decoder throws must not leave the process as something that cannot be pickled.
        raise AudioIntakeError(f"audio of track {upload.track_id!r}: {type(error).__name__}: {error}") from None


def _limit_cpu(seconds: int) -> None:
    # The limit counts from the start of the process, so it moves with every upload.
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
