"""How long AudioVAE takes to encode, to decode, and to decode one streamed patch, beside the released code's.

    python benchmarks/audio_vae.py [--preset voxcpm2] [--seconds 2] [--repeats 5] [--threads 1] [--cpu-time]

Both sides have the same weights (random) and the same input; fp32 on the CPU. Sides take turns, and the median of the
pairs' ratios is given; `--cpu-time` counts this process's time instead of the clock's, for a machine that others use
(with one thread). The released code is `pip install --no-deps voxcpm==2.0.3`. The last line is one JSON object.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.support.arguments import beside_released  # noqa: E402
from benchmarks.support.tables import table  # noqa: E402
from model.codec.audio_vae import AudioVAE  # noqa: E402
from model.presets import preset  # noqa: E402
from samples.released import released_vae  # noqa: E402
from voxmill.core.errors import command  # noqa: E402

PATCH = 4
"""Latent frames of a streamed piece: 160 ms."""


@torch.no_grad()
@command("benchmarks/audio_vae.py")
def main() -> None:
    parser = beside_released(__doc__, preset="voxcpm2", repeats=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.cpu_time else time.perf_counter
    config = preset(options.preset).audio_vae_config
    torch.manual_seed(0)
    vae = AudioVAE(config)
    peer = released_vae(vae)
    vae.freeze()
    audio_BT = torch.randn(1, round(options.seconds * config.sample_rate)).mul(0.1)
    latents_BDL = torch.randn(1, config.latent_dim, audio_BT.shape[1] // vae.hop)
    piece_BDL = latents_BDL[..., :PATCH]

    def seconds_of(step: Callable[[], Tensor]) -> float:
        started = clock()
        step()
        return clock() - started

    def paired(released: Callable[[], Tensor], ours: Callable[[], Tensor]) -> tuple[float, float, float, float]:
        """(released seconds, ours, ratio, largest difference of the first results)."""
        expected, decoded = released(), ours()
        difference = float((expected.flatten() - decoded.flatten()).abs().max())
        pairs = [(seconds_of(released), seconds_of(ours)) for _ in range(options.repeats)]
        first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
        return first, second, statistics.median(a / b for a, b in pairs), difference

    results = {
        "encode": paired(lambda: peer.encode(audio_BT, config.sample_rate), lambda: vae.encode(audio_BT)),
        "decode": paired(lambda: peer.decode(latents_BDL), lambda: vae.decode(latents_BDL)),
    }
    stream = vae.decoder_stream()
    with peer.streaming_decode() as released:
        results["stream"] = paired(lambda: released.decode_chunk(piece_BDL), lambda: stream.push(piece_BDL))
    rows = [
        [name, *(f"{1000 * s:.1f}" for s in (a, b)), f"{r:.2f}", f"{d:.1e}"] for name, (a, b, r, d) in results.items()
    ]
    kind = "CPU" if options.cpu_time else "wall"
    title = f"AudioVAE, {options.preset}, {options.seconds:g} s of audio, {kind} ms, {options.threads} threads"
    Console(width=110).print(table(title, ["", "released", "voxmill", "ratio", "difference"], rows))
    last: dict[str, float] = {f"ratio_{name}": round(ratio, 3) for name, (_, _, ratio, _) in results.items()}
    print(json.dumps(last | {"difference": max(result[3] for result in results.values())}))


if __name__ == "__main__":
    sys.exit(main())
