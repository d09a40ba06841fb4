"""Whether the GPU computes what the CPU does: batches replayed as CUDA graphs, compiled or not, and packed attention.

The `small` preset in fp32 with random weights; the same noise, and the CPU's patches as everybody's past (teacher
forcing), since one rounding of FSQ that falls the other way changes all that follows. Attention in bf16 is held against
fp32.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from benchmarks.generate import requests  # noqa: E402
from benchmarks.gpu_parts.processes import Found, take_turn  # noqa: E402
from model.generation.active_request import ActiveRequest  # noqa: E402
from model.generation.batch import Batch  # noqa: E402
from model.generation.continuous_batch import ContinuousBatch  # noqa: E402
from model.generation.request import prepare  # noqa: E402
from model.generation.static_batch import StaticBatch  # noqa: E402
from model.layers.attention import Documents, Packed, attend  # noqa: E402
from model.presets import preset  # noqa: E402
from model.sequence.text_tokenizer import TextTokenizer  # noqa: E402
from model.voxcpm2 import VoxCPM2  # noqa: E402
from samples.released import TOKENIZER  # noqa: E402

REQUESTS, SLOTS = 6, 4
PATCHES = (9, 5, 12, 7, 4, 10)
"""Of each request: they leave and join at different steps."""


def error(found: Tensor, wanted: Tensor) -> float:
    """|found - wanted| / |wanted|, on the CPU in fp64."""
    found, wanted = found.detach().cpu().double(), wanted.detach().cpu().double()
    return float((found - wanted).norm() / wanted.norm())


def speak(batch: Batch, active: list[ActiveRequest]) -> list[Tensor]:
    """Patches [G, P, D] of each request, at most `SLOTS` at a time."""
    waiting = list(active)
    while waiting or batch.active:
        free = SLOTS - len(batch.active)
        joining, waiting = waiting[:free], waiting[free:]
        batch.join(joining)
        batch.step()
    return [torch.stack(request.patches).cpu() for request in active]


def attention_errors(device: str) -> tuple[float, float]:
    """(bf16's error, its gradients') of packed attention with eight heads a key head, beside fp32."""
    generator = torch.Generator().manual_seed(1)
    documents = (5, 17, 40, 1, 129)
    shapes = [(sum(documents), heads, 128) for heads in (16, 2, 2)]
    wide = query, key, value = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    half = half_query, half_key, half_value = [x.detach().to(device, torch.bfloat16).requires_grad_() for x in wide]
    weight = torch.randn(shapes[0], generator=generator)
    expected = attend(query, key, value, Packed(Documents(documents)))
    found = attend(half_query, half_key, half_value, Packed(Documents(documents, torch.device(device))))
    (expected * weight).sum().backward()
    (found * weight.to(found)).sum().backward()
    gradients = [error(b.grad, a.grad) for a, b in zip(wide, half, strict=True) if a.grad is not None is not b.grad]
    assert len(gradients) == 3
    return error(found, expected), max(gradients)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compiled", action="store_true", help="steps through torch.compile, which takes a minute")
    parser.add_argument("--attention", action="store_true", help="packed attention alone")
    arguments = parser.parse_args()
    if arguments.attention:
        names = ("attention_bf16", "attention_bf16_gradients")
        take_turn(lambda: None, lambda: dict(zip(names, attention_errors(arguments.device), strict=True)))
        return
    device, config = arguments.device, preset(arguments.preset)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    tokenizer = TextTokenizer.from_folder(TOKENIZER)
    torch.manual_seed(0)
    model = VoxCPM2(config).eval()
    noise = [torch.randn(count, config.patch_size, config.feat_dim) for count in PATCHES]
    prepared = [prepare(requests(1, count)[0], tokenizer, config) for count in PATCHES]

    def active(forced: list[Tensor] | None = None) -> list[ActiveRequest]:
        return [
            ActiveRequest(
                prepared[n].layout,
                requests(1, count)[0].settings,
                count,
                None,
                noise_NPD=noise[n],
                forced_NPD=None if forced is None else forced[n],
            )
            for n, count in enumerate(PATCHES)
        ]

    result: Found = {}

    def work() -> None:
        expected = speak(ContinuousBatch(model), active())
        model.to(device)

        def worst(batch: Batch) -> float:
            return max(error(a, b) for a, b in zip(speak(batch, active(expected)), expected, strict=True))

        batch = StaticBatch(model, SLOTS, compiled=arguments.compiled)
        result["first"] = worst(batch)
        result["again"] = worst(batch)  # replays only, in buffers that others have used
        if not arguments.compiled:
            result["growing"] = worst(StaticBatch(model, SLOTS, capacity=16))  # captured again as it grows
            result["attention_bf16"], result["attention_bf16_gradients"] = attention_errors(device)

    take_turn(work, lambda: result)


if __name__ == "__main__":
    main()
