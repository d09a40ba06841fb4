"""Generation beside the released code: the same weights, the same requests, speech of equal length, on this CPU.

    python benchmarks/generate.py [--repeats 5] [--patches 30] [--preset small] [--threads 2]

`small` preset, random weights, 10 steps, text to waveform: prefill, every patch and the AudioVAE's decoder. The stop
predictor is ignored, so that all requests have the same number of patches: 30 are 4.8 s of speech, the length of a
sentence. The released code takes 16 requests one after another, since it has no batches; here they share one. The sides
take turns; medians are shown. Last line: JSON.

The ratios are of wall time. Those of processor time (`cpu_...`) mean something with `--threads 1` only, where they hold
on a machine that others use too.
"""

import argparse
import contextlib
import io
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.support.tables import table  # noqa: E402
from model.codec.audio_vae import AudioVAE  # noqa: E402
from model.config import VoxCPM2Config  # noqa: E402
from model.generation import Generator, Request, Settings  # noqa: E402
from model.presets import preset  # noqa: E402
from model.sequence.text_tokenizer import TextTokenizer  # noqa: E402
from model.voxcpm2 import VoxCPM2  # noqa: E402
from samples.released import TOKENIZER, released_model  # noqa: E402
from voxmill.core.errors import command  # noqa: E402

MANY = 16
TEXT = "hello test 你好世界 hello test"


def random_weights(config: VoxCPM2Config) -> tuple[VoxCPM2, AudioVAE]:
    """A model and an AudioVAE with PyTorch's initial weights, always the same."""
    torch.manual_seed(0)
    return VoxCPM2(config).eval(), AudioVAE(config.audio_vae_config).freeze()


def peer_of(model: VoxCPM2, vae: AudioVAE, dtype: torch.dtype) -> Any:
    """The released code with these weights."""
    peer = released_model(model.config, model, dtype=dtype)
    peer.audio_vae.load_state_dict(vae.state_dict())
    return peer


def requests(count: int, patches: int) -> list[Request]:
    """So many requests of `patches` patches each."""
    settings = Settings(steps=10, min_len=patches, max_len=patches, attempts=1)
    return [Request(TEXT, settings=settings, seed=number) for number in range(count)]


def generate_by_peer(peer: Any, count: int, patches: int) -> list[torch.Tensor]:
    """The same requests, one after another; the waveforms."""
    waveforms = []
    with contextlib.redirect_stderr(io.StringIO()):  # it draws a progress bar there
        for number in range(count):
            torch.manual_seed(number)
            waveforms.append(
                peer.generate(TEXT, min_len=patches, max_len=patches, inference_timesteps=10, cfg_value=2.0)
            )
    return waveforms


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """(wall seconds, processor seconds) of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


@command("benchmarks/generate.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--patches", type=int, default=30, help="patches of 160 ms a request")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-bf16", action="store_true", help="fp32 only")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    patches = arguments.patches
    config = preset(arguments.preset)
    model, vae = random_weights(config)
    tokenizer = TextTokenizer.from_folder(TOKENIZER)
    peer = peer_of(model, vae, torch.float32)
    ours = {"fp32": Generator(model, vae, tokenizer)}
    if not arguments.no_bf16:
        half = VoxCPM2(config).eval()
        half.load_state_dict(model.state_dict())
        ours["bf16"] = Generator(half.to(torch.bfloat16), vae, tokenizer)

    # The same noise must give the same speech, or there is nothing to compare.
    audio_T = ours["fp32"].generate(requests(1, 2)[0]).audio_T
    expected = generate_by_peer(peer, 1, 2)[0][0]
    difference = (audio_T - expected).abs().max().item()
    assert audio_T.shape == expected.shape and difference < 1e-3, difference

    def one(generator: Generator) -> None:
        generator.generate(requests(1, patches)[0])

    def many(generator: Generator) -> None:
        assert len(list(generator.generate_many(requests(MANY, patches), batch_size=MANY))) == MANY

    work: dict[str, Callable[[], Any]] = {"released, one": lambda: generate_by_peer(peer, 1, patches)}
    for name, generator in ours.items():
        work[f"{name}, one"] = lambda generator=generator: one(generator)  # type: ignore[misc]
        work[f"{name}, {MANY} in a batch"] = lambda generator=generator: many(generator)  # type: ignore[misc]
    work[f"released, {MANY} in turn"] = lambda: generate_by_peer(peer, MANY, patches)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for turn in range(arguments.repeats):
        for name, call in work.items():
            seconds[name].append(timed(call))
        print(f"turn {turn + 1}: " + ", ".join(f"{n} {s[-1][0]:.2f} s" for n, s in seconds.items()), flush=True)

    speech = patches * config.patch_size * vae.samples_per_latent / config.audio_vae_config.out_sample_rate

    def ratio(name: str, base: str, clock: int = 0) -> float:
        pairs = zip(seconds[name], seconds[base], strict=True)
        return round(statistics.median(b[clock] / a[clock] for a, b in pairs), 3)

    rows = []
    for name, turns in seconds.items():
        count = 1 if name.endswith("one") else MANY
        base = "released, one" if count == 1 else f"released, {MANY} in turn"
        wall, cpu = (statistics.median(pair[clock] for pair in turns) for clock in (0, 1))
        rtf = wall / (count * speech)
        rows.append([name, f"{wall:.2f} s", f"{rtf:.2f}", f"{ratio(name, base):.2f}x", f"{cpu:.2f} s"])
    title = f"{arguments.preset}, {patches} patches a request, {arguments.threads} threads, {arguments.repeats} turns"
    Console(width=100).print(table(title, ["what", "median", "RTF", "speed", "processor"], rows))
    result: dict[str, float] = {"difference": difference, "threads": arguments.threads, "patches": patches}
    for name in ours:
        suffix = "" if name == "fp32" else f"_{name}"
        for clock, prefix in ((0, ""), (1, "cpu_")):
            result[f"{prefix}ratio_batch_1{suffix}"] = ratio(f"{name}, one", "released, one", clock)
            many_name, base = f"{name}, {MANY} in a batch", f"released, {MANY} in turn"
            result[f"{prefix}ratio_batch_{MANY}{suffix}"] = ratio(many_name, base, clock)
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
