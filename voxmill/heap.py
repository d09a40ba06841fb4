"""How a process holds memory: what a model frees stays for the next call, what is free for long goes back.

A stage leaves holes in the heap that the next one, with arrays of other sizes, cannot use: after ten minutes of 48 kHz
audio they came to half a gigabyte a worker. Within a stage it is the other way round: the system's fresh pages cost more
than the arithmetic on them. Only glibc is told; musl and macOS have ways of their own.
"""

import ctypes
import time

_LIBC = ctypes.CDLL(None)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP_BYTES = 1 << 28
# Some 0.2 s go into fresh pages afterwards; after every stage of one-minute units that was a tenth of the job.
SECONDS_BETWEEN = 20.0
_last = 0.0


def hold() -> None:
    """From now on, memory that is freed stays with this process until `give_back`."""
    if hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES)
        _LIBC.mallopt(_M_TRIM_THRESHOLD, 2 * _KEEP_BYTES)


def give_back(every: float = SECONDS_BETWEEN) -> None:
    """Returns free pages to the system, unless that was done in the last `every` seconds."""
    global _last
    if hasattr(_LIBC, "malloc_trim") and time.monotonic() - _last >= every:
        _LIBC.malloc_trim(0)
        _last = time.monotonic()
