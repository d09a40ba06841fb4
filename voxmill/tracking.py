"""What a run says of itself: `metrics.jsonl` always, MLflow beside it.

The file is the truth and MLflow a copy. A server that is down costs one short attempt a minute and stops nothing:
what it missed waits in memory, in order, and goes out when it answers; what still waits at the end is told.
"""

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

RETRY_SECONDS = 60.0
OFF = "none"


class Tracker:
    """One run. Construct it on one rank only.

    Args:
        out: folder of the run; gets `metrics.jsonl`, `media/`, and MLflow's database where no server is named.
        uri: MLflow tracking URI; None takes MLFLOW_TRACKING_URI, else a database in `out`; "none" leaves MLflow out.
        experiment: name in MLflow. name: of the run. run_id: of a run to go on with, None for a new one.
        step: lines of `metrics.jsonl` after this step are dropped: they are about to be made again.
    """

    def __init__(
        self, out: Path, *, uri: str | None, experiment: str, name: str, run_id: str | None = None, step: int = 0
    ) -> None:
        self.out, self.name, self.run_id = out, name, run_id
        self._uri, self._experiment = uri, experiment
        self._client: Any = None
        self._waiting: deque[Callable[[Any, str], None]] = deque()
        self._silent_until, self._told = 0.0, False
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / "metrics.jsonl"
        _forget_after(self.path, step)
        self._send()

    def params(self, values: Mapping[str, Any]) -> None:
        """Settings of the run, nested or not."""
        flat = {key: str(value)[:500] for key, value in _flat(values)}

        def send(client: Any, run_id: str) -> None:
            from mlflow.entities import Param

            client.log_batch(run_id, params=[Param(key, value) for key, value in flat.items()])

        self._later(send)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step."""
        now = time.time()
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "time": round(now, 3), **values}) + "\n")

        def send(client: Any, run_id: str) -> None:
            from mlflow.entities import Metric

            stamp = int(now * 1000)
            client.log_batch(run_id, metrics=[Metric(key, float(v), stamp, step) for key, v in values.items()])

        self._later(send)

    def file(self, path: Path, folder: str | None = None) -> None:
        """A file of `out` as an artifact, into `folder` there."""
        self._later(lambda client, run_id: client.log_artifact(run_id, str(path), folder))

    def audio(self, name: str, step: int, samples: Any, sample_rate: int) -> Path:
        """Mono audio [T] in [-1, 1] as `media/<step>/<name>.wav`, and as an artifact."""
        import soundfile

        path = self._media(step, f"{name}.wav")
        soundfile.write(path, samples, sample_rate, subtype="PCM_16")
        self.file(path, f"media/{path.parent.name}")
        return path

    def picture(self, name: str, step: int, figure: Any) -> Path:
        """A matplotlib figure as `media/<step>/<name>.png`, and as an artifact."""
        path = self._media(step, f"{name}.png")
        figure.savefig(path, dpi=80)
        self.file(path, f"media/{path.parent.name}")
        return path

    def finish(self, status: str = "FINISHED") -> None:
        """Ends the run as FINISHED, FAILED or KILLED, and says what MLflow never got."""
        self._later(lambda client, run_id: client.set_terminated(run_id, status), at_once=True)
        if self._waiting:
            print(
                f"tracking: {len(self._waiting)} entries never reached MLflow ({self._address}); "
                f"{self.path} has every number",
                file=sys.stderr,
            )

    @property
    def _address(self) -> str:
        # A database's path may hold blanks and the like; MLflow takes it as it is.
        database = f"sqlite:///{(self.out / 'mlflow.db').resolve()}"
        return self._uri or os.environ.get("MLFLOW_TRACKING_URI") or database

    def _media(self, step: int, name: str) -> Path:
        path = self.out / "media" / f"{step:08d}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _later(self, send: Callable[[Any, str], None], *, at_once: bool = False) -> None:
        if self._address == OFF:
            return
        self._waiting.append(send)
        self._send(at_once)

    def _send(self, at_once: bool = False) -> None:
        if self._address == OFF or (time.monotonic() < self._silent_until and not at_once):
            return
        from mlflow.exceptions import MlflowException

        try:
            client = self._connect()
            assert self.run_id is not None
            while self._waiting:
                self._waiting[0](client, self.run_id)
                self._waiting.popleft()
        except (MlflowException, OSError) as error:  # requests' errors are OSErrors
            self._silent_until = time.monotonic() + RETRY_SECONDS
            if not self._told:
                reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
                print(f"tracking: MLflow does not answer ({reason}); training goes on", file=sys.stderr)
                self._told = True

    def _connect(self) -> Any:
        if self._client is None:
            # MLflow's own patience is minutes, in which nothing is learnt.
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
            from mlflow import MlflowClient

            client = MlflowClient(tracking_uri=self._address)
            if self.run_id is not None:
                client.update_run(self.run_id, status="RUNNING")
            else:
                self.run_id = client.create_run(self._experiment_id(client), run_name=self.name).info.run_id
            self._client = client
        return self._client

    def _experiment_id(self, client: Any) -> str:
        found = client.get_experiment_by_name(self._experiment)
        if found is not None:
            return found.experiment_id
        # Beside a database of our own; a server keeps artifacts where it likes.
        own = self._uri is None and not os.environ.get("MLFLOW_TRACKING_URI")
        place = (self.out / "mlartifacts").resolve().as_uri() if own else None
        return client.create_experiment(self._experiment, artifact_location=place)


def _forget_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except ValueError:
            continue  # the last line of a run that was killed while it wrote
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    temporary.replace(path)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return pairs
