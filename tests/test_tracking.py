"""What a run says of itself: the file always, MLflow as far as it answers."""

import json
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from voxmill.tracking import Tracker


def test_file_and_database(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    out = tmp_path / "a run"
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    tracker = Tracker(out, uri=uri, experiment="e", name="first")
    tracker.params({"a": {"b": 1}, "c": [1, 2]})
    tracker.metrics(1, {"loss": 2.0})
    tracker.metrics(2, {"loss": 1.5})
    run_id = tracker.run_id
    # As after a kill: step 2 will be made again, and the run goes on.
    again = Tracker(out, uri=uri, experiment="e", name="first", run_id=run_id, step=1)
    again.metrics(2, {"loss": 1.25})
    again.audio("tone", 2, np.zeros(100, dtype=np.float32), 16000)
    again.finish()
    rows = [json.loads(line) for line in again.path.read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 2.0), (2, 1.25)]
    client = MlflowClient(tracking_uri=uri)
    assert run_id is not None
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED" and run.data.metrics == {"loss": 1.25}
    assert run.data.params == {"a.b": "1", "c": "[1, 2]"}
    assert [metric.step for metric in client.get_metric_history(run_id, "loss")] == [1, 2, 2]


def test_a_server_that_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]  # closed again: nobody listens there
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    started = time.monotonic()
    tracker = Tracker(tmp_path, uri=None, experiment="e", name="lost")
    for step in range(50):
        tracker.metrics(step, {"loss": float(step)})
    tracker.finish()
    assert time.monotonic() - started < 30
    said = capsys.readouterr().err
    assert said.count("MLflow does not answer") == 1 and "51 entries never reached MLflow" in said
    assert len(tracker.path.read_text().splitlines()) == 50


def test_what_waited_goes_out_later(tmp_path: Path) -> None:
    """A database in a folder that is not there yet: what could not go out goes out, in order, once it can."""
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    tracker = Tracker(tmp_path / "out", uri="http://127.0.0.1:9", experiment="e", name="late")
    tracker.metrics(1, {"loss": 3.0})
    tracker._uri, tracker._silent_until = f"sqlite:///{tmp_path / 'runs.db'}", 0.0
    tracker.metrics(2, {"loss": 2.0})
    tracker.finish()
    assert tracker.run_id is not None
    history = MlflowClient(tracking_uri=tracker._uri).get_metric_history(tracker.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 3.0), (2, 2.0)]
