"""Generation at full size with random weights in bf16: one system and one number of requests a process."""

import argparse
import contextlib
import io
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from benchmarks.generate import TEXT, requests  # noqa: E402
from benchmarks.gpu_parts.processes import Found, take_turn  # noqa: E402
from model.codec.audio_vae import AudioVAE  # noqa: E402
from model.config import VoxCPM2Config, released_values  # noqa: E402
from model.generation.generator import Generator  # noqa: E402
from model.presets import preset  # noqa: E402
from model.sequence.text_tokenizer import TextTokenizer  # noqa: E402
from model.voxcpm2 import VoxCPM2  # noqa: E402
from samples.released import TOKENIZER  # noqa: E402

SYSTEMS = ("compiled", "graphs", "released")
Timing = tuple[float, float, float]
"""Seconds for whole speeches, to the first piece of the last stream, and for one step of all requests."""


def generator_of(config: VoxCPM2Config, *, device: str, dtype: torch.dtype, compiled: bool) -> Generator:
    """Random weights, made on the device in their own dtype: several processes share its memory."""
    torch.manual_seed(0)
    with torch.device(device):
        vae = AudioVAE(config.audio_vae_config)
        torch.set_default_dtype(dtype)
        model = VoxCPM2(config)
        torch.set_default_dtype(torch.float32)
    tokenizer = TextTokenizer.from_folder(TOKENIZER)
    return Generator(
        model.to(device, dtype).eval(), vae.to(device).freeze(), tokenizer, pack=False, static=True, compiled=compiled
    )


def released_of(config: VoxCPM2Config, *, device: str, dtype: torch.dtype) -> Any:
    """The released code with random weights and its `optimize()`, which does nothing but on "cuda"."""
    import transformers
    from voxcpm.model.voxcpm2 import VoxCPM2Model, VoxCPMConfig
    from voxcpm.modules.audiovae import AudioVAEConfigV2, AudioVAEV2

    values = released_values(config) | {"device": device, "dtype": str(dtype).removeprefix("torch.")}
    tokenizer = transformers.LlamaTokenizerFast.from_pretrained(TOKENIZER)
    vae = AudioVAEV2(config=AudioVAEConfigV2.model_validate(values["audio_vae_config"]))
    model = VoxCPM2Model(VoxCPMConfig.model_validate(values), tokenizer, vae, device=device).to(device, dtype)
    model.audio_vae.float()
    return model.eval().optimize()


def measure(generator: Generator, count: int, patches: int) -> Timing:
    """`count` requests of `patches` patches each in one batch."""
    turns: list[tuple[int, float]] = []
    clock = time.perf_counter()
    speeches = list(
        generator.generate_many(
            requests(count, patches),
            batch_size=count,
            on_patch=lambda number: turns.append((number, time.perf_counter())),
        )
    )
    whole = time.perf_counter() - clock
    assert len(speeches) == count and all(len(speech.patches_GPD) == patches for _, speech in speeches)
    assert all(bool(speech.audio_T.isfinite().all()) for _, speech in speeches)
    firsts = dict(reversed(turns))  # of each patch number, the first request's
    clock, started = time.perf_counter(), set()
    for piece in generator.stream_many(requests(count, patches), batch_size=count):
        started.add(piece.index)
        if len(started) == count:
            break
    first = time.perf_counter() - clock
    return whole, first, statistics.median(firsts[n + 1] - firsts[n] for n in range(1, patches - 1))


def measure_released(model: Any, patches: int) -> Timing:
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
    return whole, first, math.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--system", choices=SYSTEMS, required=True)
    parser.add_argument("--count", type=int, default=1, help="requests at once")
    parser.add_argument("--preset", default="voxcpm2")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--patches", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    config, device, dtype, count = preset(arguments.preset), arguments.device, torch.bfloat16, arguments.count
    vae = config.audio_vae_config
    speech = arguments.patches * config.patch_size * math.prod(vae.encoder_rates) / vae.sample_rate
    once: list[Callable[[int], Timing]] = []

    def get_ready() -> None:
        if arguments.system == "released":
            peer = released_of(config, device=device, dtype=dtype)
            once.append(lambda patches: measure_released(peer, patches))
        else:
            generator = generator_of(config, device=device, dtype=dtype, compiled=arguments.system == "compiled")
            once.append(lambda patches: measure(generator, count, patches))
        for _ in range(2):  # kernels are compiled, then graphs captured
            once[0](4)

    def all_turns() -> Found:
        timings = [once[0](arguments.patches) for _ in range(arguments.repeats)]
        whole, first, step = (statistics.median(timing[part] for timing in timings) for part in range(3))
        found: Found = {
            "rtf": round(whole / (count * speech), 5),
            "rtf_each": round(whole / speech, 5),
            "first_ms": round(first * 1000, 1),
            "spread": round(max(t[0] for t in timings) / min(t[0] for t in timings), 3),
        }
        if not math.isnan(step):
            found["step_ms"] = round(step * 1000, 2)
        if device == "cuda":
            found["memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 1)
        return found

    take_turn(get_ready, all_turns)


if __name__ == "__main__":
    main()
