"""Arguments that several benchmarks share."""

import argparse

from model.presets import PRESETS


def beside_released(doc: str | None, *, preset: str, repeats: int) -> argparse.ArgumentParser:
    """A parser with the arguments of a measurement beside the released code; `doc` is the benchmark's docstring."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default=preset)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--threads", type=int, default=1)
    return parser
