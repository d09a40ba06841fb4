"""The share of computed positions that is trained on: packed rows beside the batches of three released trainers.

    python benchmarks/packing.py [--samples 20000] [--longest 300] [--budget 8192] [--window 1024] [--seed 0]

One list of sample lengths for all: clips of 2 s to `--longest` seconds, most of them short, with text, a fifth with a
description, a third with a reference. A batch costs its padded size, a packed row the whole budget, filled or not.

- released: the fine-tuning script of VoxCPM2, batches of 2 in random order, padded to the longest.
- cosyvoice: shuffled in blocks of 1000, sorted in blocks of 500, as many as fit into the budget after padding.
- f5: all samples sorted by length, as many as fit into the budget before padding, at most 64.

The last line is one JSON object: useful / total positions of each.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.support.tables import table  # noqa: E402
from training.curriculum.row_packer import Packer  # noqa: E402
from voxmill.core.errors import command  # noqa: E402

PATCHES_A_SECOND = 6.25
TEXT_TOKENS_A_SECOND = 4.5
RELEASED_BATCH = 2
COSYVOICE_SHUFFLE, COSYVOICE_SORT = 1000, 500
F5_MAX_SAMPLES = 64


@dataclass(frozen=True)
class Length:
    """A sample of so many positions."""

    length: int


def draw_lengths(num_samples: int, longest: float, seed: int, budget: int) -> list[int]:
    """Positions of samples as a corpus has them: a median of 7 s and a long tail."""
    choose = random.Random(seed)
    lengths: list[int] = []
    while len(lengths) < num_samples:
        seconds = choose.lognormvariate(1.95, 0.9)
        if not 2 <= seconds <= longest:
            continue
        length = (
            round(seconds * PATCHES_A_SECOND) + round(seconds * TEXT_TOKENS_A_SECOND * choose.uniform(0.7, 1.3)) + 1
        )
        if choose.random() < 0.2:
            length += choose.randrange(10, 31)
        if choose.random() < 1 / 3:
            length += round(choose.uniform(2, 15) * PATCHES_A_SECOND) + 2
        lengths.append(min(length, budget))
    return lengths


def released(lengths: Sequence[int], seed: int) -> Iterator[list[int]]:
    """Batches of a fixed number of samples."""
    order = random.Random(seed).sample(lengths, len(lengths))
    return (order[i : i + RELEASED_BATCH] for i in range(0, len(order), RELEASED_BATCH))


def cosyvoice(lengths: Sequence[int], seed: int, budget: int) -> Iterator[list[int]]:
    """Dynamic batches over a locally shuffled and locally sorted list."""
    choose, order = random.Random(seed), list(lengths)
    for size, arrange in ((COSYVOICE_SHUFFLE, choose.shuffle), (COSYVOICE_SORT, list.sort)):
        blocks = [order[i : i + size] for i in range(0, len(order), size)]
        for block in blocks:
            arrange(block)
        order = [length for block in blocks for length in block]
    batch: list[int] = []
    for length in order:
        if batch and max(*batch, length) * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(length)
    if batch:
        yield batch


def f5(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Batches over the whole list sorted by length, bounded by their sum."""
    batch: list[int] = []
    for length in sorted(lengths):
        if batch and (sum(batch) + length > budget or len(batch) >= F5_MAX_SAMPLES):
            yield batch
            batch = []
        batch.append(length)
    if batch:
        yield batch


def packed(lengths: Sequence[int], budget: int, window: int) -> Iterator[list[int]]:
    """Packed rows; ends where the list cannot fill the window any more, as an endless run never does."""
    waiting = iter(lengths)
    packer: Packer[Length] = Packer(budget, window)
    while True:
        try:
            row = packer.next_row(lambda: Length(next(waiting)))
        except StopIteration:
            return
        yield [item.length for item in row]


def padded(batches: Iterator[list[int]]) -> tuple[float, int, int]:
    """(useful / total positions, batches, the largest one's total)."""
    useful = total = count = largest = 0
    for batch in batches:
        size = max(batch) * len(batch)
        useful, total, count, largest = useful + sum(batch), total + size, count + 1, max(largest, size)
    return useful / total, count, largest


@command("benchmarks/packing.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--longest", type=float, default=300.0)
    parser.add_argument("--budget", type=int, default=8192)
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    lengths = draw_lengths(options.samples, options.longest, options.seed, options.budget)
    rows = list(packed(lengths, options.budget, options.window))
    results = {
        "voxmill": (sum(map(sum, rows)) / (len(rows) * options.budget), len(rows), options.budget),
        "released": padded(released(lengths, options.seed)),
        "cosyvoice": padded(cosyvoice(lengths, options.seed, options.budget)),
        "f5": padded(f5(lengths, options.budget)),
    }
    title = f"{options.samples} samples of {min(lengths)} to {max(lengths)} positions, budget {options.budget}"
    cells = [[name, f"{share:.4f}", str(count), str(largest)] for name, (share, count, largest) in results.items()]
    Console(width=100).print(table(title, ["", "useful / total", "batches", "largest batch, positions"], cells))
    print(json.dumps({name: round(share, 4) for name, (share, _, _) in results.items()}))


if __name__ == "__main__":
    sys.exit(main())
