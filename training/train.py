"""Training of one curriculum stage (report 3.5).

    voxmill train [--check] [--nproc N] RECIPE [key=value ...]
    torchrun --nproc-per-node 8 training/train.py RECIPE [key=value ...]
    deepspeed training/train.py RECIPE [key=value ...]
    ray job submit --working-dir . -- python training/train.py RECIPE num_workers=8 [key=value ...]

`voxmill train --help` describes the command, which is the same for every launcher.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    # A script's own folder is first on sys.path; the packages lie above it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from voxmill.cli.app import script

    script("train")

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from voxmill.core.errors import ExitStatus

if TYPE_CHECKING:
    from training.curriculum.corpus import Corpus
    from training.curriculum.recipe import Recipe
    from training.launch.launch_config import LaunchConfig


def start_ranks(arguments: Sequence[str], count: int) -> int:
    """Runs this script as `count` ranks of this machine; returns the exit status of the run."""
    from training.launch.local_ranks import run_ranks

    return run_ranks([sys.executable, "-u", __file__, *arguments], count)


def train(
    recipe: "Recipe", launch: "LaunchConfig | None", *, only_check: bool = False, ranks: int | None = None
) -> ExitStatus:
    """Checks the recipe against its datasets, prints the plan, and trains; returns the exit status of the run.

    Args:
        launch: ranks to start with Ray Train; None: this process is the one rank, or one of torchrun's or deepspeed's.
        only_check: return after the plan.
        ranks: that the plan is made for, where nobody has started them yet.

    Raises:
        UserError: a recipe, dataset or checkpoint that does not fit. JobError: the run failed.
    """
    from training.curriculum.plan.check import check, check_memory, report

    first = os.environ.get("RANK", "0") == "0"
    started = launch.num_workers if launch is not None else int(os.environ.get("WORLD_SIZE", "0")) or None
    ranks = ranks or started

    def open_checked() -> "Corpus":
        corpus, plan = check(recipe, index="forget" if only_check else "keep" if first else "expect")
        if first:
            report(recipe, corpus, plan)
        # A process that no launcher has started trains as the only rank.
        check_memory(recipe, plan, world=ranks if only_check else ranks or 1)
        return corpus

    # The other ranks wait for the first, where they join it: it makes the index, if there is none yet.
    corpus = open_checked() if first else None
    if only_check:
        return ExitStatus.DONE
    if launch is not None:
        from training.launch.ray_launch import run_on_ray
        from training.run.run_folder import lease_of

        with lease_of(recipe.run.out):
            return run_on_ray(recipe, launch)
    from training.curriculum.loop import Run
    from training.run.run_folder import held_by_first
    from training.run.stop_signal import StopSignal
    from training.run.world import join_world

    # A signal while the ranks still wait for each other ends the process: nothing is lost.
    with join_world() as world, held_by_first(world, recipe.run.out), StopSignal() as stop:
        return Run(recipe, open_checked() if corpus is None else corpus, world, stop)()
