"""Which references are read, and a pool that survives its files."""

import asyncio
import hashlib
import os
import pickle
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
import pytest

from msam.features.audio import AUDIO_VERSION, NotAudio, TooShort, Truncated, describe_bytes
from streams.audio_intake import (
    AudioIntakeError,
    AudioPool,
    AudioTimeout,
    AudioWorkerCrashed,
    ChecksumMismatch,
    FileUnavailable,
    UploadTooLarge,
    UriRefused,
    WorkerLimits,
    process_upload,
    resolve,
)
from streams.errors import MsamError
from streams.records import AudioUpload

LIMIT = 2**20


def wav(seconds: float = 1.0, hertz: float = 440.0) -> bytes:
    buffer = BytesIO()
    samples = 8_000 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * 22_050)) / 22_050)
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(22_050)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An allowed folder with a clip, beside a folder that is not allowed."""
    for name in ("allowed", "allowed-not", "secret"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a clip.wav").write_bytes(wav())
    return tmp_path / "allowed"


def read(uri: str, root: Path, sha256: str | None = None, limit: int = LIMIT) -> bytes:
    return resolve(AudioUpload("t1", uri, sha256), [root], limit)


def test_paths_and_file_uris_inside_are_read(root: Path) -> None:
    file = root / "a clip.wav"
    sha256 = hashlib.sha256(wav()).hexdigest()
    rest = file.as_uri().removeprefix("file://")
    for uri in (str(file), f"file://{rest}", f"file://localhost{rest}", f"FILE://{rest}", f"file:{rest}"):
        assert read(uri, root, sha256) == wav()
    assert read(str(file), root, sha256.upper()) == wav()


def test_links_inside_are_followed(root: Path) -> None:
    (root / "link.wav").symlink_to(root / "a clip.wav")
    assert read(str(root / "link.wav"), root) == wav()
    alias = root.parent / "alias"
    alias.symlink_to(root)
    assert read(str(alias / "a clip.wav"), root) == wav()
    assert read(str(root / "a clip.wav"), alias) == wav()


REFUSED = {
    "outside": "{base}/secret/a clip.wav",
    "sibling with the same prefix": "{base}/allowed-not/a clip.wav",
    "traversal": "{base}/allowed/../secret/a clip.wav",
    "traversal in a URI": "file://{base}/allowed/../secret/a%20clip.wav",
    "encoded traversal": "file://{base}/allowed/%2e%2e/secret/a%20clip.wav",
    "traversal back inside": "{base}/secret/../allowed/a clip.wav",
    "link out": "{base}/allowed/out.wav",
    "folder link out": "{base}/allowed/out/a clip.wav",
    "dangling link out": "{base}/allowed/dangling.wav",
    "missing outside": "{base}/secret/none.wav",
    "http": "http://example.org/a.wav",
    "https": "https://localhost{base}/allowed/a%20clip.wav",
    "ftp": "ftp://localhost{base}/allowed/a%20clip.wav",
    "data": "data:audio/wav;base64,UklGRg==",
    "other host": "file://example.org{base}/allowed/a%20clip.wav",
    "query": "file://{base}/allowed/a%20clip.wav?x=1",
    "fragment": "file://{base}/allowed/a%20clip.wav#x",
    "relative": "allowed/a clip.wav",
    "relative URI": "file:allowed/a%20clip.wav",
    "null byte": "file://{base}/allowed/a%20clip.wav%00.png",
    "bad host": "file://[{base}",
    "empty": "",
    "home": "~/a clip.wav",
    "device": "/dev/zero",
    "folder": "{base}/allowed",
    "fifo": "{base}/allowed/fifo.wav",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_references(root: Path, name: str) -> None:
    secret = root.parent / "secret"
    (root / "out.wav").symlink_to(secret / "a clip.wav")
    (root / "out").symlink_to(secret)
    (root / "dangling.wav").symlink_to(secret / "none.wav")
    os.mkfifo(root / "fifo.wav")
    with pytest.raises(UriRefused) as caught:
        read(REFUSED[name].format(base=root.parent), root)
    assert "'t1'" in str(caught.value) and isinstance(caught.value, MsamError)


def test_no_roots_no_files(root: Path) -> None:
    with pytest.raises(UriRefused, match="audio_roots"):
        resolve(AudioUpload("t1", str(root / "a clip.wav")), [], LIMIT)


def test_missing_inside(root: Path) -> None:
    with pytest.raises(FileUnavailable, match="No such file"):
        read(str(root / "none.wav"), root)
    (root / "loop").symlink_to(root / "loop")
    with pytest.raises(FileUnavailable):
        read(str(root / "loop"), root)


def test_checksum(root: Path) -> None:
    for upload in (AudioUpload("t1", str(root / "a clip.wav"), "0" * 64), AudioUpload("t1", None, "0" * 64, wav())):
        with pytest.raises(ChecksumMismatch, match=hashlib.sha256(wav()).hexdigest()):
            resolve(upload, [root], LIMIT)


def test_size(root: Path) -> None:
    assert read(str(root / "a clip.wav"), root, limit=len(wav())) == wav()
    for upload in (AudioUpload("t1", str(root / "a clip.wav")), AudioUpload("t1", content=wav())):
        with pytest.raises(UploadTooLarge, match=str(len(wav()))):
            resolve(upload, [root], len(wav()) - 1)


def test_exactly_one_source(root: Path) -> None:
    for upload in (AudioUpload("t1"), AudioUpload("t1", str(root / "a clip.wav"), None, wav())):
        with pytest.raises(AudioIntakeError, match="exactly one"):
            resolve(upload, [root], LIMIT)


def test_errors_travel_between_processes() -> None:
    for error in (UriRefused("a"), AudioTimeout("b"), TooShort("c"), Truncated("d")):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error) and str(copy) == str(error)


@pytest.fixture
def pool(root: Path) -> Iterator[AudioPool]:
    pool = AudioPool(max_workers=1, timeout_s=60.0, allowed_roots=[root], max_bytes=LIMIT)
    yield pool
    pids = pool.pids
    pool.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_pool_describes_and_outlives_bad_files(pool: AudioPool, root: Path) -> None:
    async def scenario() -> None:
        good = AudioUpload("t1", (root / "a clip.wav").as_uri(), hashlib.sha256(wav()).hexdigest())
        table = await pool.describe(good)
        assert table.tobytes() == describe_bytes(wav()).tobytes()
        (first,) = pool.pids
        for content, error in ((b"text " * 100, NotAudio), (wav()[:9_000], Truncated), (wav(0.1), TooShort)):
            with pytest.raises(error):
                await pool.describe(AudioUpload("t2", content=content))
        with pytest.raises(UriRefused):
            await pool.describe(AudioUpload("t3", "/etc/hostname"))
        uploads = [good, AudioUpload("t4", content=b"x"), good]
        results = await asyncio.gather(*map(pool.describe, uploads), return_exceptions=True)
        assert isinstance(results[1], NotAudio)
        assert pool.pids == [first]

        os.kill(first, signal.SIGKILL)
        assert (await pool.describe(good)).tobytes() == table.tobytes()
        (second,) = pool.pids
        assert second != first

        # A process that hangs is killed, the upload fails, and the next one meets a new process.
        pool._timeout = 1.0
        os.kill(second, signal.SIGSTOP)
        with pytest.raises(AudioTimeout, match="1 s"):
            await pool.describe(good)
        pool._timeout = 60.0
        assert (await pool.describe(good)).tobytes() == table.tobytes()

    asyncio.run(scenario())


def test_process_upload_returns_bytes_and_version(root: Path) -> None:
    code = (
        "import sys\n"
        "from streams.audio_intake import process_upload, WorkerLimits\n"
        "from streams.audio_worker import warm_up\n"
        "from streams.records import AudioUpload\n"
        "warm_up()\n"
        "data, version = process_upload(AudioUpload('t', sys.argv[1]), [sys.argv[2]], 2**20, WorkerLimits())\n"
        "sys.stdout.buffer.write(version.encode() + b':' + data)"
    )
    # In a process of its own: it lowers that process's CPU limit, which, as in the pool, the warm-up (numba may compile
    # then) comes before.
    command = [sys.executable, "-c", code, str(root / "a clip.wav"), str(root)]
    out = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, check=True, timeout=200).stdout
    assert out == AUDIO_VERSION.encode() + b":" + describe_bytes(wav()).astype("<f4").tobytes()
    assert pickle.loads(pickle.dumps((process_upload, WorkerLimits()))) == (process_upload, WorkerLimits())


def test_memory_limit_holds() -> None:
    """A worker that may not have the memory it needs ends as an error of that upload, not of the parent."""
    pool = AudioPool(1, 60.0, (), LIMIT, WorkerLimits(memory_bytes=150 * 2**20))
    try:
        with pytest.raises(AudioWorkerCrashed):
            asyncio.run(pool.describe(AudioUpload("t1", content=wav())))
    finally:
        pool.close()


def test_workers_end_with_a_killed_parent(root: Path) -> None:
    code = (
        "import asyncio, sys, time\n"
        "from streams.audio_intake import AudioPool\n"
        "from streams.records import AudioUpload\n"
        "async def main():\n"
        "    pool = AudioPool(1, 60, [sys.argv[2]])\n"
        "    await pool.describe(AudioUpload('t', sys.argv[1]))\n"
        "    print(pool.pids[0], flush=True)\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", code, str(root / "a clip.wav"), str(root)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    deadline = time.monotonic() + 20
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
