"""Memory that recomputed activations (`engine.activation_checkpointing`) save in a training step, and their time.

    python benchmarks/recompute.py [--preset small] [--positions 2048] [--repeats 3]

Both variants run on the same random weights and the same packed row, forward and backward, on one thread, each in a
process of its own. Memory is the peak resident size during a step above that before it, when weights and their
gradients were in place. Medians; the last line is JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from rich.console import Console  # noqa: E402

from benchmarks.support.tables import table  # noqa: E402
from voxmill.core.errors import JobError, command  # noqa: E402


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """One training step. `bytes`: the peak above what the process held before the step."""

    bytes: int
    seconds: float
    loss: float


def resident() -> int:
    """Bytes of this process in memory (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def step(preset: str, positions: int, recompute: bool) -> StepCost:
    """The cost of a step in this process."""
    import torch

    from model.layers.transformer import recompute_layers
    from model.presets import preset as preset_of
    from model.sequence.layouts import arrange
    from model.sequence.packing import pack
    from model.voxcpm2 import VoxCPM2

    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = preset_of(preset)
    model = VoxCPM2(config).train()
    recompute_layers(model, recompute)
    patch = (config.patch_size, config.feat_dim)
    layouts, room = [], positions
    while room > 0:
        target = torch.randn(min(60, room), *patch)
        text = list(range(5, 45))
        layouts.append(arrange(text, target_GPD=target, closed=True, patch_shape=patch, max_length=positions))
        room -= 100
    batch = pack(layouts)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = peak = resident()
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.002):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    loss = model(batch, generator=torch.Generator().manual_seed(1)).total()
    loss.backward()
    seconds = time.perf_counter() - began
    ended.set()
    watcher.join()
    return StepCost(bytes=peak - before, seconds=seconds, loss=float(loss.detach()))


@command("benchmarks/recompute.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--positions", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", choices=["kept", "recomputed"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(asdict(step(arguments.preset, arguments.positions, arguments.one == "recomputed"))))
        return
    results: dict[str, list[StepCost]] = {"kept": [], "recomputed": []}
    for _ in range(arguments.repeats):
        for variant, costs in results.items():
            child = [sys.executable, __file__, "--one", variant]
            child += ["--preset", arguments.preset, "--positions", str(arguments.positions)]
            done = subprocess.run(child, capture_output=True, text=True)
            if done.returncode:
                raise JobError(f"a step ended with status {done.returncode}: {done.stderr[-500:]}")
            costs.append(StepCost(**json.loads(done.stdout.splitlines()[-1])))

    def median(variant: str, key: str) -> float:
        return float(statistics.median(getattr(cost, key) for cost in results[variant]))

    rows = [
        [variant, f"{median(variant, 'bytes') / 1e6:.0f}", f"{median(variant, 'seconds'):.1f}", f"{costs[0].loss:.9g}"]
        for variant, costs in results.items()
    ]
    title = f"one step, {arguments.preset}, {arguments.positions} positions, {arguments.repeats} repeats"
    Console().print(table(title, ["activations", "peak of a step, MB", "s", "loss"], rows))
    print(
        json.dumps(
            {
                "memory_ratio": median("recomputed", "bytes") / median("kept", "bytes"),
                "time_ratio": median("recomputed", "seconds") / median("kept", "seconds"),
                "same_loss": len({cost.loss for costs in results.values() for cost in costs}) == 1,
            }
        )
    )


if __name__ == "__main__":
    sys.exit(main())
