"""Latent samples a second of one reader process: voxmill's beside `webdataset` and `lhotse` Shar on the same clips.

    python benchmarks/loader.py [--clips 6000] [--repeats 5] [--folder FOLDER]

A sample is a clip's token ids and its latents (bf16, 64 x 25 a second). Every measurement is a process of its own, its
imports left out. Cold: all files were dropped from the page cache before (posix_fadvise; `disk MB` is what the kernel
then read for the process). Warm: they were read just before. Resumed: a cold process that starts in the middle of the
epoch; until its first sample, voxmill restores a saved state, the peers skip the samples of before. Sides take turns;
medians. The folder must lie on a disk, not in memory (tmpfs), to be cold at all. Last line: JSON.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from rich.console import Console  # noqa: E402

from benchmarks.support.latent_readers import SIDES, read, state_after, write_all  # noqa: E402
from benchmarks.support.tables import table  # noqa: E402
from training.curriculum.row_plan import SampleStreamState  # noqa: E402
from voxmill.core.errors import UserError, command  # noqa: E402


@dataclass(frozen=True)
class Reading:
    """The figures of one process."""

    first: float
    """Seconds from opening the data to the first sample."""
    seconds: float
    """Until the last sample."""
    samples: int
    disk: int
    """Bytes read from storage."""


def forget(folder: Path) -> None:
    """Drops a folder's files from the page cache."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)  # dirty pages stay
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def disk_bytes() -> int:
    """Bytes that storage has read for this process so far; 0 where the kernel does not count."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return int(dict(line.split(": ") for line in lines)["read_bytes"])


def consume(side: str, folder: Path, seed: int, count: int, skip: int, state: SampleStreamState | None) -> Reading:
    """Reads `count` samples; runs in a process of its own."""
    import torch

    torch.set_num_threads(1)
    # What is imported on the way belongs to no reader.
    import lhotse  # noqa: F401
    import safetensors.torch  # noqa: F401
    import tokenizers  # noqa: F401
    import webdataset  # noqa: F401

    before, began, first, samples, touched = disk_bytes(), time.perf_counter(), 0.0, 0, 0
    for _, tokens, latent_LD in read(side, folder, seed, skip=skip, state=state):
        samples += 1
        first = first or time.perf_counter() - began
        touched += len(tokens) + latent_LD.numel()
        if samples == count:
            break
    assert samples == count and touched, f"{side} gave {samples} of {count} samples"
    return Reading(first, time.perf_counter() - began, samples, disk_bytes() - before)


def fresh(*arguments: Any) -> Reading:
    """`consume` in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(consume, *arguments).result()


def measure(folder: Path, options: argparse.Namespace) -> dict[tuple[str, str], list[Reading]]:
    """All repeats by (side, phase)."""
    write_all(folder, options.clips, options.seed)
    state, given = state_after(folder, options.seed, options.clips // 2)
    readings: dict[tuple[str, str], list[Reading]] = {}
    for _ in range(options.repeats):
        for side in SIDES:
            for phase in ("cold", "warm", "resumed"):
                if phase != "warm":
                    forget(folder)
                resumed = (options.clips // 4, given, state)
                task = resumed if phase == "resumed" else (options.clips, 0, None)
                readings.setdefault((side, phase), []).append(fresh(side, folder, options.seed, *task))
    return readings


@command("benchmarks/loader.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=6000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="an empty folder on a disk; default: a temporary one")
    options = parser.parse_args()
    if options.clips < 8:
        raise UserError(f"--clips {options.clips}: needs 8 or more")
    for peer in SIDES[1:]:
        if find_spec(peer) is None:
            raise UserError(f"{peer} is missing; run: pip install {peer}")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as temporary:
        readings = measure(options.folder or Path(temporary), options)

    def middle(side: str, phase: str, value: str) -> float:
        return float(statistics.median(getattr(one, value) for one in readings[side, phase]))

    def rate(side: str, phase: str) -> float:
        return statistics.median(one.samples / one.seconds for one in readings[side, phase])

    rows = [
        [
            side,
            f"{rate(side, 'cold'):.0f}",
            f"{rate(side, 'warm'):.0f}",
            f"{middle(side, 'cold', 'first'):.3f}",
            f"{middle(side, 'resumed', 'first'):.3f}",
            f"{rate(side, 'resumed'):.0f}",
            f"{middle(side, 'cold', 'disk') / 1e6:.0f}",
        ]
        for side in SIDES
    ]
    headings = [
        "",
        "samples/s cold",
        "warm",
        "first sample cold, s",
        "first resumed, s",
        "samples/s resumed",
        "disk MB",
    ]
    Console(width=120).print(table(f"{options.clips} clips, one process", headings, rows))
    last: dict[str, dict[str, float]] = {
        side: {
            "cold": round(rate(side, "cold"), 1),
            "warm": round(rate(side, "warm"), 1),
            "resumed": round(rate(side, "resumed"), 1),
            "first_cold": round(middle(side, "cold", "first"), 4),
            "first_resumed": round(middle(side, "resumed", "first"), 4),
        }
        for side in SIDES
    }
    print(json.dumps(last))


if __name__ == "__main__":
    sys.exit(main())
