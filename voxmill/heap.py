"""Memory that a process no longer uses and yet holds.

A stage leaves holes in the heap that the next one, with arrays of other sizes, cannot use: after ten minutes of 48 kHz
audio they came to half a gigabyte a worker. Only glibc is told; musl and macOS have ways of their own.
"""

import ctypes
import time

_LIBC = ctypes.CDLL(None)
# Fresh pages cost up to 0.2 s afterwards.
SECONDS_BETWEEN = 20.0
_last = 0.0


def give_back() -> None:
    """Returns free pages to the system, unless that was done in the last `SECONDS_BETWEEN`."""
    global _last
    if hasattr(_LIBC, "malloc_trim") and time.monotonic() - _last >= SECONDS_BETWEEN:
        _LIBC.malloc_trim(0)
        _last = time.monotonic()
