"""What the planner of data needs beside a run's own record: stages that `run.json` has no seconds of.

    python benchmarks/planner_rates.py [--rate 48000] [--preset voxcpm2] [--device cpu] [--batches 2]

Seconds of one core for an hour of audio, on the sample recordings at `--rate`: `scan` decodes a file to its end and
hashes it, `write` makes FLAC of clips, `shards` copies clips from one tar into another, `load` decodes clips and
resamples them for AudioVAE. `encode` is AudioVAE itself, random weights in fp32, on `--device`, in batches as
`voxmill encode` makes them. Also bytes of a FLAC sample at that rate, and of a clip in a latent shard beside its
numbers. CPU time counts, and on a GPU the clock. The last line is one JSON object.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import soundfile
import torch
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.support.tables import table  # noqa: E402
from model.codec.audio_vae import AudioVAE  # noqa: E402
from model.presets import preset  # noqa: E402
from pipelines.config import EncodeConfig  # noqa: E402
from pipelines.inputs import media  # noqa: E402
from samples.fabricate import rows  # noqa: E402
from voxmill.core.audio import Samples, decode_flac, encode_flac, resample  # noqa: E402
from voxmill.core.errors import command  # noqa: E402
from voxmill.core.machine.devices import limit_threads  # noqa: E402
from voxmill.data.shards import TarWriter, latent_bytes, read_member  # noqa: E402

WINDOW_SECONDS = 300.0
RECORDINGS = ("en-1", "en-2", "es-1", "fr-1", "fr-2", "it-1", "it-2", "ru-1")


def seconds_of(started: float) -> float:
    """CPU time of this process since `started`: others on the machine do not count."""
    return time.process_time() - started


def scan_seconds(folder: Path) -> float:
    """Scanning every file in `folder`, for an hour of audio."""
    hours: float = sum(soundfile.info(path).duration for path in folder.iterdir()) / 3600
    started = time.process_time()
    for path in folder.iterdir():
        media.scan(str(path), WINDOW_SECONDS)
    return seconds_of(started) / hours


def copy_seconds(folder: Path, flacs: list[bytes], hours: float) -> float:
    """Clips from a tar into another, as shards are packed."""
    with TarWriter(folder / "unit.tar") as tar:
        members = [tar.add(f"{number}.flac", content) for number, content in enumerate(flacs)]
    started = time.process_time()
    with TarWriter(folder / "shard.tar", named_by_content=True) as tar:
        for member in members:
            tar.add(member.name, read_member(folder, "unit.tar", member.offset, member.size))
    return seconds_of(started) / hours


def encode_seconds(vae: AudioVAE, audio: list[Samples], batches: int) -> float:
    """The encoder over batches of clips, for an hour of audio: CPU time, or on a GPU the clock."""
    rate = vae.config.sample_rate
    length = round(EncodeConfig().batch_seconds * rate)
    mono_T = torch.cat([torch.from_numpy(samples) for samples in audio])
    while len(mono_T) < length:
        mono_T = mono_T.repeat(2)
    batch_BT = mono_T[:length].reshape(12, -1).to(vae.device)

    clock = time.process_time if vae.device.type == "cpu" else time.perf_counter

    def once() -> float:
        started = clock()
        with torch.no_grad():
            vae.encode(batch_BT).cpu()
        return clock() - started

    if vae.device.type == "cuda":
        once()
    return sum(once() for _ in range(batches)) / (batches * length / rate / 3600)


@command("benchmarks/planner_rates.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=48000, help="sample rate of the recordings, in Hz")
    parser.add_argument("--preset", default="voxcpm2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, default=2, help="of two minutes each")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    limit_threads(arguments.threads)
    torch.manual_seed(0)
    vae = AudioVAE(preset(arguments.preset).audio_vae_config).freeze().to(arguments.device)

    clips = [resample(*decode_flac(flac), arguments.rate) for _, flac in rows(RECORDINGS, clips_each=100)]
    hours = sum(map(len, clips)) / arguments.rate / 3600
    with tempfile.TemporaryDirectory(prefix="voxmill-rates-") as name:
        folder, source = Path(name), Path(name) / "in"
        source.mkdir()
        for path in (ROOT / "samples" / "recordings").glob("*.flac"):
            samples, native = soundfile.read(path, dtype="float32")
            (source / path.name).write_bytes(encode_flac(resample(samples, native, arguments.rate), arguments.rate))
        found = {"scan": scan_seconds(source)}
        started = time.process_time()
        flacs = [encode_flac(samples, arguments.rate) for samples in clips]
        found["write"] = seconds_of(started) / hours
        found["shards"] = copy_seconds(folder, flacs, hours)
    started = time.process_time()
    audio = [resample(*decode_flac(flac), vae.config.sample_rate) for flac in flacs]
    found["load"] = seconds_of(started) / hours
    found["encode"] = encode_seconds(vae, audio, arguments.batches)

    headings = ["stage", "seconds an audio hour"]
    device = torch.cuda.get_device_name() if vae.device.type == "cuda" else arguments.device
    title = f"{arguments.rate} Hz, {arguments.threads} thread(s), encoder on {device}"
    Console(width=100).print(table(title, headings, [[stage, f"{value:.2f}"] for stage, value in found.items()]))
    sizes = {
        "flac_sample": sum(map(len, flacs)) / sum(map(len, clips)),
        "latent_clip": float(latent_clip_bytes()),
    }
    print(json.dumps({"device": device} | {name: float(f"{value:.4g}") for name, value in (found | sizes).items()}))


def latent_clip_bytes() -> int:
    """What a latent shard holds of a clip beside its numbers: safetensors' header, a tar header, half a tar block."""
    latent_LD = torch.zeros(100, 64)
    return len(latent_bytes(latent_LD)) - latent_LD.numel() * 2 + 512 + 256


if __name__ == "__main__":
    sys.exit(main())
