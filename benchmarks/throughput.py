"""Audio trained on in a second: `voxmill train` beside the released fine-tuning loop, on one thread of this CPU.

    python benchmarks/throughput.py [--preset small] [--repeats 5] [--steps 2] [--rows 2] [--out FOLDER]

Clips are one to four turns of the sample recordings, with descriptions and references; weights are random and the
same. voxmill is the script itself in a process of its own (DeepSpeed, one rank, ZeRO 0, fp32): latents from shards,
packed rows, losses where they are needed. The released loop (`released_loop.py`) gets the very samples of our steps,
in as many optimizer steps, and encodes them as it goes. Sides take turns; medians of the pairs' ratios. What counts
is the duration of the targets; references and padding are not useful. Encoding the clips once is timed too:
`ratio_first_epoch` charges all of it to the first pass over them. The released code is `pip install --no-deps
voxcpm==2.0.3`. Last line: JSON.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.peer.released_loop import ReleasedLoop, Sample, Spent  # noqa: E402
from benchmarks.support.clip_audio import audio_by_clip  # noqa: E402
from benchmarks.support.sample_model import for_samples, write_checkpoint  # noqa: E402
from benchmarks.support.tables import table  # noqa: E402
from model.checkpoint import load_checkpoint  # noqa: E402
from model.presets import PRESETS, preset  # noqa: E402
from model.sequence.text_tokenizer import TextTokenizer  # noqa: E402
from samples.fabricate import add_latents, rows, write_dataset  # noqa: E402
from training.curriculum.corpus import Corpus, read_corpus  # noqa: E402
from training.curriculum.recipe import Recipe, load_recipe  # noqa: E402
from training.curriculum.sample_stream import SampleStream  # noqa: E402
from voxmill.core.errors import JobError, command  # noqa: E402

RECORDINGS = ("en-1", "en-2", "es-1", "fr-1", "fr-2", "it-1", "it-2", "ru-1")
TURNS = (1, 3, 2, 4, 1, 2)
MODES = "{basic: 0.25, design: 0.25, reference: 0.25, controllable: 0.25}"
"""All modes of a clip, equally, as in `train_step.py`; continuation is shown as basic is."""
LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class Stretch:
    """Some optimizer steps of one side. `audio_seconds`: of targets; `loss`: of the first of them."""

    seconds: float
    audio_seconds: float
    positions: int
    loss: float
    vae_seconds: float = 0.0


def settings(folder: Path, options: argparse.Namespace) -> list[str]:
    """Overrides of the recipe `tiny_stage2`."""
    return [
        f"init={folder / 'checkpoint'}",
        f"datasets.main.path={folder / 'dataset'}",
        f"run.out={folder / 'run'}",
        f"steps={options.warm_up + options.steps}",
        f"rows={options.rows}",
        f"max_positions={options.positions}",
        f"packing={{positions: {options.positions}, window: 64}}",
        "clips.max_seconds=30",
        f"mixture.modes={options.modes}",
        f"optimizer.learning_rate={LEARNING_RATE}",
        "optimizer.warmup_steps=0",
        "health.spike=null",
        "run.save_every=1000000",
        "run.tracking_uri=none",
        f"seed={options.seed}",
        f"engine.zero={options.zero}",
    ]


def prepare(folder: Path, options: argparse.Namespace) -> None:
    """The checkpoint and the dataset with its latents."""
    config = for_samples(preset(options.preset), max_length=options.positions)
    write_checkpoint(folder / "checkpoint", config, seed=options.seed)
    write_dataset(folder / "dataset", rows(RECORDINGS, clips_each=10**6, joined=TURNS))
    add_latents(folder / "dataset", folder / "checkpoint", unit_seconds=3600.0)


def ours(folder: Path, options: argparse.Namespace) -> Stretch:
    """Runs the script from its first step and reads what it logged of those after the warm-up."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    command = [sys.executable, str(ROOT / "training" / "train.py"), "tiny_stage2", *settings(folder, options)]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise JobError(f"training ended with status {done.returncode}: {(done.stderr or done.stdout)[-500:]}")
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    measured = lines[options.warm_up :]
    seconds = [line["positions"] / line["positions_per_second"] for line in measured]
    trained = [line["audio_seconds_per_second"] * spent for line, spent in zip(measured, seconds, strict=True)]
    return Stretch(sum(seconds), sum(trained), sum(line["positions"] for line in measured), lines[0]["loss"])


class Released:
    """The released loop over the samples of our steps."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        recipe = load_recipe("tiny_stage2", settings(folder, options))
        self.corpus, self._warm_up, self._seed = read_corpus(recipe), options.warm_up, options.seed
        self._loop = ReleasedLoop(load_checkpoint(folder / "checkpoint"), learning_rate=LEARNING_RATE)
        self._steps, self._seconds = self._samples(recipe)
        self._first: Spent | None = None

    def _samples(self, recipe: Recipe) -> tuple[list[list[Sample]], list[float]]:
        """Samples and target seconds of each of our steps."""
        stream = SampleStream(self.corpus, recipe, TextTokenizer.from_folder(recipe.init))
        shown = [[sample for row in stream.next_step() for sample in row] for _ in range(recipe.steps)]
        audio = audio_by_clip(self.corpus.datasets[0].path, self._loop.packer.audio_vae.sample_rate)

        def audio_of(clip: int) -> Tensor:
            return audio[self.corpus.clip_id(clip)]

        steps = [
            [
                Sample(tokens, audio_of(s.clip), None if s.reference is None else audio_of(s.reference))
                for s, tokens in zip(step, stream.reader.tokens(step), strict=True)
            ]
            for step in shown
        ]
        return steps, [float(sum(self.corpus.seconds[s.clip] for s in step)) for step in shown]

    def __call__(self) -> Stretch:
        torch.manual_seed(self._seed)
        if self._first is None:
            warm = [self._loop.step(samples) for samples in self._steps[: self._warm_up]]
            self._first = warm[0]
        spent = [self._loop.step(samples) for samples in self._steps[self._warm_up :]]
        return Stretch(
            sum(s.seconds for s in spent),
            sum(self._seconds[self._warm_up :]),
            sum(s.positions for s in spent),
            self._first.loss,
            sum(s.vae_seconds for s in spent),
        )


def encoding(folder: Path, corpus: Corpus) -> float:
    """Seconds that latents of one second of clips take."""
    began = time.perf_counter()
    add_latents(folder / "dataset", folder / "checkpoint", unit_seconds=3600.0)
    return (time.perf_counter() - began) / float(corpus.seconds[:].sum())


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Prepares, takes turns, prints."""
    prepare(folder, options)
    released = Released(folder, options)
    pairs: list[tuple[Stretch, Stretch]] = []
    encodings: list[float] = []
    for _ in range(options.repeats):
        pairs.append((released(), ours(folder, options)))
        encodings.append(encoding(folder, released.corpus))
    assert all(abs(peer.audio_seconds - mine.audio_seconds) < 1e-3 for peer, mine in pairs), "not the same samples"
    encode = statistics.median(encodings)
    costs = [(peer.seconds / peer.audio_seconds, mine.seconds / mine.audio_seconds) for peer, mine in pairs]
    ratios = [theirs / mine for theirs, mine in costs]
    first_epoch = [theirs / (mine + encode) for theirs, mine in costs]
    without_vae = [(p.seconds - p.vae_seconds) / m.seconds for p, m in pairs]
    cells = []
    for name, side in (("released", 0), ("voxmill", 1)):
        stretches = [pair[side] for pair in pairs]
        spent = statistics.median(s.seconds for s in stretches)
        vae = statistics.median(s.vae_seconds for s in stretches)
        cells.append(
            [
                name,
                f"{statistics.median(s.audio_seconds / s.seconds for s in stretches):.2f}",
                f"{spent:.2f}",
                f"{vae:.2f}",
                str(stretches[0].positions),
                f"{stretches[0].loss:.4f}",
            ]
        )
    headings = ["", "audio s trained a second", "s", "of it AudioVAE", "positions", "loss of the first step"]
    title = (
        f"{options.steps} optimizer steps, {pairs[0][1].audio_seconds:.0f} s of targets, {options.preset}, fp32, "
        f"threads {options.threads}"
    )
    Console(width=120).print(table(title, headings, cells))
    print(f"latents once: {encode:.4f} s a second of clips")
    last = {
        "ratio": statistics.median(ratios),
        "ratio_first_epoch": statistics.median(first_epoch),
        "ratio_without_vae": statistics.median(without_vae),
        "encode_seconds_a_second": encode,
        "audio_seconds_a_second": statistics.median(1 / mine for _, mine in costs),
        "audio_seconds_a_second_released": statistics.median(1 / theirs for theirs, _ in costs),
    }
    print(json.dumps({key: round(value, 4) for key, value in last.items()} | {"ratios": [round(r, 3) for r in ratios]}))


@command("benchmarks/throughput.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps that are measured")
    parser.add_argument("--warm-up", type=int, default=1, help="steps before them")
    parser.add_argument("--rows", type=int, default=2, help="packed rows a step")
    parser.add_argument("--positions", type=int, default=512, help="of a packed row, and of a sample at most")
    parser.add_argument("--zero", type=int, choices=range(4), default=0, help="one rank has nothing to divide")
    parser.add_argument("--modes", default=MODES, help="shares of target seconds, as a recipe has them")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where checkpoint, dataset and runs lie; default: a temporary folder")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        measure(options.out or Path(temporary), options)


if __name__ == "__main__":
    sys.exit(main())
