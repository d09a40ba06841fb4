"""Inference efficiency of a checkpoint (report 4.6, Table 11): RTF, latency of the first patch, memory, concurrency.

    voxmill evaluate efficiency CHECKPOINT TEXTS.jsonl [--concurrency 1,4,16] [--device auto] [--out FILE.json]

Requests are streamed, as a server would; a request's latency runs from when it was taken to its first 160 ms of audio.
RTF is wall time over audio time of all requests together, so it falls with concurrency. The first round, in which a GPU
captures its graphs, is not counted.
"""

from __future__ import annotations

if __name__ == "__main__":
    import sys
    from pathlib import Path

    # A script's own folder is first on sys.path; the packages lie above it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)
    from voxmill.cli.app import script

    script("evaluate efficiency")

import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from voxmill.core.errors import UserError
from voxmill.core.machine.devices import resolve_device

if TYPE_CHECKING:
    from model.generation.generator import Generator
    from model.generation.request import Request

# Report Table 11, one RTX 4090: (RTF, GB).
PUBLISHED = {"VoxCPM2 (PyTorch)": (0.30, 8.0), "VoxCPM2 (Nano-vLLM)": (0.13, 8.0)}


@dataclass(frozen=True)
class Efficiency:
    """One level of concurrency. Times in seconds; `peak_gigabytes` is the device's, on a CPU the process's so far."""

    concurrency: int
    requests: int
    audio_seconds: float
    wall_seconds: float
    rtf: float
    first_patch_median: float
    first_patch_p95: float
    peak_gigabytes: float


def measure(generator: Generator, requests: Sequence[Request], concurrency: int) -> Efficiency:
    """Streams all requests, so many at once.

    Raises:
        UserError: a request that the model cannot speak.
    """
    taken: dict[int, float] = {}
    first: dict[int, float] = {}

    def waiting() -> Iterator[Request]:
        for index, request in enumerate(requests):
            taken[index] = time.perf_counter()
            yield request

    on_gpu = generator.device.type == "cuda"
    if on_gpu:
        import torch

        torch.cuda.reset_peak_memory_stats(generator.device)
    samples = 0
    started = time.perf_counter()
    for piece in generator.stream_many(waiting(), batch_size=concurrency):
        first.setdefault(piece.index, time.perf_counter() - taken[piece.index])
        samples += piece.audio_T.shape[0]
    wall = time.perf_counter() - started
    peak = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    if on_gpu:
        peak = float(torch.cuda.max_memory_allocated(generator.device))
    audio = samples / generator.sample_rate
    median, p95 = (float(x) for x in np.percentile(list(first.values()), [50, 95]))
    return Efficiency(concurrency, len(requests), audio, wall, wall / audio, median, p95, peak / 1e9)


def run(checkpoint: Path, texts: Path, levels: Sequence[int], device: str) -> list[Efficiency]:
    """Every level of concurrency on the texts of a list (`texts` benchmark), with references where there are any."""
    from evaluation.benchmarks.text_list import read_text_list
    from model.checkpoint import load_checkpoint
    from model.generation.generator import Generator
    from model.generation.request import Request
    from model.generation.voice import Voice

    if any(level < 1 for level in levels) or not levels:
        raise UserError(f"--concurrency {','.join(map(str, levels))}: write whole numbers from 1, such as 1,4,16")
    utterances = read_text_list(texts).utterances
    generator = Generator.of(load_checkpoint(checkpoint, device=resolve_device(device, setting="--device")))
    voices = {path: generator.voice(reference=path) for path in {u.reference for u in utterances} if path}
    requests = [
        Request(one.text, one.description, voices[one.reference] if one.reference else Voice(), seed=number)
        for number, one in enumerate(utterances)
    ]
    figures = []
    for level in levels:
        measure(generator, requests[:level], level)
        figures.append(measure(generator, requests, level))
    return figures


def report(rounds: Sequence[Efficiency], out: Path | None) -> None:
    """Prints a table of the rounds beside the published figures, and writes them to `out` as JSON."""
    print("| concurrency | RTF | first patch, median / p95 | peak memory |\n|---:|---:|---:|---:|")
    for one in rounds:
        latency = f"{1000 * one.first_patch_median:.0f} / {1000 * one.first_patch_p95:.0f} ms"
        print(f"| {one.concurrency} | {one.rtf:.3f} | {latency} | {one.peak_gigabytes:.2f} GB |")
    for name, (rtf, memory) in PUBLISHED.items():
        print(f"| published, RTX 4090: {name} | {rtf:.2f} | - | {memory:.0f} GB |")
    if out is not None:
        out.write_text(json.dumps([asdict(one) for one in rounds], indent=1), encoding="utf-8")
