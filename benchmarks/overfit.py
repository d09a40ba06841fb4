"""A tiny model learns a few clips by heart and says them again: does the embedded recogniser read their words back?

    python benchmarks/overfit.py --vae CHECKPOINT [--clips 1] [--steps 2500] [--out build/overfit]

The clips are two turns each of one sample recording. `voxmill train` (DeepSpeed, one rank, fp32) trains the `tiny`
preset on their latents from random weights; CHECKPOINT is a folder whose AudioVAE makes the latents and the sound,
such as `benchmarks/vae_tiny.py` gives, whose latents are brought to mean 0 and deviation 1 first
(`standard_latents.py`). Then Whisper base hears, and errors are counted over all words (strict):

- recording: the clip itself;
- AudioVAE: the clip encoded and decoded, which is what perfect latents give;
- teacher-forced: every patch is sampled after the true ones before it;
- continuation: the second turn, after the first turn's true latents as the prompt;
- basic: the whole clip from its text alone.

What was said lies in OUT as wav files. The last line is one JSON object.
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

from benchmarks.clip_sound import audio_by_clip  # noqa: E402
from benchmarks.sample_model import tiny_for, write_checkpoint  # noqa: E402
from benchmarks.standard_latents import standardised  # noqa: E402
from benchmarks.tables import table  # noqa: E402
from evaluation.metrics.error_rates import Errors, strict_errors  # noqa: E402
from evaluation.metrics.speech_recognition import RecognitionConfig, Whisper  # noqa: E402
from model.checkpoint import load_checkpoint, load_vae  # noqa: E402
from model.codec.audio_vae import AudioVAE  # noqa: E402
from model.config import VoxCPM2Config, read_config  # noqa: E402
from model.generation.generator import Generator  # noqa: E402
from model.generation.prompt_audio import encode_prompt, to_rate  # noqa: E402
from model.generation.request import Request, Settings  # noqa: E402
from model.generation.voice import Voice  # noqa: E402
from samples.fabricate import add_latents, rows, write_dataset  # noqa: E402
from samples.turns import SAMPLES  # noqa: E402
from training.curriculum.corpus import Corpus, read_corpus  # noqa: E402
from training.curriculum.recipe import load_recipe  # noqa: E402
from voxmill.core.errors import JobError, command  # noqa: E402

PATCH_SECONDS = 0.16
HEARD_RATE = 16000
SAMPLING_STEPS = 20
KINDS = ("recording", "AudioVAE", "teacher-forced", "continuation", "basic")


@dataclass(frozen=True)
class Lesson:
    """A training clip of two turns; `boundary`: patches before the middle of the pause between them."""

    name: str
    first_text: str
    second_text: str
    boundary: int
    audio_T: np.ndarray
    rate: int
    latent_GPD: Tensor

    @property
    def text(self) -> str:
        """As it is trained on."""
        return f"{self.first_text} {self.second_text}"


def prepare(out: Path, options: argparse.Namespace) -> None:
    """A random checkpoint around the AudioVAE, and the clips with their latents."""
    write_dataset(out / "dataset", rows((options.recording,), clips_each=options.clips, joined=(2,)))
    vae = load_vae(options.vae, read_config(options.vae))
    if not options.raw_latents:
        audio = audio_by_clip(out / "dataset", vae.config.sample_rate).values()
        latents = [encode_prompt(audio_T, vae, patch_size=1, pad="right")[:, 0] for audio_T in audio]
        vae = standardised(vae, torch.cat(latents))
    config = tiny_for(vae.config).model_dump()
    # What is known by heart is known before anything of the patch is seen: all noise levels count alike.
    config["dit_config"]["cfm_config"]["t_scheduler"] = "uniform"
    write_checkpoint(out / "checkpoint", VoxCPM2Config.model_validate(config), seed=options.seed, vae=vae)
    add_latents(out / "dataset", out / "checkpoint")


def settings(out: Path, options: argparse.Namespace) -> list[str]:
    """What the recipe `tiny_stage1` is changed to: these clips over and over, at a constant mixture."""
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
    """Runs the script and returns what it logged, a row a step."""
    command = [sys.executable, "-m", "voxmill", "train", "tiny_stage1", *settings(out, options)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    with (out / "train.log").open("w") as log:
        status = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log).returncode
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


def lessons(out: Path, corpus: Corpus, recording: str) -> list[Lesson]:
    """The training clips, with what is known of them."""
    truth = {
        Path(record["path"]).stem: record["turns"]
        for record in map(json.loads, (SAMPLES / "truth.jsonl").read_text(encoding="utf-8").splitlines())
    }
    turns = truth[recording]
    whole, rate = soundfile.read(SAMPLES / "recordings" / f"{recording}.flac", dtype="float32")
    found = []
    for clip in range(len(corpus)):
        first, second = turns[2 * clip : 2 * clip + 2]
        middle = (first["end"] + second["start"]) / 2 - first["start"]
        audio_T = whole[round(first["start"] * rate) : round(second["end"] * rate)]
        found.append(
            Lesson(
                corpus.value(clip, "clip_id"),
                first["text"],
                second["text"],
                round(middle / PATCH_SECONDS),
                audio_T,
                rate,
                corpus.read(clip).float(),
            )
        )
        assert found[-1].text == corpus.value(clip, "text"), "the clip is not those two turns"
    return found


class Speaker:
    """The trained model's ways to say a lesson; latents in, sound at the recogniser's rate out."""

    def __init__(self, checkpoint: Path, source_rate: int, guidance: float, seed: int) -> None:
        loaded = load_checkpoint(checkpoint)
        self.vae: AudioVAE = loaded.vae
        self._generator = Generator.of(loaded)
        self._source_rate, self._guidance, self._seed = source_rate, guidance, seed

    def basic(self, lesson: Lesson) -> Tensor:
        """Patches of the whole clip from its text."""
        return self._say(lesson.text, Voice(), limit=2 * len(lesson.latent_GPD))

    def continuation(self, lesson: Lesson) -> Tensor:
        """Patches of the second turn after the true first one."""
        voice = Voice(prompt_text=lesson.first_text, prompt_TPD=lesson.latent_GPD[: lesson.boundary])
        return self._say(f" {lesson.second_text}", voice, limit=2 * len(lesson.latent_GPD))

    def teacher_forced(self, lesson: Lesson) -> Tensor:
        """Every patch of the clip after the true ones before it."""
        said = [self._say(lesson.text, Voice(), limit=1)]
        for known in range(1, len(lesson.latent_GPD)):
            # The whole text is the prompt's but for its last letter: a request must say something.
            voice = Voice(prompt_text=lesson.text[:-1], prompt_TPD=lesson.latent_GPD[:known])
            said.append(self._say(lesson.text[-1], voice, limit=1))
        return torch.cat(said)

    def _say(self, text: str, voice: Voice, *, limit: int) -> Tensor:
        sampling = Settings(steps=SAMPLING_STEPS, guidance=self._guidance, max_len=limit, attempts=1)
        return self._generator.generate(Request(text, voice=voice, settings=sampling, seed=self._seed)).patches_GPD

    @torch.no_grad()
    def sound(self, patches_GPD: Tensor, before_CPD: Tensor | None = None) -> np.ndarray:
        """Audio of patches, decoded for the recording's rate; `before_CPD` is heard by the decoder and cut off."""
        before_CPD = patches_GPD[:0] if before_CPD is None else before_CPD
        frames_LD = torch.cat([before_CPD, patches_GPD]).flatten(0, 1)
        audio_BT = self.vae.decode(frames_LD.T[None].to(self.vae.dtype), sample_rate=self._source_rate)
        skipped = len(before_CPD) * patches_GPD.shape[1] * self.vae.samples_per_latent
        made = audio_BT[0, skipped:].numpy()
        return to_rate(made, self.vae.config.out_sample_rate, rate=HEARD_RATE)


def distance(said_GPD: Tensor, true_GPD: Tensor) -> float:
    """Root mean square error over the patches that both have, in deviations of the true latents around their means."""
    count = min(len(said_GPD), len(true_GPD))
    error = (said_GPD[:count] - true_GPD[:count]).square().mean().sqrt()
    return float(error / (true_GPD - true_GPD.mean(dim=(0, 1))).square().mean().sqrt())


def say_all(speaker: Speaker, taught: list[Lesson]) -> dict[str, list[tuple[str, np.ndarray, str, float]]]:
    """By kind: (clip, audio, words that it should have, distance of its latents) of every lesson."""
    found: dict[str, list[tuple[str, np.ndarray, str, float]]] = {kind: [] for kind in KINDS}
    for lesson in taught:
        true = lesson.latent_GPD
        known, rest = true[: lesson.boundary], true[lesson.boundary :]
        forced, continued = speaker.teacher_forced(lesson), speaker.continuation(lesson)
        basic = speaker.basic(lesson)
        heard = to_rate(lesson.audio_T, lesson.rate, rate=HEARD_RATE)
        for kind, audio, text, error in (
            ("recording", heard, lesson.text, 0.0),
            ("AudioVAE", speaker.sound(true), lesson.text, 0.0),
            ("teacher-forced", speaker.sound(forced), lesson.text, distance(forced, true)),
            ("continuation", speaker.sound(continued, known), lesson.second_text, distance(continued, rest)),
            ("basic", speaker.sound(basic), lesson.text, distance(basic, true)),
        ):
            found[kind].append((lesson.name, audio, text, error))
    return found


def judge(
    said: list[tuple[str, np.ndarray, str, float]], hear: Callable[[np.ndarray], str], language: str
) -> tuple[float, list[str]]:
    """(errors a word, what was heard of each clip)."""
    texts = [hear(audio) for _, audio, _, _ in said]
    errors: list[Errors] = [
        strict_errors(heard, text, language) for heard, (_, _, text, _) in zip(texts, said, strict=True)
    ]
    return sum(e.total for e in errors) / sum(e.length for e in errors), texts


@command("voxmill")
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
    taught = lessons(
        options.out, read_corpus(load_recipe("tiny_stage1", settings(options.out, options))), options.recording
    )
    speaker = Speaker(options.out / "run" / "export", taught[0].rate, options.guidance, options.seed)
    said = say_all(speaker, taught)
    language, whisper = options.recording.split("-")[0], Whisper(RecognitionConfig())
    cells, last = [], dict[str, object]()
    for kind in KINDS:
        rate, texts = judge(said[kind], lambda audio: whisper(audio, language), language)
        error = statistics.fmean(one[3] for one in said[kind])
        cells.append([kind, f"{rate:.3f}", f"{error:.3f}", " / ".join(texts)[:90]])
        last[f"wer_{kind.lower().replace('-', '_')}"] = round(rate, 4)
        for name, audio, _, _ in said[kind]:
            soundfile.write(options.out / f"{name}-{kind.lower()}.wav", audio, HEARD_RATE)
    console = Console(width=150)
    console.print(table("loss", ["steps", "loss", "diffusion", "stop"], curve(lines)))
    title = f"{len(taught)} clips, {options.steps} steps in {minutes:.1f} minutes"
    console.print(table(title, ["", "WER", "latent error", "heard"], cells))
    positions = statistics.median(line["positions"] for line in lines)
    last |= {
        "minutes": round(minutes, 2),
        "steps": options.steps,
        "clips": len(taught),
        "positions_a_step": positions,
        "diffusion_first": round(lines[0]["diffusion"], 4),
        "diffusion_last": round(lines[-1]["diffusion"], 4),
    }
    print(json.dumps(last))


if __name__ == "__main__":
    sys.exit(main())
