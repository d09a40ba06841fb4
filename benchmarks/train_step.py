"""How long one training step takes, forward and backward, beside the released code's.

    python benchmarks/train_step.py [--preset small] [--samples 4] [--repeats 7] [--threads 1] [--seed 0]

Both sides have the same weights (random), the same samples and the same random numbers in the loss; fp32 on the CPU.
The released code gets them as its trainer would: padded to the longest; voxmill's are packed. Sides take turns, and the
median of the pairs' ratios is given, so that a machine that slows down slows both. One thread by default: threads that
wait for one another measure what else the machine does. The released code is `pip install --no-deps voxcpm==2.0.3`.
The last line is one JSON object.
"""

import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.support.arguments import beside_released  # noqa: E402
from benchmarks.support.tables import table  # noqa: E402
from model.config import VoxCPM2Config  # noqa: E402
from model.flow.flow_matching import FlowNoise  # noqa: E402
from model.presets import preset  # noqa: E402
from model.sequence.layouts import Layout, arrange  # noqa: E402
from model.sequence.packing import pack  # noqa: E402
from model.voxcpm2 import VoxCPM2  # noqa: E402
from samples.dense import DenseBatch, pad, rows_of  # noqa: E402
from samples.released import released_model  # noqa: E402
from voxmill.core.errors import command  # noqa: E402

PATCHES_A_SECOND = 6.25
TEXT_TOKENS_A_SECOND = 4.5
"""English at about 15 characters a second in a vocabulary of 73 k."""


def draw_samples(config: VoxCPM2Config, num_samples: int, seed: int) -> list[Layout]:
    """Samples of all modes that training has, in turn; clips of 2 to 15 s, references of 3 to 8 s, as a corpus has."""
    choose = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    shape = (config.patch_size, config.feat_dim)

    def patches(seconds: float) -> Tensor:
        return torch.randn(round(seconds * PATCHES_A_SECOND), *shape, generator=generator)

    layouts = []
    for number in range(num_samples):
        seconds = choose.uniform(2, 15)
        num_tokens = round(seconds * TEXT_TOKENS_A_SECOND)
        if number % 4 in (1, 3):  # voice design, controllable: a description stands before the text
            num_tokens += choose.randrange(10, 31)
        layouts.append(
            arrange(
                [choose.randrange(200, config.lm_config.vocab_size) for _ in range(num_tokens)],
                reference_RPD=patches(choose.uniform(3, 8)) if number % 4 >= 2 else None,
                target_GPD=patches(seconds),
                closed=True,
                patch_shape=shape,
                max_length=config.max_length,
            )
        )
    choose.shuffle(layouts)
    return layouts


def draw_randomness(batch: DenseBatch, config: VoxCPM2Config, seed: int) -> FlowNoise:
    """The random numbers of the released loss after `torch.manual_seed(seed)`, a row a position, padding included."""
    rows, shape = batch.loss_BT.numel(), (batch.loss_BT.numel(), config.feat_dim, config.patch_size)
    torch.manual_seed(seed)
    keep, noisy, condition_noise = torch.rand(rows), torch.rand(rows), torch.randn(shape)
    first, second, differ, noise = torch.randn(rows), torch.randn(rows), torch.rand(rows), torch.randn(shape)
    return FlowNoise(keep, noisy, condition_noise.transpose(1, 2), first, second, differ, noise.transpose(1, 2))


def seconds_of(step: Callable[[], float]) -> tuple[float, float]:
    """(wall, CPU) seconds of one step; others on the machine lengthen the first more than the second."""
    started = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - started[0], time.process_time() - started[1]


def counted(step: Callable[[], float]) -> tuple[float, int]:
    """(loss, FLOPs forward and backward) of one step, which is the warm-up too."""
    with FlopCounterMode(display=False) as counter:
        loss = step()
    return loss, counter.get_total_flops()


@command("benchmarks/train_step.py")
def main() -> None:
    parser = beside_released(__doc__, preset="small", repeats=7)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = preset(options.preset)
    torch.manual_seed(options.seed)
    model = VoxCPM2(config)
    peer = released_model(config, model).train()
    layouts = draw_samples(config, options.samples, options.seed)
    padded, packed = pad(layouts), pack(layouts)
    flow_noise = rows_of(draw_randomness(padded, config, options.seed), padded.loss_BT.flatten() > 0)

    def released() -> float:
        peer.zero_grad(set_to_none=True)
        torch.manual_seed(options.seed)
        losses = peer(
            padded.tokens_BT, padded.text_BT, padded.patches_BTPD, padded.audio_BT, padded.loss_BT, None, padded.stop_BT
        )
        loss = losses["loss/diff"] + losses["loss/stop"]
        loss.backward()
        return float(loss.detach())

    def ours() -> float:
        model.zero_grad(set_to_none=True)
        loss = model(packed, flow_noise=flow_noise).total()
        loss.backward()
        return float(loss.detach())

    (wanted, wanted_flops), (loss, loss_flops) = counted(released), counted(ours)
    difference = abs(loss - wanted) / abs(wanted)
    flops = [wanted_flops, loss_flops]
    pairs = [(seconds_of(released), seconds_of(ours)) for _ in range(options.repeats)]
    times, cpu_times = ([statistics.median(pair[side][kind] for pair in pairs) for side in (0, 1)] for kind in (0, 1))
    ratios, cpu_ratios = ([a[kind] / b[kind] for a, b in pairs] for kind in (0, 1))
    positions = [padded.loss_BT.numel(), packed.tokens_N.numel()]
    computed = [positions[0], packed.audio_APD.shape[0]]
    targets = [positions[0], packed.target_GPD.shape[0]]
    rows = [
        [name, f"{s:.3f}", f"{cpu:.3f}", f"{f / 1e9:.1f}", str(p), str(a), str(t), f"{x:.6f}"]
        for name, s, cpu, f, p, a, t, x in zip(
            ("released", "voxmill"), times, cpu_times, flops, positions, computed, targets, (wanted, loss), strict=True
        )
    ]
    headings = ["", "s a step", "CPU s", "GFLOP", "LM positions", "LocEnc patches", "LocDiT patches", "loss"]
    title = f"training step, {options.preset}, {options.samples} samples, {torch.get_num_threads()} threads"
    Console(width=110).print(table(title, headings, rows))
    print(
        json.dumps(
            {
                "ratio": round(statistics.median(ratios), 3),
                "loss_difference": difference,
                "flops_ratio": round(flops[0] / flops[1], 3),
                "cpu_ratio": round(statistics.median(cpu_ratios), 3),
                "ratios": [round(ratio, 3) for ratio in ratios],
                "seconds_released": round(times[0], 4),
                "seconds": round(times[1], 4),
            }
        )
    )


if __name__ == "__main__":
    sys.exit(main())
