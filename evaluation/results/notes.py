"""What was skipped and why, in lines for the screen; the reports list all of it."""

from __future__ import annotations

from evaluation.benchmarks.benchmark import Benchmark
from evaluation.results.records import Run

SHOWN = 5
"""So many of a kind are named."""


def skipped_lines(benchmark: Benchmark) -> list[str]:
    """The lines of a benchmark that could not be read."""
    shown = [f"skipped: {line}" for line in benchmark.malformed[:SHOWN]]
    more = len(benchmark.malformed) - SHOWN
    return shown + [f"skipped: {more} more lines of {benchmark.name}, see the report"] * (more > 0)


def without_score(run: Run) -> list[str]:
    """The utterances that a system has no score of, by what is the matter."""
    lines = []
    for status in dict.fromkeys(one.status for one in run.utterances if one.status != "ok"):
        own = [one for one in run.utterances if one.status == status]
        named = "; ".join(f"{one.id}: {one.detail}" if one.detail else one.id for one in own[:SHOWN])
        more = f"; and {len(own) - SHOWN} more" if len(own) > SHOWN else ""
        lines.append(f"{run.system} on {run.benchmark.name}: {len(own)} {status} ({named}{more})")
    return lines
