"""Training of one curriculum stage (report 3.5).

    python training/train.py [--check] RECIPE [key=value ...]
    torchrun --nproc-per-node 8 training/train.py RECIPE [key=value ...]
    deepspeed training/train.py RECIPE [key=value ...]

RECIPE is a YAML file or the name of one that comes with voxmill (stage1, stage2, stage3, tiny_stage1 ...). `--check`
reads index and recipe and says what the stage will do. `run.out` gets checkpoints/, metrics.jsonl and, at the end,
export/ in the released layout. The same command goes on after any crash, with any number of ranks. Exit status: 0 done,
1 failed, 2 the user's mistake, 75 told to stop by SIGTERM and saved.
"""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    # A script run by path has its own folder first on sys.path; the packages lie one level up.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from voxmill.errors import JobError, UserError


def main(arguments: list[str] | None = None) -> int:
    """The command line of the script; see the module's docstring."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0 if arguments else 2
    try:
        from training.check import check, report
        from training.recipe import load_recipe

        only_check = "--check" in arguments
        # The deepspeed launcher adds --local_rank=N; the environment says the same.
        arguments = [a for a in arguments if a != "--check" and not a.startswith("--local_rank")]
        overrides = [a for a in arguments if "=" in a and not Path(a).exists()]
        plain = [a for a in arguments if a not in overrides]
        if len(plain) != 1:
            raise UserError("needs one RECIPE; see --help")
        recipe = load_recipe(plain[0], overrides)
        corpus, plan = check(recipe)
        if os.environ.get("RANK", "0") == "0":
            report(recipe, corpus, plan)
        if only_check:
            return 0
        from training.engine import join_world
        from training.loop import Run

        with join_world() as world:
            return Run(recipe, corpus, world)()
    except UserError as error:
        print(f"voxmill train: {error}", file=sys.stderr)
        return 2
    except (JobError, OSError) as error:
        place = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
        what = (isinstance(error, OSError) and error.strerror) or error
        print(f"voxmill train: {what}{place}; the same command goes on from the last checkpoint", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
