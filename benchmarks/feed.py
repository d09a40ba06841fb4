"""What a step waits for its batch, and what planning costs a node: rank 0 of 64 beside a step of 2.7 s.

    python benchmarks/feed.py [--clips 12000] [--median 8] [--rows 256] [--world 64] [--steps 8] [--step-seconds 2.7]

The index is that of all clips; latents are in place for the rank's own rows. The step is a sleep. The feed is the
trainer's: the planning process of the node, and threads that read, tokenize and pack ahead.

- `wait_seconds`: what a step waited, mean; the first one, which nothing can hide, apart.
- `plan_seconds`: CPU of the planning process a step, of which this rank takes its rows.
- `node_seconds`: CPU of planning a step and sending their rows to the 8 ranks of a node, here by a simulation, also at
  `--large-world` ranks with `--large-rows` rows a step.

Last line: JSON.
"""

import argparse
import json
import pickle
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.support.sample_model import write_tokenizer  # noqa: E402
from benchmarks.support.sparse_latents import SparseLatents  # noqa: E402
from benchmarks.support.tables import table  # noqa: E402
from model.sequence.text_tokenizer import TextTokenizer  # noqa: E402
from training.curriculum.corpus import Corpus, read_corpus  # noqa: E402
from training.curriculum.feed.feed import Feed  # noqa: E402
from training.curriculum.feed.planner import Ask, PlanInputs, Planner  # noqa: E402
from training.curriculum.plan_arrays import drawn_streams, plan_arrays, settings_of_plan  # noqa: E402
from training.curriculum.recipe import Recipe, load_recipe  # noqa: E402
from training.curriculum.sample_order import share  # noqa: E402
from training.curriculum.sample_stream import SampleStream  # noqa: E402
from training.run.world import World  # noqa: E402
from voxmill.core.errors import command  # noqa: E402

MODES = "{basic: 0.2, continuation: 0.2, design: 0.2, reference: 0.2, controllable: 0.2}"
NODE = 8
"""Ranks of a node."""
T = TypeVar("T")


class OneOfMany(World):
    """A rank whose mates are not there, on a node of its own."""

    def gather(self, value: T) -> list[T]:
        """Nothing is known of the others."""
        return [value if rank == self.rank else None for rank in range(self.size)]  # type: ignore[misc]

    def maxima(self, values: object) -> list[float]:
        """Nobody waits."""
        return [0.0]


def recipe_of(folder: Path, options: argparse.Namespace, rows: int) -> Recipe:
    """Stage 2 in all modes over the dataset."""
    overrides = [
        f"init={folder / 'tokenizer'}",
        f"datasets.main.path={folder / 'dataset'}",
        f"mixture.modes={MODES}",
        "packing={positions: 8192, window: 1024}",
        "max_positions=8192",
        "clips.max_seconds=120",
        f"seed={options.seed}",
        "steps=100000",
        f"rows={rows}",
        "run.out=unused",
    ]
    return load_recipe("tiny_stage2", overrides)


def rank_of_many(recipe: Recipe, corpus: Corpus, options: argparse.Namespace) -> tuple[list[float], list[float]]:
    """(seconds that each step waited, CPU seconds of planning a step) of rank 0."""
    tokenizer = TextTokenizer.from_folder(recipe.init)
    feed = Feed(corpus, recipe, tokenizer, OneOfMany(0, options.world, torch.device("cpu")))
    waits, plans = [], []
    try:
        for _ in range(options.steps + 1):
            began = time.perf_counter()
            step = feed.next_step()
            waits.append(time.perf_counter() - began)
            plans.append(step.plan_seconds)
            assert not step.unreadable, "the latents of the rank's rows are in place"
            time.sleep(options.step_seconds)
    finally:
        feed.close()
    return waits, plans


def node(recipe: Recipe, corpus: Corpus, world: int, steps: int) -> float:
    """CPU seconds a step of planning and of sending the rows of the first 8 ranks, median of `steps`."""
    streams, settings = drawn_streams(corpus, recipe), settings_of_plan(recipe)
    arrays = plan_arrays(corpus)
    planner = Planner(PlanInputs(streams, arrays, settings, world, NODE))
    seconds = []
    for step in range(steps):
        began = time.process_time()
        for rank in range(NODE):
            pickle.dumps(planner.answer(rank, Ask(0, step)))
        seconds.append(time.process_time() - began)
    return statistics.mean(seconds[1:])


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Prepares, runs, prints."""
    (folder / "dataset").mkdir()
    write_tokenizer(folder / "tokenizer")
    dataset = SparseLatents(folder / "dataset", options.clips, options.seed, options.median)
    recipe = recipe_of(folder, options, options.rows)
    tokenizer = TextTokenizer.from_folder(recipe.init)
    stream = SampleStream(read_corpus(recipe), recipe, tokenizer)
    own, samples, useful = set[int](), 0, 0
    for _ in range(options.steps + 1 + recipe.feed.ahead + 2):
        rows = stream.next_step()
        own |= {clip for number in share(len(rows), 0, options.world) for s in rows[number] for clip in s.clips}
        samples, useful = sum(map(len, rows)), sum(s.length for row in rows for s in row)
    written = dataset.put(own)
    corpus = read_corpus(recipe)
    waits, plans = rank_of_many(recipe, corpus, options)
    large = recipe_of(folder, options, options.large_rows)
    last = {
        "wait_seconds": statistics.mean(waits[1:]),
        "longest_wait": max(waits[1:]),
        "first_wait": waits[0],
        "plan_seconds": statistics.mean(plans[1:]),
        "node_seconds": node(recipe, corpus, options.world, options.steps + 1),
        "node_seconds_large": node(large, corpus, options.large_world, options.steps + 1),
        "samples_a_row": samples / options.rows,
        "fill": useful / options.rows / recipe.packing.positions,
    }
    title = f"rank 0 of {options.world}, {options.rows} rows of 8192, {written / 1e6:.0f} MB of latents"
    Console(width=100).print(table(title, ["", ""], [[name, f"{value:.4f}"] for name, value in last.items()]))
    print(json.dumps({name: round(value, 4) for name, value in last.items()}))


@command("benchmarks/feed.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=12_000)
    parser.add_argument("--median", type=float, default=8.0, help="seconds of a clip")
    parser.add_argument("--rows", type=int, default=256, help="of a step")
    parser.add_argument("--world", type=int, default=64)
    parser.add_argument("--large-rows", type=int, default=512)
    parser.add_argument("--large-world", type=int, default=512)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--step-seconds", type=float, default=2.7)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        measure(Path(temporary), options)


if __name__ == "__main__":
    sys.exit(main())
