"""Training of one curriculum stage (report 3.5).

    python training/train.py [--check] RECIPE [key=value ...]
    torchrun --nproc-per-node 8 training/train.py RECIPE [key=value ...]
    deepspeed training/train.py RECIPE [key=value ...]
    ray job submit --working-dir . -- python training/train.py RECIPE num_workers=8 [key=value ...]

RECIPE is a YAML file or the name of one that comes with voxmill (stage1, stage2, stage3, tiny_stage1 ...). `--check`
reads index and recipe and says what the stage will do. `num_workers=N` runs N ranks under Ray Train, on a cluster or on
this machine; beside it stand use_gpu, cpus_per_worker, max_failures and autoscale. `run.out` gets checkpoints/,
metrics.jsonl and, at the end, export/ in the released layout. The same command goes on after any crash, with any number
of ranks. Exit status: 0 done, 1 failed, 2 the user's mistake, 75 told to stop by SIGTERM and saved.
"""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    # A script run by path has its own folder first on sys.path; the packages lie one level up.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from voxmill.core.errors import PROGRESS_SAVED, UserError, command


@command("voxmill train", resume_hint=PROGRESS_SAVED)
def main(arguments: list[str] | None = None) -> int:
    """The command line of the script; see the module's docstring."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0 if arguments else 2
    from training.curriculum.check import check, report
    from training.curriculum.recipe import load_recipe
    from training.launch.launch_config import read_launch

    only_check = "--check" in arguments
    # The deepspeed launcher adds --local_rank=N; the environment says the same.
    arguments = [a for a in arguments if a != "--check" and not a.startswith("--local_rank")]
    overrides = [a for a in arguments if "=" in a and not Path(a).exists()]
    plain = [a for a in arguments if a not in overrides]
    if len(plain) != 1:
        raise UserError("needs one RECIPE; see --help")
    launch, overrides = read_launch(overrides)
    recipe = load_recipe(plain[0], overrides)
    corpus, plan = check(recipe)
    if os.environ.get("RANK", "0") == "0":
        report(recipe, corpus, plan)
    if only_check:
        return 0
    if launch is not None:
        from training.launch.ray_launch import run_on_ray

        return run_on_ray(recipe, launch)
    from training.curriculum.engine import join_world
    from training.curriculum.loop import Run

    with join_world() as world:
        return Run(recipe, corpus, world)()


if __name__ == "__main__":
    sys.exit(main())
