"""How a worker holds memory: all of it during a stage, none that is free between two.

A stage leaves holes in the heap that the next one, with arrays of other sizes, cannot use: after ten minutes of 48 kHz
audio they came to half a gigabyte a worker. Within a stage it is the other way round: the system's fresh pages cost more
than the arithmetic on them. Only glibc is told; musl and macOS have ways of their own.
"""

import ctypes

_LIBC = ctypes.CDLL(None)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP_BYTES = 1 << 28


def hold() -> None:
    """From now on, memory that is freed stays with this process until `give_back`."""
    if hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES)
        _LIBC.mallopt(_M_TRIM_THRESHOLD, 2 * _KEEP_BYTES)


def give_back() -> None:
    """Returns free pages to the system; takes some milliseconds."""
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)
