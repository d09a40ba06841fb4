"""A finished comparison as the reports, MLflow and the listening test read it, and its files."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from evaluation.benchmarks.benchmark import Benchmark
from evaluation.config import EvaluateConfig
from evaluation.metrics.error_rates import unit_name
from evaluation.metrics.utterance_score import UtteranceScore
from evaluation.results.comparison import METRICS, MetricKey, PairVerdict, Score
from voxmill.core.errors import UserError
from voxmill.core.files import write_atomically


@dataclass(frozen=True, kw_only=True)
class Run:
    """One system on one benchmark. `models`: which one did what; `counts`: utterances by what became of them."""

    benchmark: Benchmark
    dataset_sha256: str
    system: str
    identity: dict[str, str]
    models: dict[str, str]
    utterances: tuple[UtteranceScore, ...]
    counts: dict[str, int]
    seconds_speaking: float
    seconds: float

    @property
    def name(self) -> str:
        """Fit to name files."""
        return f"{self.benchmark.name}-{self.system}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A whole comparison. `problems`: one line each on work that was not done; none of the results is lost.

    `notes`: one line each on what was skipped or used again, and why.
    """

    out: Path
    runs: tuple[Run, ...]
    scores: tuple[Score, ...]
    verdicts: tuple[PairVerdict, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    config: EvaluateConfig
    versions: dict[str, str]
    cached: int
    computed: int
    started: str
    seconds: float


def unit_of(run: Run, group: str, metric: MetricKey) -> str:
    """What a metric is called for a group: `WER`, `CER`, `SIM` ..."""
    if metric not in ("official", "strict"):
        return METRICS[metric].title
    language = next(one.language for one in run.utterances if one.group == group)
    return f"{unit_name(run.benchmark.protocol, language, metric)} {metric}"


def write_results(outcome: Outcome) -> None:
    """`results.json` with all that the reports show, `scores/BENCHMARK-SYSTEM.jsonl` with a line an utterance."""
    for run in outcome.runs:
        lines = "".join(score.to_json() + "\n" for score in run.utterances)
        write_atomically(outcome.out / "scores" / f"{run.name}.jsonl", lines)
    plain = {
        "started": outcome.started,
        "seconds": outcome.seconds,
        "problems": outcome.problems,
        "notes": outcome.notes,
        "versions": outcome.versions,
        "config": outcome.config.model_dump(mode="json"),
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
        "verdicts": [dataclasses.asdict(verdict) | {"better": verdict.better} for verdict in outcome.verdicts],
    }
    text = json.dumps(without_nan(plain), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(outcome.out / "results.json", text)


def without_nan(value: object) -> JsonValue:
    """Plain data as JSON, which has no NaN: null stands for it."""
    if isinstance(value, dict):
        return {str(key): without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(one) for one in value]
    if value is None or isinstance(value, float) and not math.isfinite(value):
        return None
    assert isinstance(value, bool | int | float | str), f"{type(value).__name__} is no JSON"
    return value


def read_scores(out: Path) -> dict[tuple[str, str], list[UtteranceScore]]:
    """Scores of a finished comparison by (benchmark, system).

    Raises:
        UserError: no finished comparison there.
    """
    try:
        plain = json.loads((out / "results.json").read_text(encoding="utf-8"))
        return {
            (run["benchmark"], run["system"]): [
                UtteranceScore.from_json(line)
                for line in (out / run["scores"]).read_text(encoding="utf-8").split("\n")
                if line
            ]
            for run in plain["runs"]
        }
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{out}: no finished `voxmill evaluate` there ({reason}); name its --out") from None
