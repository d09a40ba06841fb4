"""The record of a run: the file always, MLflow as far as it answers."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from voxmill.core import tracking
from voxmill.core.errors import UserError
from voxmill.core.local_ray import free_port
from voxmill.core.tracking import Tracker, wrong_uri


def start_server(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A real MLflow server over `folder`; returns when it answers."""
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        "--backend-store-uri",
        f"sqlite:///{folder / 'server.db'}",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(
            command,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
            return server
        except OSError:
            assert server.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.2)
    raise AssertionError((folder / "server.log").read_text())


def kill(server: subprocess.Popen[bytes]) -> None:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def test_file_and_database(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    out = tmp_path / "a run"
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    tracker = Tracker(out, uri=uri, experiment="e", name="first")
    tracker.params({"a": {"b": 1}, "c": [1, 2]})
    tracker.metrics(1, {"loss": 2.0})
    tracker.metrics(2, {"loss": 1.5})
    named = tracker.run_id
    assert tracker.wait()
    run_id = tracker.run_id
    # As after a kill: step 2 will be made again, and the run is resumed.
    again = Tracker(out, uri=uri, experiment="e", name="first", run_id=run_id, step=1)
    again.metrics(2, {"loss": 1.25})
    again.audio("tone", 2, np.zeros(100, dtype=np.float32), 16000)
    again.finish()
    rows = [json.loads(line) for line in again.path.read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 2.0), (2, 1.25)]
    client = MlflowClient(tracking_uri=uri)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED" and run.data.metrics == {"loss": 1.25}
    assert run.data.params == {"a.b": "1", "c": "[1, 2]"}
    assert [metric.step for metric in client.get_metric_history(run_id, "loss")] == [1, 2, 2]
    # A checkpoint that was saved before any server had answered knows our own name of the run alone.
    early = Tracker(out, uri=uri, experiment="e", name="first", run_id=named, step=2)
    early.metrics(3, {"loss": 1.0})
    early.finish()
    assert early.run_id == run_id != named and len(client.search_runs([run.info.experiment_id])) == 1


def test_what_a_killed_run_had_not_sent_is_sent_from_the_file(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    def steps(uri: str, run_id: str) -> list[int]:
        return [metric.step for metric in MlflowClient(tracking_uri=uri).get_metric_history(run_id, "a/loss")]

    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    killed = Tracker(tmp_path / "out", uri=uri, experiment="e", name="n", step=-1)
    for step in range(2):
        killed.metrics(step, {"a": {"loss": 1.0}})
    assert killed.wait()
    with killed.path.open("a") as file:  # as if it had been killed after this line and before it was sent
        file.write(json.dumps({"step": 2, "time": time.time(), "a": {"loss": 1.0}}) + "\n" + '{"step": 3, "ti')
    again = Tracker(tmp_path / "out", uri=uri, experiment="e", name="n", run_id=killed.run_id, step=2)
    again.metrics(3, {"a": {"loss": 1.0}})
    again.finish()
    assert steps(uri, again.run_id) == [0, 1, 2, 3]
    assert len(again.path.read_text().splitlines()) == 4
    # Another MLflow has nothing of it yet, so it gets all.
    other = f"sqlite:///{tmp_path / 'other.db'}"
    moved = Tracker(tmp_path / "out", uri=other, experiment="e", name="n", run_id=again.run_id, step=3)
    moved.metrics(4, {"a": {"loss": 1.0}})
    moved.finish()
    assert steps(other, moved.run_id) == [0, 1, 2, 3, 4]


def test_a_database_that_was_half_made_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a kill while MLflow was making it."""
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / ".mlflow-0123.db").write_bytes(b"half of a database")
    tracker = Tracker(tmp_path, uri=None, experiment="e", name="own", step=-1)
    tracker.metrics(0, {"loss": 1.0})
    tracker.finish()
    assert not list(tmp_path.glob(".mlflow-*"))
    run = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}").get_run(tracker.run_id)
    assert run.data.metrics == {"loss": 1.0} and run.info.artifact_uri.startswith(tmp_path.as_uri())


def test_nested_values_and_what_mlflow_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no number is in the file alone; what is refused for good does not hold up what comes after."""
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    tracker = Tracker(tmp_path / "out", uri=f"sqlite:///{tmp_path / 'runs.db'}", experiment="e", name="n", step=-1)
    tracker.params({"a": 1})
    tracker.params({"a": 2, **{f"b{number}": number for number in range(150)}})
    tracker.file(tmp_path / "never written.txt")
    values = {"losses": {"mode/basic": {"loss": 2.0}, "language/zh*": {"loss": 3.0}}, "flag": True, "name": "x"}
    tracker.metrics(0, values)
    tracker.finish()
    run = MlflowClient(tracking_uri=tracker._uri).get_run(tracker.run_id)
    assert run.data.params["a"] == "1" and len(run.data.params) == 151  # a param keeps its first value
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"losses/mode/basic/loss": 2.0, "losses/language/zh_/loss": 3.0, "flag": 1.0}
    line = json.loads(tracker.path.read_text())
    assert {key: line[key] for key in values} == values
    assert "refused 1 entries" in capsys.readouterr().err


def test_a_server_that_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow")
    port = free_port()  # nobody listens there
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    started = time.monotonic()
    tracker = Tracker(tmp_path, uri=None, experiment="e", name="lost")
    for step in range(50):
        tracker.metrics(step, {"loss": float(step)})
    tracker.finish()
    assert time.monotonic() - started < 30
    stderr = capsys.readouterr().err
    assert stderr.count("MLflow does not answer") == 1 and "51 entries never reached MLflow" in stderr
    assert len(tracker.path.read_text().splitlines()) == 50


def test_what_a_server_misses_costs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 numbers a step and files beside them: what waits is in the file, not in memory."""
    pytest.importorskip("mlflow")
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 0.0)
    monkeypatch.setattr(tracking, "MOST_WAITING", 20)
    tracker = Tracker(tmp_path, uri=f"http://127.0.0.1:{free_port()}", experiment="e", name="lost", step=-1)
    values = {"losses": {f"mode/{number}": float(number) for number in range(200)}}

    def steps(first: int, count: int) -> None:
        for step in range(first, first + count):
            tracker.metrics(step, values)
            tracker.file(tmp_path / f"{step}.wav")

    steps(0, 100)
    tracemalloc.start()
    try:
        steps(100, 1000)
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert grown < 1_000_000, "1000 steps with 200 numbers each"
    assert len(tracker._waiting) == 20 and tracker._num_waiting == 1100 + 20


@pytest.mark.parametrize(
    "uri", ["htp:/nonsense", "http:/host", "https://", "sqlite:runs.db", "s3://bucket/runs", "foo://x"]
)
def test_a_uri_that_mlflow_has_no_store_for_is_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(
        UserError, match=rf"tracking URI {re.escape(uri)}: MLflow has no such store; write http://"
    ) as it:
        Tracker(tmp_path / "out", uri=uri, experiment="e", name="n")
    assert "\n" not in str(it.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "uri",
    ["none", "runs", "/data/runs", "file:///data/runs", "sqlite:////data/m.db", "postgresql+psycopg2://u:p@h/d"]
    + ["mysql://h/d", "http://h:5000", "https://h/mlflow", "databricks", "databricks://profile"],
)
def test_what_mlflow_may_have_a_store_for_is_taken(uri: str) -> None:
    assert wrong_uri(uri) == ""


def test_a_server_that_hangs_slows_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It takes the connection and never answers."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        tracker = Tracker(tmp_path, uri=uri, experiment="e", name="hung", step=-1)
        tracker.params({"a": 1})
        slowest = 0.0
        for step in range(300):
            started = time.monotonic()
            tracker.metrics(step, {"loss": float(step)})
            slowest = max(slowest, time.monotonic() - started)
            time.sleep(0.005)
        assert slowest < 0.5, "a request takes a second until it is given up"
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(4) == b"GET ", "it was asked, over HTTP"
        started = time.monotonic()
        tracker.finish()
        assert time.monotonic() - started < 10
    assert "302 entries never reached MLflow" in capsys.readouterr().err
    assert len(tracker.path.read_text().splitlines()) == 300


def test_what_waited_goes_out_later(tmp_path: Path) -> None:
    """What could not go out goes out, in order, once there is somebody to take it."""
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    tracker = Tracker(tmp_path / "out", uri=f"http://127.0.0.1:{free_port()}", experiment="e", name="late")
    tracker.metrics(1, {"loss": 3.0})
    assert not tracker.wait()
    tracker._uri = f"sqlite:///{tmp_path / 'runs.db'}"
    tracker.metrics(2, {"loss": 2.0})
    tracker.finish()
    history = MlflowClient(tracking_uri=tracker._uri).get_metric_history(tracker.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 3.0), (2, 2.0)]


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All steps reach it, in order and once, though it was away for the middle of the run."""
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.5)
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    server = start_server(tmp_path, port)
    try:
        tracker = Tracker(tmp_path / "out", uri=uri, experiment="e", name="restarted", step=-1)
        for step in range(20):
            tracker.metrics(step, {"loss": 20.0 - step})
        assert tracker.wait()
        kill(server)
        started = time.monotonic()
        for step in range(20, 1520):
            tracker.metrics(step, {"loss": 1.0 / step, "rate": 0.1})
        assert time.monotonic() - started < 5
        while "does not answer" not in capsys.readouterr().err:
            assert time.monotonic() - started < 60
            time.sleep(0.1)
        server = start_server(tmp_path, port)
        tracker.metrics(1520, {"loss": 0.0})
        tracker.audio("tone", 1520, np.zeros(100, dtype=np.float32), 16000)
        tracker.finish()
        assert "MLflow answers again" in capsys.readouterr().err
        client = MlflowClient(tracking_uri=uri)
        run = client.get_run(tracker.run_id)
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(tracker.run_id, "loss")
        assert [metric.step for metric in history] == list(range(1521))
        assert [item.path for item in client.list_artifacts(tracker.run_id, "media/00001520")]
        assert len(client.search_runs([run.info.experiment_id])) == 1
    finally:
        kill(server)


def test_lines_wait_where_the_disk_is_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = Tracker(tmp_path, uri="none", experiment="e", name="n")
    tracker.metrics(0, {"loss": 1.0})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (tracker.path.stat().st_size + 10, before[1]))
    try:
        for step in (1, 2):
            tracker.metrics(step, {"loss": 1.0})
        # No half of a line is there, of which ten bytes would have had room.
        assert len(tracker.path.read_text().splitlines()) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    tracker.metrics(3, {"loss": 1.0})
    tracker.finish()
    assert [json.loads(line)["step"] for line in tracker.path.read_text().splitlines()] == [0, 1, 2, 3]
    assert capsys.readouterr().err.count("its lines wait in memory for room") == 1
