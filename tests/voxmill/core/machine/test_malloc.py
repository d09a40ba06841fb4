"""What a process holds of memory that it no longer uses."""

import os
import subprocess
import sys

import pytest

from voxmill.core.machine import malloc

PROGRAM = """
import psutil
from voxmill.core.machine import malloc

process = psutil.Process()
last = []
for _ in range(2):
    pieces = [b"x" * 100_000 for _ in range(2000)]
    last.append(b"y" * 100_000)  # above the pieces in the heap: it keeps the system from taking what lies below
    full = process.memory_info().rss
    del pieces
    held = process.memory_info().rss
    malloc.release_free_memory()
    print(full - held, full - process.memory_info().rss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's malloc is handled")
def test_free_memory_is_held_until_it_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    (held, given), (held_again, soon_again) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert held < 20e6 and held_again < 20e6
    assert given > 150e6
    assert soon_again < 20e6, "fresh pages cost time, so nothing is given back twice in a few seconds"


ARRAYS = """
import resource

count = 16_000_000

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        b"x" * count
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's malloc is handled")
def test_a_process_with_one_heap_asks_for_no_fresh_pages() -> None:
    plain = {name: value for name, value in os.environ.items() if name not in malloc.KEEP_FREED_MEMORY_ENV}
    # Left to itself malloc would learn from the first large array that is freed, up to 32 MB.
    faults = [
        int(subprocess.check_output([sys.executable, "-c", ARRAYS], env=environment))
        for environment in (plain | {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}, plain | malloc.KEEP_FREED_MEMORY_ENV)
    ]
    assert faults[0] > 10 * 16_000_000 / 4096 / 2 and faults[1] < 100


def test_a_process_knows_whether_it_keeps_what_is_freed() -> None:
    program = "from voxmill.core.machine.malloc import is_kept; print(is_kept())"
    plain = {name: value for name, value in os.environ.items() if name not in malloc.KEEP_FREED_MEMORY_ENV}
    for environment, expected in ((plain, "False"), (plain | malloc.KEEP_FREED_MEMORY_ENV, "True")):
        assert subprocess.check_output([sys.executable, "-c", program], env=environment, text=True).strip() == expected
