"""What a process holds of memory that it no longer uses."""

import subprocess
import sys

import pytest

PROGRAM = """
import psutil
from voxmill import heap

heap.hold()
process = psutil.Process()
pieces = [b"x" * 100_000 for _ in range(2000)]
last = bytearray(1000)  # at the top of the heap, where it keeps the system from taking what lies below
full = process.memory_info().rss
del pieces
held = process.memory_info().rss
heap.give_back()
given = process.memory_info().rss
again = [b"x" * 100_000 for _ in range(2000)]
del again
heap.give_back()
print(full - held, full - given, full - process.memory_info().rss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc is told; others are left as they are")
def test_free_memory_is_held_until_it_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    at_once, after, soon_again = (int(number) for number in done.stdout.split())
    assert at_once < 20e6
    assert after > 150e6
    assert soon_again < 20e6, "giving back costs fresh pages, so not at every turn"
