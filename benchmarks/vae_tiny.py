"""Trains the `tiny` AudioVAE on the sample recordings and scores it on held-out recordings.

    python benchmarks/vae_tiny.py [--minutes 14.5] [--ranks 2] [--out build/vae-tiny] [--held-out A B] [--rescore]

Two recordings are held out (one woman's, one man's, unless --held-out names others); training takes at most `--minutes`
of wall clock, on one process a core: two threads of one process wait for each other at every small layer. A run in OUT
is resumed. The trained weights are scored beside their own initial state and beside 64 mel bands inverted by
Griffin-Lim, on 4 s pieces. Draws the learning curve into docs/, unless --held-out is given; `--rescore` scores the
newest checkpoint again. Last line: one JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from evaluation.metrics.reconstruction import vae_codec  # noqa: E402
from model.codec.audio_vae import AudioVAE  # noqa: E402
from training.codec.checkpoint import checkpoints_in  # noqa: E402
from training.codec.config import VAETrainConfig, read_recipe  # noqa: E402
from training.codec.crops import CropSource, hold_out  # noqa: E402
from training.codec.initial_weights import fit_to_data  # noqa: E402
from training.codec.model import new_vae  # noqa: E402
from voxmill.cli.evaluation.reconstruction import Options, run  # noqa: E402
from voxmill.core.errors import JobError, UserError, command  # noqa: E402
from voxmill.core.machine.malloc import KEEP_FREED_MEMORY_ENV  # noqa: E402
from voxmill.data.audio_sources import find_clips  # noqa: E402

HELD_OUT = ("en-2.flac", "it-2.flac")
DATA = ROOT / "samples" / "recordings"
CLIP_SECONDS = 4.0


@command("benchmarks/vae_tiny.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=14.5)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "vae-tiny")
    parser.add_argument("--held-out", nargs="+", default=list(HELD_OUT), metavar="RECORDING")
    parser.add_argument("--rescore", action="store_true")
    options = parser.parse_args()
    started = time.perf_counter()
    if not options.rescore:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={options.ranks}"]
        overrides = [f"run.max_minutes={options.minutes}", f"data.held_out={json.dumps(options.held_out)}"]
        child = [sys.executable, *launcher, "training/train_vae.py", str(DATA), str(options.out), "tiny", *overrides]
        environment = os.environ | KEEP_FREED_MEMORY_ENV | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        status = subprocess.run(child, cwd=ROOT, env=environment).returncode
        if status:
            raise JobError(f"training ended with status {status}; see above")
    minutes = (time.perf_counter() - started) / 60
    paths = checkpoints_in(options.out).paths()
    if not paths:
        raise UserError(f"{options.out}: no checkpoint there; leave --rescore out")
    scores = options.out / "scores"
    held_out = tuple(options.held_out)
    untrained = initial_state(read_recipe("tiny", []), held_out)
    asked = Options(
        checkpoint=paths[0],
        data=str(DATA),
        out=scores,
        clip_seconds=CLIP_SECONDS,
        only=held_out,
        baselines=True,
        tracking_uri="none",
    )
    scores_of = run(asked, {"its initial state": vae_codec(untrained.freeze())}).scores
    if not options.rescore and held_out == HELD_OUT:
        draw_curve(options.out / "metrics.jsonl", ROOT / "docs" / "vae-tiny.svg")
    naive = [name for name in scores_of if name != "AudioVAE"]
    last: dict[str, object] = {"checkpoint": paths[0].name, "minutes": round(minutes, 1)}
    for measure, better in (("mel_full", -1), ("mel_16k", -1), ("stoi_16k", 1)):
        ours = scores_of["AudioVAE"][measure].mean
        last[measure] = round(ours, 4)
        last[f"{measure}_beats"] = [name for name in naive if (ours - scores_of[name][measure].mean) * better > 0]
    print(json.dumps(last))


def initial_state(recipe: VAETrainConfig, held_out: tuple[str, ...]) -> AudioVAE:
    """The weights at the start of the run."""
    _, vae = new_vae(recipe.model, recipe.seed)
    clips, _ = find_clips(DATA, min_seconds=recipe.data.seconds)
    training, _ = hold_out(clips, held_out, 0.0)
    rates = {"rate_in": vae.config.sample_rate, "rate_out": vae.config.out_sample_rate}
    source = CropSource(training, seconds=recipe.data.seconds, gain_db=recipe.data.gain_db, seed=recipe.seed, **rates)
    fit_to_data(vae, source, recipe.seed)
    return vae


def draw_curve(metrics: Path, picture: Path) -> None:
    """The learning curve of a run as an SVG: the recipe's mel distance of training crops and of held-out ones."""
    from matplotlib.figure import Figure

    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for key, label, style in (("mel", "training crops (sampled latents)", "-"), ("valid_mel", "held-out crops", "o-")):
        points = [(row["step"], row[key]) for row in rows if key in row]
        axes.plot(*zip(*points, strict=True), style, label=label, linewidth=1, markersize=3)
    axes.set(xlabel="step", ylabel="mel distance of the recipe")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(picture, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
