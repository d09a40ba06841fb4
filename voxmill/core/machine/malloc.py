"""Memory that a process keeps after it was freed, wanted or not. Only glibc is handled; other C libraries are not.

Models on a CPU ask for the same large arrays again and again. By default malloc returns each to the system, and Whisper
spends a fifth of its time on fresh pages: processes that hold models start with `KEEP_FREED_MEMORY_ENV`. In exchange a
stage leaves holes in the heap that the next one, with arrays of other sizes, cannot use: after long recordings call
`release_free_memory`.
"""

import ctypes
import os
import time

KEEP_FREED_MEMORY_ENV = {
    "MALLOC_ARENA_MAX": "1",  # the heaps of other threads hold nothing above 64 MB
    "MALLOC_MMAP_THRESHOLD_": str(2 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
}
"""Environment in which malloc keeps freed memory of any size for later requests; read when a process starts."""

_LIBC = ctypes.CDLL(None)
# Fresh pages cost up to 0.2 s afterwards.
SECONDS_BETWEEN = 20.0
_last = 0.0


def is_kept() -> bool:
    """Whether this process was started with `KEEP_FREED_MEMORY_ENV`."""
    return all(os.environ.get(name) == value for name, value in KEEP_FREED_MEMORY_ENV.items())


def release_free_memory() -> None:
    """Returns free pages to the system, unless that was done in the last `SECONDS_BETWEEN`."""
    global _last
    if hasattr(_LIBC, "malloc_trim") and time.monotonic() - _last >= SECONDS_BETWEEN:
        _LIBC.malloc_trim(0)
        _last = time.monotonic()
