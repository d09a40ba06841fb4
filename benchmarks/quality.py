"""What DNSMOS and DistillMOS hear: both over known damage to the sample recordings.

    python benchmarks/quality.py [--seconds 16]

The first seconds of four recordings, which stay at 16 kHz, as they are and damaged in one way each; and, undamaged, in
pieces of some seconds. Scores are means over the recordings. The last line is one JSON object.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from annotation.audio.distillmos import DistillMos, MosConfig  # noqa: E402
from annotation.audio.quality import Dnsmos  # noqa: E402
from benchmarks.support.tables import table  # noqa: E402
from samples.turns import RATE, SAMPLES  # noqa: E402
from voxmill.core.audio import resample  # noqa: E402
from voxmill.core.errors import command  # noqa: E402

RECORDINGS = ("en-1", "fr-1", "it-1", "ru-1")
HEADINGS = ["of 1 to 5", "DNSMOS SIG", "BAK", "OVRL", "DistillMOS"]


def under(background: np.ndarray, level_db: float) -> Callable[[np.ndarray], np.ndarray]:
    """Speech over a background, at a level in dB."""

    def mixed(audio: np.ndarray) -> np.ndarray:
        noise = np.resize(background, len(audio))
        gain = np.sqrt(np.mean(audio**2) / np.mean(noise**2) / 10 ** (level_db / 10))
        both: np.ndarray = audio + gain * noise
        return both

    return mixed


def band_limited(audio: np.ndarray) -> np.ndarray:
    return resample(resample(audio, RATE, RATE // 2), RATE // 2, RATE)[: len(audio)]


def reverberant(audio: np.ndarray) -> np.ndarray:
    """In a room whose sound dies away by 60 dB in 0.7 s."""
    times = np.arange(int(0.7 * RATE)) / RATE
    tail = np.random.default_rng(2).standard_normal(len(times)) * 10 ** (-3 * times / 0.7)
    tail[0] = np.linalg.norm(tail)
    room: np.ndarray = np.convolve(audio, tail / np.linalg.norm(tail))[: len(audio)]
    return room


def clipped(audio: np.ndarray) -> np.ndarray:
    ceiling = 0.1 * np.abs(audio).max()
    cut: np.ndarray = np.clip(audio, -ceiling, ceiling) * 5
    return cut


def dropouts(audio: np.ndarray) -> np.ndarray:
    """A tenth of it lost, in pieces of 20 ms."""
    lost = np.random.default_rng(3).random(len(audio) // 320 + 1) < 0.1
    return np.where(np.repeat(lost, 320)[: len(audio)], 0.0, audio)


def eight_bits(audio: np.ndarray) -> np.ndarray:
    return np.round(audio * 40) / 40


@command("benchmarks/quality.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=16, help="of each recording")
    args = parser.parse_args()
    whole = [soundfile.read(SAMPLES / "recordings" / f"{name}.flac", dtype="float32")[0] for name in RECORDINGS]
    clean = [audio[: args.seconds * RATE] for audio in whole]
    music, _ = soundfile.read(SAMPLES / "recordings" / "music.flac", dtype="float32")
    white = np.random.default_rng(1).standard_normal(10 * RATE)
    damages: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "as it is": lambda audio: audio,
        "white noise, 20 dB below": under(white, 20),
        "white noise, 10 dB below": under(white, 10),
        "music, 10 dB below": under(music, 10),
        "nothing above 4 kHz": band_limited,
        "a room of 0.7 s": reverberant,
        "clipped at a tenth of its peak": clipped,
        "a tenth lost, 20 ms each": dropouts,
        "steps of a fortieth": eight_bits,
    }
    dnsmos, distillmos = Dnsmos(max_hops=3), DistillMos(MosConfig())
    rows: list[list[str]] = []
    numbers: dict[str, float] = {}

    def measure(name: str, clips: Sequence[np.ndarray]) -> None:
        first = np.mean([dnsmos(clip.astype(np.float32))[:3] for clip in clips], axis=0)
        second = float(np.mean([label.value for label in distillmos(clips) if label.value is not None]))
        rows.append([name, *(f"{value:.2f}" for value in [*first, second])])
        numbers[f"{name}: dnsmos_ovr"], numbers[f"{name}: distillmos"] = float(first[2]), second

    for name, damage in damages.items():
        measure(name, [damage(audio).astype(np.float32) for audio in clean])
    for seconds in (2, 4, 8):
        pieces = [audio[start : start + seconds * RATE] for audio in clean for start in (0, 8 * RATE)]
        measure(f"as it is, in pieces of {seconds} s", pieces)
    Console(width=110).print(table("what is heard", HEADINGS, rows))
    print(json.dumps({name: round(value, 3) for name, value in numbers.items()}))


if __name__ == "__main__":
    sys.exit(main())
