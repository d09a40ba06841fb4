"""What recomputed activations (`engine.activation_checkpointing`) save, and what they cost, in one training step.

    python benchmarks/recompute.py [--preset small] [--positions 2048] [--repeats 3]

Both variants run on the same random weights and the same packed row, forward and backward, on one thread, each in a
process of its own. Memory is the peak resident size during a step above what the process held before it, when weights and
their gradients were in place. The last line is JSON.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)


def resident() -> int:
    """Bytes of this process in memory (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def step(preset: str, positions: int, recompute: bool) -> dict[str, float]:
    """Peak bytes above the start and seconds of a step, and its loss; in this process."""
    import torch

    from model.layers.transformer import MiniCPM
    from model.presets import preset as preset_of
    from model.sequence.layouts import arrange
    from model.sequence.packing import pack
    from model.voxcpm2 import VoxCPM2

    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = preset_of(preset)
    model = VoxCPM2(config).train()
    for module in model.modules():
        if isinstance(module, MiniCPM):
            module.recompute = recompute
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
    return {"bytes": float(peak - before), "seconds": seconds, "loss": float(loss.detach())}


def main() -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--positions", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", choices=["kept", "recomputed"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(step(arguments.preset, arguments.positions, arguments.one == "recomputed")))
        return
    found: dict[str, list[dict[str, float]]] = {"kept": [], "recomputed": []}
    for _ in range(arguments.repeats):
        for variant, results in found.items():
            command = [sys.executable, __file__, "--one", variant]
            command += ["--preset", arguments.preset, "--positions", str(arguments.positions)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    for variant, results in found.items():
        megabytes = ", ".join(f"{result['bytes'] / 1e6:.0f}" for result in results)
        seconds = ", ".join(f"{result['seconds']:.1f}" for result in results)
        print(f"{variant}: peak of a step {megabytes} MB, {seconds} s, loss {results[0]['loss']:.9g}")

    def middle(variant: str, key: str) -> float:
        return sorted(result[key] for result in found[variant])[len(found[variant]) // 2]

    print(
        json.dumps(
            {
                "memory_ratio": middle("recomputed", "bytes") / middle("kept", "bytes"),
                "time_ratio": middle("recomputed", "seconds") / middle("kept", "seconds"),
                "same_loss": len({result["loss"] for results in found.values() for result in results}) == 1,
            }
        )
    )


if __name__ == "__main__":
    main()
