"""The three tiny stages on the sample recordings, one after another as `voxmill train` documents, then `generate`.

    python benchmarks/curriculum.py [--dataset demo-out/] [--vae CHECKPOINT] [--ranks 1] [--out build/curriculum]

Each stage starts from the export of the one before. Without `--dataset` (a finished `voxmill annotate` OUT, of which a
copy is used) the clips are the recordings' turns with their true texts and made-up descriptions; without `--vae` the
AudioVAE is random, and the speech is noise. After every stage the losses of all modes are computed again on fixed
clips with fixed random numbers, in the data of stage 2, so they can be compared from stage to stage. These clips were
trained on. The last line is one JSON object; `minutes` is the wall clock of training and generating together.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.support.sample_model import for_samples, tiny_for, write_checkpoint  # noqa: E402
from benchmarks.support.tables import table  # noqa: E402
from model.checkpoint import load_model, load_vae  # noqa: E402
from model.config import read_config  # noqa: E402
from model.presets import preset  # noqa: E402
from model.sequence.packing import pack  # noqa: E402
from model.sequence.text_tokenizer import TextTokenizer  # noqa: E402
from samples.fabricate import add_latents, rows, write_dataset  # noqa: E402
from training.curriculum.corpus import Corpus, read_corpus  # noqa: E402
from training.curriculum.plan_arrays import plan_arrays  # noqa: E402
from training.curriculum.recipe import load_recipe  # noqa: E402
from training.curriculum.sample_plan import PlannedSample, plan_sample  # noqa: E402
from training.curriculum.sample_reader import SampleReader  # noqa: E402
from voxmill.core.errors import JobError, UserError, command  # noqa: E402
from voxmill.data.dataset import is_dataset  # noqa: E402
from voxmill.data.records import MODES, Mode  # noqa: E402

RECORDINGS = ("en-1", "en-2", "es-1", "fr-1", "fr-2", "it-1", "it-2", "ru-1")
STAGES = ("tiny_stage1", "tiny_stage2", "tiny_stage3")
CLIPS_A_MODE, POSITIONS = 16, 512
TEXT = "Nobody is available to take your call."


def prepare(out: Path, dataset: Path | None, vae_from: Path | None, seed: int) -> None:
    """`checkpoint/`, a random start, and `dataset/` with latents of its AudioVAE."""
    vae = None if vae_from is None else load_vae(vae_from, read_config(vae_from))
    config = for_samples(preset("tiny")) if vae is None else tiny_for(vae.config)
    write_checkpoint(out / "checkpoint", config, seed=seed, vae=vae)
    if dataset is None:
        write_dataset(out / "dataset", rows(RECORDINGS, clips_each=10**6))
        add_latents(out / "dataset", out / "checkpoint")
        return
    if not is_dataset(dataset):
        raise UserError(f"{dataset}: no clips.parquet there; name the OUT of a finished `voxmill annotate`")
    shutil.copytree(dataset, out / "dataset", ignore=shutil.ignore_patterns("work", "latents*"))
    voxmill(out, "encode", str(out / "dataset"), "--vae", str(out / "checkpoint"), "progress=false")


def voxmill(out: Path, *arguments: str, ranks: int = 1) -> None:
    """Runs a `voxmill` command as a user does, by torchrun where there are several ranks; errors name its log."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    log = out / f"{arguments[0]}.log"
    with log.open("a") as file:
        done = subprocess.run(
            [sys.executable, *launcher, "-m", "voxmill", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=file,
        )
    if done.returncode:
        raise JobError(f"voxmill {arguments[0]} ended with status {done.returncode}; see {log}")


def fixed_samples(corpus: Corpus, tokenizer: TextTokenizer, seed: int) -> dict[Mode, list[PlannedSample]]:
    """The first clips that can be shown in each mode."""
    samples: dict[Mode, list[PlannedSample]] = {}
    arrays = plan_arrays(corpus)
    for column, mode in enumerate(MODES):
        clips = np.flatnonzero(corpus.modes_CM[:, column])
        shown = [
            plan_sample(mode, int(clip), arrays, number=number, seed=seed, max_positions=POSITIONS)
            for number, clip in enumerate(clips)
        ]
        samples[mode] = [sample for sample in shown if isinstance(sample, PlannedSample)][:CLIPS_A_MODE]
    return {mode: shown for mode, shown in samples.items() if shown}


@torch.no_grad()
def losses(
    checkpoint: Path, reader: SampleReader, samples: dict[Mode, list[PlannedSample]], seed: int
) -> dict[Mode, float]:
    """Diffusion and stop loss of each mode's samples together, with the same random numbers every time."""
    model = load_model(checkpoint, read_config(checkpoint), dtype=torch.float32)
    by_mode = {}
    for mode, shown in samples.items():
        batch = pack([reader.layout(sample) for sample in shown])
        by_mode[mode] = float(model(batch, generator=torch.Generator().manual_seed(seed)).total())
    return by_mode


@command("benchmarks/curriculum.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, help="OUT of a finished voxmill annotate")
    parser.add_argument("--vae", type=Path, help="checkpoint folder whose AudioVAE is used")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--steps", type=int, help="of every stage; default: that of the recipes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "curriculum")
    options = parser.parse_args()
    torch.set_num_threads(1)
    out: Path = options.out
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    prepare(out, options.dataset, options.vae, options.seed)
    start = [f"datasets.main.path={out / 'dataset'}", f"init={out / 'checkpoint'}"]
    corpus = read_corpus(load_recipe("tiny_stage2", start))
    tokenizer = TextTokenizer.from_folder(out / "checkpoint")
    samples = fixed_samples(corpus, tokenizer, options.seed)
    reader = SampleReader(corpus, tokenizer, max_positions=POSITIONS)
    checkpoint, seconds = out / "checkpoint", 0.0
    columns = {"start": losses(checkpoint, reader, samples, options.seed)}
    for stage in STAGES:
        began = time.perf_counter()
        overrides = [f"steps={options.steps}", "optimizer.warmup_steps=1"] if options.steps else []
        voxmill(
            out,
            "train",
            stage,
            f"init={checkpoint}",
            start[0],
            f"run.out={out / stage}",
            *overrides,
            ranks=options.ranks,
        )
        seconds += time.perf_counter() - began
        checkpoint = out / stage / "export"
        columns[stage] = losses(checkpoint, reader, samples, options.seed)
    began = time.perf_counter()
    speech = out / "speech.wav"
    voxmill(out, "generate", "--checkpoint", str(checkpoint), "--text", TEXT, "--seed", "0", "-o", str(speech))
    seconds += time.perf_counter() - began
    cells = [
        [mode, str(len(samples[mode])), *(f"{column[mode]:.4f}" for column in columns.values())] for mode in samples
    ]
    title = f"loss of fixed clips, {len(corpus)} clips, {options.ranks} ranks, {seconds / 60:.1f} minutes"
    Console(width=110).print(table(title, ["mode", "clips", "random weights", *STAGES], cells))
    print(
        json.dumps(
            {
                "minutes": round(seconds / 60, 2),
                "clips": len(corpus),
                "generated_seconds": soundfile.info(speech).duration,
                "all_modes_fell": all(columns[STAGES[-1]][mode] < columns["start"][mode] for mode in samples),
                "losses": {mode: [round(column[mode], 4) for column in columns.values()] for mode in samples},
            }
        )
    )


if __name__ == "__main__":
    sys.exit(main())
