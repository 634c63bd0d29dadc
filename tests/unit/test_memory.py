"""A worker's memory: few arenas, and what is free goes back to the system."""

import subprocess
import sys

import pytest

ARENAS = """
import ctypes, sys, threading
from streams.memory import few_arenas

if sys.argv[1] == "few":
    few_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
here, leave = threading.Barrier(9), threading.Event()

def allocate():
    libc.malloc(1000)
    here.wait()
    leave.wait()

threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads:
    thread.start()
here.wait()
libc.fdopen.restype, libc.malloc_info.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
libc.fflush.argtypes = [ctypes.c_void_p]
out = libc.fdopen(1, b"w")
libc.malloc_info(0, out)
libc.fflush(out)
leave.set()
"""

TRIM = """
from pathlib import Path
from streams.memory import trim

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

held = [bytearray(100_000) for _ in range(2000)]  # each below the size from which the kernel is asked for a mapping
held = held[::100]  # what is left keeps the others' room from the end of the heap
before = resident()
trim()
print(before - resident())
"""


def _python(program: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True, timeout=60
    ).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_threads_share_arenas() -> None:
    arenas = {how: _python(ARENAS, how).count("<heap nr=") for how in ("few", "many")}
    assert arenas["few"] <= 2 < arenas["many"]


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_what_is_free_goes_back_to_the_system() -> None:
    assert int(_python(TRIM)) > 100e6
