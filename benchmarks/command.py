"""What the command lines of several benchmarks share."""

import argparse
import sys
from collections.abc import Callable

from model.presets import PRESETS
from voxmill.errors import JobError, UserError


def beside_released(doc: str | None, *, preset: str, repeats: int) -> argparse.ArgumentParser:
    """A parser with what a measurement beside the released code is asked for; `doc` is the benchmark's docstring."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default=preset)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--threads", type=int, default=1)
    return parser


def run(main: Callable[[], None]) -> None:
    """Runs a benchmark: a mistake of the user ends it in one line with status 2, what the machine lacks with 1."""
    try:
        main()
    except (UserError, JobError) as error:
        print(f"voxmill: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)
