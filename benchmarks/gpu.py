"""Generation at full size on a GPU: random weights in bf16, 1, 8 and 64 requests, beside the released code.

    python benchmarks/gpu.py [--repeats 3] [--patches 20] [--preset voxcpm2] [--no-released]

NOT RUN YET on a GPU. The code that it calls is tested on the CPU (the batch of fixed buffers without its CUDA graphs,
compiled parts without the compiler's code). The goal: an RTF of 0.05 or less at one request on an H100.

voxmill: steps replayed as CUDA graphs, LocDiT and LocEnc through torch.compile. The released code: its own
`optimize()`, requests one after another, since it has no batches. The stop predictor is ignored, so that all requests
have the same number of patches; RTF is wall time over seconds of speech of all requests, first patch is the time to the
first 160 ms of a stream (of the slowest request, where several start together). Warm-ups are not counted. Last line:
JSON.
"""

import argparse
import contextlib
import io
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.generate import TEXT, requests  # noqa: E402
from benchmarks.support.tables import table  # noqa: E402
from model.codec.audio_vae import AudioVAE  # noqa: E402
from model.config import VoxCPM2Config, released_values  # noqa: E402
from model.generation.generator import Generator  # noqa: E402
from model.presets import preset  # noqa: E402
from model.sequence.text_tokenizer import TextTokenizer  # noqa: E402
from model.voxcpm2 import VoxCPM2  # noqa: E402
from samples.released import TOKENIZER, is_installed  # noqa: E402
from voxmill.core.errors import UserError, command  # noqa: E402

SIZES = (1, 8, 64)


def generator_of(config: VoxCPM2Config, *, device: str, dtype: torch.dtype, compiled: bool) -> Generator:
    """Random weights, made on the device."""
    torch.manual_seed(0)
    with torch.device(device):
        model, vae = VoxCPM2(config), AudioVAE(config.audio_vae_config)
    tokenizer = TextTokenizer.from_folder(TOKENIZER)
    return Generator(model.to(device, dtype).eval(), vae.to(device).freeze(), tokenizer, compiled=compiled)


def released_of(config: VoxCPM2Config, dtype: torch.dtype) -> Any:
    """The released code with random weights and its `optimize()`, which works on "cuda" only."""
    import transformers
    from voxcpm.model.voxcpm2 import VoxCPM2Model, VoxCPMConfig
    from voxcpm.modules.audiovae import AudioVAEConfigV2, AudioVAEV2

    values = released_values(config) | {"device": "cuda", "dtype": str(dtype).removeprefix("torch.")}
    tokenizer = transformers.LlamaTokenizerFast.from_pretrained(TOKENIZER)
    vae = AudioVAEV2(config=AudioVAEConfigV2.model_validate(values["audio_vae_config"]))
    model = VoxCPM2Model(VoxCPMConfig.model_validate(values), tokenizer, vae, device="cuda").to("cuda", dtype)
    model.audio_vae.float()
    return model.eval().optimize()


def measure(generator: Generator, count: int, patches: int) -> tuple[float, float]:
    """(seconds for whole speeches, seconds to the first piece of the last of `count` streams)."""
    clock = time.perf_counter()
    assert len(list(generator.generate_many(requests(count, patches), batch_size=count))) == count
    whole = time.perf_counter() - clock
    clock, started = time.perf_counter(), set()
    for piece in generator.stream_many(requests(count, patches), batch_size=count):
        started.add(piece.index)
        if len(started) == count:
            break
    return whole, time.perf_counter() - clock


def measure_released(model: Any, patches: int) -> tuple[float, float]:
    """The same of one request of the released code."""
    settings = {"min_len": patches, "max_len": patches, "inference_timesteps": 10, "cfg_value": 2.0}
    with contextlib.redirect_stderr(io.StringIO()):  # it draws a progress bar there
        clock = time.perf_counter()
        model.generate(TEXT, **settings)
        whole = time.perf_counter() - clock
        clock = time.perf_counter()
        stream = model.generate_streaming(TEXT, **settings)
        next(stream)
        first = time.perf_counter() - clock
        stream.close()
    return whole, first


@command("benchmarks/gpu.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--patches", type=int, default=20, help="patches of 160 ms a request")
    parser.add_argument("--preset", default="voxcpm2")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="requests at once")
    parser.add_argument("--no-compile", action="store_true", help="CUDA graphs only")
    parser.add_argument("--no-released", action="store_true", help="voxmill only")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise UserError("no CUDA device here; run it on a machine with an NVIDIA GPU")
    if not arguments.no_released and not is_installed():
        raise UserError("voxcpm is missing; pip install --no-deps voxcpm==2.0.3, or give --no-released")
    config, dtype, patches = preset(arguments.preset), torch.bfloat16, arguments.patches
    vae = config.audio_vae_config
    speech = patches * config.patch_size * math.prod(vae.encoder_rates) / vae.sample_rate

    rows: list[list[str]] = []
    gpu, numbers = torch.cuda.get_device_name(), dict[str, float]()

    def add(name: str, count: int, pairs: list[tuple[float, float]]) -> None:
        whole, first = (statistics.median(pair[part] for pair in pairs) for part in (0, 1))
        rtf = whole / (count * speech)
        rows.append([name, str(count), f"{rtf:.4f}", f"{whole / speech:.4f}", f"{first * 1000:.0f} ms"])
        numbers[f"{name}_rtf_{count}"], numbers[f"{name}_first_ms_{count}"] = round(rtf, 5), round(first * 1000, 1)

    generator = generator_of(config, device="cuda", dtype=dtype, compiled=not arguments.no_compile)
    for count in arguments.sizes:
        for _ in range(2):  # kernels are compiled, then graphs captured
            measure(generator, count, 4)
        add("voxmill", count, [measure(generator, count, patches) for _ in range(arguments.repeats)])
    del generator
    torch.cuda.empty_cache()
    if not arguments.no_released:
        peer = released_of(config, dtype)
        for _ in range(2):
            measure_released(peer, 4)
        add("released", 1, [measure_released(peer, patches) for _ in range(arguments.repeats)])
        numbers |= {
            f"ratio_batch_{count}": round(numbers["released_rtf_1"] / numbers[f"voxmill_rtf_{count}"], 3)
            for count in arguments.sizes
        }
    title = f"{gpu}, {arguments.preset} in bf16, {patches} patches a request, {arguments.repeats} repeats"
    headings = ["system", "requests", "RTF of all together", "RTF of each", "first patch"]
    Console(width=100).print(table(title, headings, rows))
    print(json.dumps({"gpu": gpu, "preset": arguments.preset, "patches": patches} | numbers))


if __name__ == "__main__":
    sys.exit(main())
