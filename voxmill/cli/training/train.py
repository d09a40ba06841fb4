"""`voxmill train`, the curriculum, `voxmill export-checkpoint`, and `voxmill train-vae`, the codec."""

from pathlib import Path
from typing import Annotated

import typer

from voxmill.cli.keys import show_keys
from voxmill.cli.settings import (
    JobSettings,
    LocalRank,
    Overrides,
    check_apart,
    check_folder,
    folder_path,
    path_text,
    split_settings,
)
from voxmill.core.errors import PROGRESS_SAVED, UserError, command
from voxmill.core.storage import to_path


@command("voxmill train", resume_hint=PROGRESS_SAVED)
def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", parser=path_text, help="YAML file, or stage1, finetune_lora and so on")
    ],
    settings: Overrides = None,
    check: Annotated[
        bool, typer.Option("--check", help="read recipe and index, print the plan, train nothing")
    ] = False,
    nproc: Annotated[
        int | None, typer.Option(min=1, help="ranks to start on this machine, a GPU each; SIGTERM reaches all of them")
    ] = None,
    keys: Annotated[bool, show_keys("train")] = False,
    local_rank: LocalRank = 0,
) -> int:
    """Trains one stage of the curriculum, or fine-tunes.

    `--nproc N` starts N ranks on this machine; `num_workers=N` runs them under Ray Train, on a cluster or here.
    `run.out` gets checkpoints/, metrics.jsonl and, at the end, export/ in the released layout. The same command
    resumes after a crash, with any number of ranks.

    \b
    Examples:
      voxmill train --check stage1 init=first/ datasets.main.path=dataset/
      voxmill train --nproc 8 stage1 init=first/ datasets.main.path=dataset/
      torchrun --nproc-per-node 8 training/train.py stage1 init=first/ datasets.main.path=dataset/
      deepspeed training/train.py stage1 init=first/ datasets.main.path=dataset/
      ray job submit --working-dir . -- python training/train.py stage1 num_workers=16 init=/data/first
    """
    from training.curriculum.recipe import load_recipe
    from training.launch.launch_config import read_launch
    from training.train import start_ranks
    from training.train import train as run

    _, overrides = split_settings(settings, recipe="")
    launch, overrides = read_launch(overrides)
    if nproc is not None and launch is not None:
        raise UserError("--nproc starts ranks on this machine, num_workers=N under Ray Train; give one of them")
    loaded = load_recipe(recipe, overrides)
    if nproc is not None and not check:
        return start_ranks([recipe, *overrides], nproc)
    return run(loaded, launch, only_check=check, ranks=nproc)


@command("voxmill export-checkpoint")
def export_checkpoint(
    run: Annotated[Path, typer.Argument(metavar="RUN", parser=folder_path, help="run.out of `voxmill train`")],
    step: Annotated[int | None, typer.Option(help="of the checkpoint; default: the newest")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", parser=folder_path, help="new folder; default: RUN/export-step-N")
    ] = None,
) -> None:
    """Exports a checkpoint of a run in the released layout, while the run goes on or after it has ended.

    What is exported can be spoken with, scored, and be the init of another run. Of a run with adapters it is the
    adapters, and with run.merged the whole model, too.

    \b
    Examples:
      voxmill export-checkpoint runs/stage1/
      voxmill export-checkpoint runs/stage1/ --step 50000 -o stage1-50000/
    """
    from training.curriculum.export import export_checkpoint as export

    for folder in export(run, output, step):
        print(folder)


@command("voxmill train-vae", resume_hint=PROGRESS_SAVED)
def train_vae(
    data: Annotated[
        str, typer.Argument(metavar="DATA", parser=path_text, help="a finished dataset, or a folder of audio")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", parser=folder_path, help="folder for checkpoints and metrics")],
    settings: JobSettings = None,
    keys: Annotated[bool, show_keys("train-vae")] = False,
    local_rank: LocalRank = 0,
) -> int:
    """Trains AudioVAE, the codec. The recipe is a YAML file, or one that comes with voxmill: tiny, small, voxcpm2.

    OUT gets checkpoint-*/ in the released layout, metrics.jsonl and media/. The same command resumes after a crash, on
    any number of ranks that divides `rows`.

    \b
    Examples:
      voxmill train-vae dataset/ vae/ small rows=64
      torchrun --nproc-per-node 8 training/train_vae.py dataset/ vae/ voxcpm2
    """
    from training.codec.config import read_recipe
    from training.train_vae import train as run
    from voxmill.data.dataset import is_dataset

    recipe, overrides = split_settings(settings, recipe="recipe")
    check_folder(out)
    if not is_dataset(to_path(data)):
        check_apart(data, out, ("DATA", "OUT"))
    return run(data, out, read_recipe(recipe, overrides))
