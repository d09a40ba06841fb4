"""What a comparison found, as the reports, MLflow and the listening test read it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.benchmarks.benchmark import Benchmark
from evaluation.metrics.error_rates import unit_name
from evaluation.results.comparison import METRICS, Row, Score, Verdict
from voxmill.core.errors import UserError


@dataclass
class Run:
    """One system on one benchmark. `models` says who heard and measured; `counts` what became of the utterances."""

    benchmark: Benchmark
    dataset_sha256: str
    system: str
    identity: dict[str, Any]
    models: dict[str, str]
    rows: list[Row]
    counts: dict[str, int]
    seconds_speaking: float
    seconds: float

    @property
    def name(self) -> str:
        """Fit to name files."""
        return f"{self.benchmark.name}-{self.system}"


@dataclass
class Outcome:
    """A whole comparison. `problems`: what could not be done although nothing is lost, a line each."""

    out: Path
    runs: list[Run]
    scores: list[Score]
    verdicts: list[Verdict]
    problems: list[str]
    config: dict[str, Any]
    versions: dict[str, str]
    cached: int
    computed: int
    started: str
    seconds: float


def unit_of(run: Run, group: str, metric: str) -> str:
    """What a metric is called for a group: `WER`, `CER`, `SIM` ..."""
    if metric not in ("official", "strict"):
        return METRICS[metric].title
    language = next(row["language"] for row in run.rows if row["group"] == group)
    return f"{unit_name(run.benchmark.protocol, language, metric)} {metric}"


def write_results(outcome: Outcome) -> None:
    """`results.json` with all that the reports say, `scores/BENCHMARK-SYSTEM.jsonl` with a row an utterance."""
    for run in outcome.runs:
        lines = [json.dumps(row, ensure_ascii=False) for row in run.rows]
        write_text(outcome.out / "scores" / f"{run.name}.jsonl", "\n".join(lines) + "\n")
    plain = {
        "started": outcome.started,
        "seconds": outcome.seconds,
        "problems": outcome.problems,
        "versions": outcome.versions,
        "config": outcome.config,
        "cached": outcome.cached,
        "computed": outcome.computed,
        "runs": [
            {
                "benchmark": run.benchmark.name,
                "system": run.system,
                "identity": run.identity,
                "models": run.models,
                "dataset_sha256": run.dataset_sha256,
                "counts": run.counts,
                "seconds_speaking": run.seconds_speaking,
                "seconds": run.seconds,
                "malformed": [str(line) for line in run.benchmark.malformed],
                "scores": f"scores/{run.name}.jsonl",
            }
            for run in outcome.runs
        ],
        "scores": [dataclasses.asdict(score) for score in outcome.scores],
        "verdicts": [dataclasses.asdict(v) | {"better": v.better} for v in outcome.verdicts],
    }
    write_text(outcome.out / "results.json", json.dumps(_finite(plain), indent=1, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    """Plain data without nan, which JSON has not: null stands for it."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_rows(out: Path) -> dict[tuple[str, str], list[Row]]:
    """Rows of a finished comparison by (benchmark, system).

    Raises:
        UserError: no finished comparison there.
    """
    try:
        plain = json.loads((out / "results.json").read_text(encoding="utf-8"))
        return {
            (run["benchmark"], run["system"]): [
                json.loads(line) for line in (out / run["scores"]).read_text(encoding="utf-8").split("\n") if line
            ]
            for run in plain["runs"]
        }
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{out}: no finished `voxmill evaluate` there ({error}); name its --out") from None


def write_text(path: Path, text: str) -> None:
    """Under another name first, so that a file there is a whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
