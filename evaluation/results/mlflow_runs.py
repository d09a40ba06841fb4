"""A comparison in MLflow: a parent run, below it a run for each system and benchmark.

The files under OUT are written first; MLflow gets copies. A server that does not answer therefore loses nothing: the
same runs are logged to `OUT/mlflow.db`, the job reports it and fails, and the same command sends them again from the
cached scores.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from evaluation.config import TrackingConfig
from evaluation.results.records import Outcome, Run
from evaluation.results.report import examples, highlighted
from voxmill.core.tracking import find_experiment, first_line

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

LOCAL = "mlflow.db"


def track(outcome: Outcome, config: TrackingConfig) -> str | None:
    """Logs an outcome. None, or why the server did not take the runs and where they are instead."""
    local = f"sqlite:///{(outcome.out / LOCAL).resolve()}"
    uri = config.uri or os.environ.get("MLFLOW_TRACKING_URI") or local
    # MLflow's own default is minutes of retries a call; what the user has set stands.
    defaults = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(config.timeout_seconds),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    with _environment(defaults):
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        try:
            _log(outcome, uri, config.experiment)
            return None
        except (MlflowException, RequestException, OSError) as error:
            if uri == local:
                return f"MLflow cannot write {LOCAL} ({first_line(error)})"
            why = f"the tracking server {uri} does not take the runs ({first_line(error)})"
        try:
            _log(outcome, local, config.experiment)
        except (MlflowException, OSError) as error:
            return f"{why}, nor can {LOCAL} be written ({first_line(error)})"
    return f"{why}; they are in {outcome.out / LOCAL}"


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    added = {key: value for key, value in values.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)


def _log(outcome: Outcome, uri: str, experiment: str) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment_id = find_experiment(client, experiment, outcome.out if uri.startswith("sqlite:") else None)
    systems = list(dict.fromkeys(run.system for run in outcome.runs))
    parent = client.create_run(experiment_id, run_name=" vs ".join(systems)[:200]).info.run_id
    status = "FAILED"
    try:
        for name, value in {**outcome.versions, "systems": ", ".join(systems)}.items():
            client.log_param(parent, f"version.{name}" if name != "systems" else name, str(value)[:500])
        for run in outcome.runs:
            _child(client, experiment_id, parent, outcome, run)
        for name in ("report.html", "report.md", "results.json"):
            client.log_artifact(parent, str(outcome.out / name))
        status = "FINISHED"
    finally:
        # Without its server this fails too, while the error of the first failure is already being raised.
        if status == "FINISHED":
            client.set_terminated(parent, status)


def _child(client: MlflowClient, experiment_id: str, parent: str, outcome: Outcome, run: Run) -> None:
    tags = {"mlflow.parentRunId": parent, "voxmill.benchmark": run.benchmark.name, "voxmill.system": run.system}
    child = client.create_run(experiment_id, run_name=run.name, tags=tags).info.run_id
    params = {
        "benchmark": run.benchmark.name,
        "system": run.system,
        "dataset_sha256": run.dataset_sha256,
        "utterances": len(run.benchmark.utterances),
        "malformed": len(run.benchmark.malformed),
        "seeds": ",".join(str(seed) for seed in sorted({one.seed for one in run.utterances})),
        "normaliser": outcome.versions["normaliser"],
        **{f"system.{key}": value for key, value in run.identity.items()},
        **{f"model.{key}": value for key, value in run.models.items()},
    }
    for key, value in params.items():
        client.log_param(child, key, str(value)[:500])
    for score in outcome.scores:
        if (score.benchmark, score.system) != (run.benchmark.name, run.system):
            continue
        name = f"{score.group}.{score.metric}"
        values = {
            name: score.estimate.value,
            f"{name}.low": score.estimate.low,
            f"{name}.high": score.estimate.high,
            f"{name}.n": float(score.estimate.n),
        }
        if score.seed_deviation is not None:
            values[f"{name}.seed_deviation"] = score.seed_deviation
        for key, value in values.items():
            if math.isfinite(value):
                client.log_metric(child, key.replace(" ", "_"), value)
    for status, count in run.counts.items():
        client.log_metric(child, f"count.{''.join(c if c.isalnum() or c in '._-' else '_' for c in status)}", count)
    client.log_artifact(child, str(outcome.out / "scores" / f"{run.name}.jsonl"), "scores")
    for place, example in examples(run.utterances):
        client.log_artifact(child, str(example.wav), f"examples/{place}")
        page = f'<!doctype html><meta charset="utf-8"><p>{highlighted(example)}</p>'
        client.log_text(child, page, f"examples/{place}/transcript.html")
    client.set_terminated(child, "FINISHED")
