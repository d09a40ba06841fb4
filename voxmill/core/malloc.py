"""Memory that a process no longer uses and yet holds, on purpose or not. Only glibc is told; others have ways of their own.

Models on a CPU ask for the same large arrays again and again. Left to itself, malloc returns each to the system, and
Whisper spends a fifth of its time on fresh pages: processes that hold models start with `ONE_HEAP`. In exchange a stage
leaves holes in the heap that the next one, with arrays of other sizes, cannot use: long recordings call `give_back`.
"""

import ctypes
import os
import time

ONE_HEAP = {
    "MALLOC_ARENA_MAX": "1",  # the heaps of other threads hold nothing above 64 MB
    "MALLOC_MMAP_THRESHOLD_": str(2 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
}
"""Environment in which malloc keeps what is freed, of any size, for what is asked for next; read as a process starts."""

_LIBC = ctypes.CDLL(None)
# Fresh pages cost up to 0.2 s afterwards.
SECONDS_BETWEEN = 20.0
_last = 0.0


def is_kept() -> bool:
    """Whether this process was started with `ONE_HEAP`."""
    return all(os.environ.get(name) == value for name, value in ONE_HEAP.items())


def give_back() -> None:
    """Returns free pages to the system, unless that was done in the last `SECONDS_BETWEEN`."""
    global _last
    if hasattr(_LIBC, "malloc_trim") and time.monotonic() - _last >= SECONDS_BETWEEN:
        _LIBC.malloc_trim(0)
        _last = time.monotonic()
