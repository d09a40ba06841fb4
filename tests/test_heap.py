"""What a process holds of memory that it no longer uses."""

import subprocess
import sys

import pytest

PROGRAM = """
import psutil
from voxmill import heap

process = psutil.Process()
last = []
for _ in range(2):
    pieces = [b"x" * 100_000 for _ in range(2000)]
    last.append(b"y" * 100_000)  # above the pieces in the heap: it keeps the system from taking what lies below
    full = process.memory_info().rss
    del pieces
    held = process.memory_info().rss
    heap.give_back()
    print(full - held, full - process.memory_info().rss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc is told; others are left as they are")
def test_free_memory_is_held_until_it_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    (held, given), (held_again, soon_again) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert held < 20e6 and held_again < 20e6
    assert given > 150e6
    assert soon_again < 20e6, "fresh pages cost time, so nothing is given back twice in a few seconds"
