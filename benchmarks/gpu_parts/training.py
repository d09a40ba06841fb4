"""Training of the full size with random weights in bf16 through the trainer's own engine, one way a process.

The recipe is `stage1`'s engine on one rank (nccl on a GPU), with the least recomputed activations with which this GPU
holds it by the planner. Rows are full, of samples of 3 to 12 s with their texts.
"""

import argparse
import math
import random
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from benchmarks.gpu_parts.processes import Found, take_turn  # noqa: E402
from cluster.planner.memory import rank_memory  # noqa: E402
from model.config import VoxCPM2Config  # noqa: E402
from model.presets import preset  # noqa: E402
from model.sequence.layouts import Layout, arrange  # noqa: E402
from model.sequence.packing import PackedBatch, pack  # noqa: E402
from model.voxcpm2 import VoxCPM2  # noqa: E402
from training.curriculum import engine as engines  # noqa: E402
from training.curriculum.engine import Engine  # noqa: E402
from training.curriculum.plan.flops import RowFlops, peak_flops  # noqa: E402
from training.curriculum.plan.memory import gpu_bytes_of, memory_of  # noqa: E402
from training.curriculum.recipe import Recipe, load_recipe  # noqa: E402
from training.run.world import World, join_world  # noqa: E402

WARM_UP = 3
"""Steps before the first that counts; kernels are compiled and the allocator's blocks settle."""
TEXT_TOKENS_A_PATCH = 0.5


def full_row(config: VoxCPM2Config, positions: int, seed: int) -> PackedBatch:
    """A packed row of that many positions or slightly fewer, of random samples."""
    choose, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    layouts: list[Layout] = []
    shape, room = (config.patch_size, config.feat_dim), positions
    while room > 8:
        patches = min(choose.randrange(20, 76), math.floor(room / (1 + TEXT_TOKENS_A_PATCH)) - 2)
        if patches < 2:
            break
        tokens = [choose.randrange(5, config.lm_config.vocab_size) for _ in range(int(patches * TEXT_TOKENS_A_PATCH))]
        target_GPD = torch.randn(patches, *shape, generator=generator)
        layouts.append(arrange(tokens, target_GPD=target_GPD, closed=True, patch_shape=shape, max_length=positions))
        room -= len(layouts[-1]) - 2
    return pack(layouts)


def recipe_of(arguments: argparse.Namespace, config: VoxCPM2Config) -> Recipe:
    """Stage 1 on one rank of this machine; paths are read by nobody."""
    wanted = [f"rows={arguments.rows}", f"packing.positions={arguments.positions}", "init=none"]
    wanted += [f"max_positions={min(4096, arguments.positions)}", "datasets.main.path=none", "optimizer.ema=null"]
    wanted += [f"engine.compile={str(arguments.compiled).lower()}", *arguments.overrides]
    recipe = load_recipe("stage1", wanted)
    gpu_bytes = gpu_bytes_of(recipe.engine)
    if gpu_bytes is None or any(override.startswith("engine.activation") for override in arguments.overrides):
        return recipe
    least = memory_of(recipe, config).spare_recomputing(1, gpu_bytes).partition(" ")[0]
    return load_recipe("stage1", [*wanted, least]) if least else recipe


def measure(engine: Engine, rows: list[PackedBatch], steps: int) -> tuple[list[float], list[float]]:
    """(seconds, losses) of steps over these rows, with the optimizer and without data loading."""
    seconds, losses = [], []
    cuda = engine.world.device.type == "cuda"
    for step in range(steps):
        began, total = time.perf_counter(), 0.0
        for number, batch in enumerate(rows):
            generator = torch.Generator(engine.world.device).manual_seed(step * len(rows) + number)
            diffusion, stop, _ = engine.forward(batch, generator, 0.0)
            count = len(rows) * len(batch.target_GPD)
            loss = diffusion / (count * batch.target_GPD.shape[1]) + stop / count
            engine.backward(loss)
            total += float(loss.detach())
            if number + 1 < len(rows):
                engine.row_done()
        engine.step(1e-5)
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        losses.append(total)
    return seconds, losses


def found_of(engine: Engine, rows: list[PackedBatch], arguments: argparse.Namespace, world: World) -> Found:
    """What the steps took, beside what the planner says."""
    seconds, losses = measure(engine, rows, arguments.steps)
    step = statistics.median(seconds)
    flops = RowFlops.of(engine.losses.model)
    operations = sum(flops(batch) for batch in rows)
    positions = sum(len(batch.tokens_N) for batch in rows)
    held = memory_of(engine.recipe, engine.losses.model.config)
    audio = sum(len(batch.target_GPD) for batch in rows) / positions
    planned = rank_memory(held.shape, replace(held.setup(1), audio=audio))
    found: Found = {
        "positions_s": round(positions / step, 1),
        "step_s": round(step, 4),
        "spread": round(max(seconds) / min(seconds), 3),
        "teraflops": round(operations / step / 1e12, 2),
        "planned_gb": round(planned.peak / 1e9, 1),
        "recomputed": float(engine.recipe.engine.activation_checkpointing),
        "zero": engine.recipe.engine.zero,
        "loss": losses,
        "backend": torch.distributed.get_backend(),
    }
    if world.device.type == "cuda":
        found["memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 1)
        found["reserved_gb"] = round(torch.cuda.max_memory_reserved() / 1e9, 1)
        peak = peak_flops(torch.cuda.get_device_name())
        if peak is not None:
            found["mfu"] = round(operations / step / peak, 4)
    return found


def write_profile(engine: Engine, rows: list[PackedBatch], path: Path) -> None:
    """One more step under the profiler: what takes longest as a table, and beside it the trace (for Perfetto)."""
    from torch.profiler import ProfilerActivity, profile

    cuda = engine.world.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * cuda]) as profiler:
        measure(engine, rows, 1)
    by = "self_device_time_total" if cuda else "self_cpu_time_total"
    path.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(path.with_suffix(".json.gz")))
    path.write_text(profiler.key_averages().table(sort_by=by, row_limit=40, max_name_column_width=80))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="voxcpm2")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compiled", action="store_true", help="engine.compile")
    parser.add_argument("--compiler", default="inductor", help="backend of torch.compile")
    parser.add_argument("--positions", type=int, default=8192, help="of a row")
    parser.add_argument("--rows", type=int, default=2, help="of a step")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--profile", type=Path, help="file for a table of what one more step spends its time on")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the recipe")
    arguments = parser.parse_args()
    config, device = preset(arguments.preset), arguments.device
    engines.COMPILER = arguments.compiler
    made: list[Engine] = []
    with join_world(device) as world:
        rows = [full_row(config, arguments.positions, seed) for seed in range(arguments.rows)]

        def get_ready() -> None:
            torch.manual_seed(0)
            with torch.device(world.device):
                model = VoxCPM2(config)
            made.append(Engine(model, recipe_of(arguments, config), world))
            measure(made[0], rows, WARM_UP)
            if world.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()

        def work() -> Found:
            found = found_of(made[0], rows, arguments, world)
            if arguments.profile:
                write_profile(made[0], rows, arguments.profile)
            return found

        take_turn(get_ready, work)


if __name__ == "__main__":
    main()
