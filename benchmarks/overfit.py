"""A tiny model learns a few clips by heart and speaks them again; the embedded recogniser transcribes the result.

    python benchmarks/overfit.py --vae CHECKPOINT [--clips 1] [--steps 2500] [--out build/overfit]

The clips are two turns each of one sample recording. `voxmill train` (DeepSpeed, one rank, fp32) trains the `tiny`
preset on their latents from random weights; CHECKPOINT is a folder whose AudioVAE encodes and decodes them, such as
that of `benchmarks/vae_tiny.py`, after its latents are brought to mean 0 and deviation 1
(`support/standard_latents.py`). Then Whisper base transcribes, and errors are counted over all words (strict):

- recording: the clip itself;
- AudioVAE: the clip encoded and decoded, which is the result of perfect latents;
- teacher-forced: every patch is sampled after the true ones before it;
- continuation: the second turn, after the first turn's true latents as the prompt;
- basic: the whole clip from its text alone.

The speech lies in OUT as wav files. The last line is one JSON object.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from rich.console import Console
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.support.clip_audio import audio_by_clip  # noqa: E402
from benchmarks.support.sample_model import tiny_for, write_checkpoint  # noqa: E402
from benchmarks.support.standard_latents import standardised  # noqa: E402
from benchmarks.support.tables import table  # noqa: E402
from evaluation.metrics.error_rates import Errors, strict_errors  # noqa: E402
from evaluation.metrics.speech_recognition import RecognitionConfig, Whisper  # noqa: E402
from model.checkpoint import load_checkpoint, load_vae  # noqa: E402
from model.codec.audio_vae import AudioVAE  # noqa: E402
from model.config import VoxCPM2Config, read_config  # noqa: E402
from model.generation import Generator, Request, Settings, Voice  # noqa: E402
from model.generation.prompt_audio import encode_prompt, to_rate  # noqa: E402
from samples.fabricate import add_latents, rows, write_dataset  # noqa: E402
from samples.turns import SAMPLES  # noqa: E402
from training.curriculum.corpus import Corpus, read_corpus  # noqa: E402
from training.curriculum.recipe import load_recipe  # noqa: E402
from voxmill.core.audio import RATE_16K, Samples  # noqa: E402
from voxmill.core.errors import JobError, command  # noqa: E402

PATCH_SECONDS = 0.16
RECOGNISER_RATE = RATE_16K
SAMPLING_STEPS = 20
KINDS = ("recording", "AudioVAE", "teacher-forced", "continuation", "basic")


@dataclass(frozen=True)
class TrainedClip:
    """A training clip of two turns; `boundary`: patches before the middle of the pause between them."""

    name: str
    first_text: str
    second_text: str
    boundary: int
    audio_T: Samples
    rate: int
    latent_GPD: Tensor

    @property
    def text(self) -> str:
        """As it is trained on."""
        return f"{self.first_text} {self.second_text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """One clip as it was spoken in one way."""

    name: str
    audio: Samples
    """At `RECOGNISER_RATE`."""
    text: str
    """The words that it should have."""
    error: float
    """Distance of its latents from the true ones, see `distance`."""


def prepare(out: Path, options: argparse.Namespace) -> None:
    """A random checkpoint around the AudioVAE, and the clips with their latents."""
    write_dataset(out / "dataset", rows((options.recording,), clips_each=options.clips, joined=(2,)))
    vae = load_vae(options.vae, read_config(options.vae))
    if not options.raw_latents:
        audio = audio_by_clip(out / "dataset", vae.config.sample_rate).values()
        latents = [encode_prompt(audio_T, vae, patch_size=1, pad="right")[:, 0] for audio_T in audio]
        vae = standardised(vae, torch.cat(latents))
    config = tiny_for(vae.config).model_dump()
    # A clip that is learnt by heart is known before anything of a patch is visible: all noise levels count alike.
    config["dit_config"]["cfm_config"]["t_scheduler"] = "uniform"
    write_checkpoint(out / "checkpoint", VoxCPM2Config.model_validate(config), seed=options.seed, vae=vae)
    add_latents(out / "dataset", out / "checkpoint")


def settings(out: Path, options: argparse.Namespace) -> list[str]:
    """Overrides of the recipe `tiny_stage1`: these clips again and again, at a constant mixture."""
    return [
        f"init={out / 'checkpoint'}",
        f"datasets.main.path={out / 'dataset'}",
        f"run.out={out / 'run'}",
        f"steps={options.steps}",
        "rows=1",
        "clips.max_seconds=60",
        "mixture.modes={basic: 1.0}",
        "max_positions=256",
        "packing={positions: 256, window: 8}",
        f"optimizer.learning_rate={options.learning_rate}",
        "optimizer.warmup_steps=20",
        "optimizer.final=0.02",
        "optimizer.weight_decay=0",
        "health.spike=null",
        f"run.save_every={options.steps}",
        "run.keep=1",
        "run.tracking_uri=none",
        f"seed={options.seed}",
    ]


def train(out: Path, options: argparse.Namespace) -> list[dict[str, float]]:
    """Runs the trainer and returns its log, a row a step."""
    child = [sys.executable, "-m", "voxmill", "train", "tiny_stage1", *settings(out, options)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    with (out / "train.log").open("w") as log:
        status = subprocess.run(child, cwd=ROOT, env=environment, stdout=log, stderr=log).returncode
    if status:
        raise JobError(f"training ended with status {status}; see {out / 'train.log'}")
    return [json.loads(line) for line in (out / "run" / "metrics.jsonl").read_text().splitlines()]


def curve(lines: list[dict[str, float]], points: int = 10) -> list[list[str]]:
    """The loss over the run: means of as many stretches of equal length."""
    size = max(len(lines) // points, 1)
    stretches = [lines[start : start + size] for start in range(0, len(lines), size)]
    return [
        [f"{stretch[0]['step']} to {stretch[-1]['step']}"]
        + [f"{statistics.fmean(line[key] for line in stretch):.4f}" for key in ("loss", "diffusion", "stop")]
        for stretch in stretches
    ]


def trained_clips(out: Path, corpus: Corpus, recording: str) -> list[TrainedClip]:
    """The training clips with their turns."""
    truth = {
        Path(record["path"]).stem: record["turns"]
        for record in map(json.loads, (SAMPLES / "truth.jsonl").read_text(encoding="utf-8").splitlines())
    }
    turns = truth[recording]
    whole, rate = soundfile.read(SAMPLES / "recordings" / f"{recording}.flac", dtype="float32")
    clips = []
    for number in range(len(corpus)):
        first, second = turns[2 * number : 2 * number + 2]
        middle = (first["end"] + second["start"]) / 2 - first["start"]
        audio_T = whole[round(first["start"] * rate) : round(second["end"] * rate)]
        clips.append(
            TrainedClip(
                corpus.clip_id(number),
                first["text"],
                second["text"],
                round(middle / PATCH_SECONDS),
                audio_T,
                rate,
                corpus.read(number).float(),
            )
        )
        assert clips[-1].text == corpus.text(number), "the clip is not those two turns"
    return clips


class Speaker:
    """The trained model's ways to speak a clip, and the decoder for the recogniser."""

    def __init__(self, checkpoint: Path, source_rate: int, guidance: float, seed: int) -> None:
        loaded = load_checkpoint(checkpoint)
        self.vae: AudioVAE = loaded.vae
        self._generator = Generator.of(loaded)
        self._source_rate, self._guidance, self._seed = source_rate, guidance, seed

    def basic(self, clip: TrainedClip) -> Tensor:
        """Patches of the whole clip from its text."""
        return self._speak(clip.text, Voice(), limit=2 * len(clip.latent_GPD))

    def continuation(self, clip: TrainedClip) -> Tensor:
        """Patches of the second turn after the true first one."""
        voice = Voice(prompt_text=clip.first_text, prompt_TPD=clip.latent_GPD[: clip.boundary])
        return self._speak(f" {clip.second_text}", voice, limit=2 * len(clip.latent_GPD))

    def teacher_forced(self, clip: TrainedClip) -> Tensor:
        """Every patch of the clip after the true ones before it."""
        patches = [self._speak(clip.text, Voice(), limit=1)]
        for known in range(1, len(clip.latent_GPD)):
            # The whole text is the prompt's except its last letter: a request needs a text.
            voice = Voice(prompt_text=clip.text[:-1], prompt_TPD=clip.latent_GPD[:known])
            patches.append(self._speak(clip.text[-1], voice, limit=1))
        return torch.cat(patches)

    def _speak(self, text: str, voice: Voice, *, limit: int) -> Tensor:
        sampling = Settings(steps=SAMPLING_STEPS, guidance=self._guidance, max_len=limit, attempts=1)
        return self._generator.generate(Request(text, voice=voice, settings=sampling, seed=self._seed)).patches_GPD

    @torch.no_grad()
    def audio(self, patches_GPD: Tensor, before_CPD: Tensor | None = None) -> Samples:
        """Audio of patches at the recogniser's rate; the decoder gets `before_CPD` first, whose audio is cut off."""
        before_CPD = patches_GPD[:0] if before_CPD is None else before_CPD
        frames_LD = torch.cat([before_CPD, patches_GPD]).flatten(0, 1)
        audio_BT = self.vae.decode(frames_LD.T[None].to(self.vae.dtype), sample_rate=self._source_rate)
        skipped = len(before_CPD) * patches_GPD.shape[1] * self.vae.samples_per_latent
        samples: Samples = audio_BT[0, skipped:].numpy()
        return to_rate(samples, self.vae.config.out_sample_rate, rate=RECOGNISER_RATE)


def distance(spoken_GPD: Tensor, true_GPD: Tensor) -> float:
    """Root mean square error over the patches that both have, in deviations of the true latents around their means."""
    count = min(len(spoken_GPD), len(true_GPD))
    error = (spoken_GPD[:count] - true_GPD[:count]).square().mean().sqrt()
    return float(error / (true_GPD - true_GPD.mean(dim=(0, 1))).square().mean().sqrt())


def speak_all(speaker: Speaker, clips: list[TrainedClip]) -> dict[str, list[Spoken]]:
    """Every clip in every kind."""
    spoken: dict[str, list[Spoken]] = {kind: [] for kind in KINDS}
    for clip in clips:
        true = clip.latent_GPD
        known, rest = true[: clip.boundary], true[clip.boundary :]
        forced, continued = speaker.teacher_forced(clip), speaker.continuation(clip)
        basic = speaker.basic(clip)
        recorded = to_rate(clip.audio_T, clip.rate, rate=RECOGNISER_RATE)
        for kind, audio, text, error in (
            ("recording", recorded, clip.text, 0.0),
            ("AudioVAE", speaker.audio(true), clip.text, 0.0),
            ("teacher-forced", speaker.audio(forced), clip.text, distance(forced, true)),
            ("continuation", speaker.audio(continued, known), clip.second_text, distance(continued, rest)),
            ("basic", speaker.audio(basic), clip.text, distance(basic, true)),
        ):
            spoken[kind].append(Spoken(name=clip.name, audio=audio, text=text, error=error))
    return spoken


def word_errors(
    spoken: list[Spoken], transcribe: Callable[[np.ndarray], str], language: str
) -> tuple[float, list[str]]:
    """(errors a word, the transcript of each clip)."""
    transcripts = [transcribe(one.audio) for one in spoken]
    errors: list[Errors] = [
        strict_errors(transcript, one.text, language) for transcript, one in zip(transcripts, spoken, strict=True)
    ]
    return sum(e.total for e in errors) / sum(e.length for e in errors), transcripts


@command("benchmarks/overfit.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, required=True, help="checkpoint folder with the AudioVAE")
    parser.add_argument("--recording", default="en-1", help="of the samples")
    parser.add_argument("--clips", type=int, default=1, choices=range(1, 5))
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--raw-latents", action="store_true", help="leave the AudioVAE's scale as it is")
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "overfit")
    options = parser.parse_args()
    torch.set_num_threads(1)
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    prepare(options.out, options)
    began = time.perf_counter()
    lines = train(options.out, options)
    minutes = (time.perf_counter() - began) / 60
    clips = trained_clips(
        options.out, read_corpus(load_recipe("tiny_stage1", settings(options.out, options))), options.recording
    )
    speaker = Speaker(options.out / "run" / "export", clips[0].rate, options.guidance, options.seed)
    spoken = speak_all(speaker, clips)
    language, whisper = options.recording.split("-")[0], Whisper(RecognitionConfig())
    cells, last = [], dict[str, object]()
    for kind in KINDS:
        rate, texts = word_errors(spoken[kind], lambda audio: whisper(audio, language), language)
        error = statistics.fmean(one.error for one in spoken[kind])
        cells.append([kind, f"{rate:.3f}", f"{error:.3f}", " / ".join(texts)[:90]])
        last[f"wer_{kind.lower().replace('-', '_')}"] = round(rate, 4)
        for one in spoken[kind]:
            soundfile.write(options.out / f"{one.name}-{kind.lower()}.wav", one.audio, RECOGNISER_RATE)
    console = Console(width=150)
    console.print(table("loss", ["steps", "loss", "diffusion", "stop"], curve(lines)))
    title = f"{len(clips)} clips, {options.steps} steps in {minutes:.1f} minutes"
    console.print(table(title, ["", "WER", "latent error", "transcript"], cells))
    positions = statistics.median(line["positions"] for line in lines)
    last |= {
        "minutes": round(minutes, 2),
        "steps": options.steps,
        "clips": len(clips),
        "positions_a_step": positions,
        "diffusion_first": round(lines[0]["diffusion"], 4),
        "diffusion_last": round(lines[-1]["diffusion"], 4),
    }
    print(json.dumps(last))


if __name__ == "__main__":
    sys.exit(main())
