"""The record of a run: `metrics.jsonl` always, MLflow beside it.

The file is the truth and MLflow a copy, sent by a thread of its own: a server that is down or hangs costs the run
neither time nor memory. Numbers that it missed are read from the file, in order, when it answers, also by the next
process of a run that was killed; of settings and media the last `MOST_WAITING` wait. What still waits at the end is
reported.
"""

import errno
import json
import os
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from voxmill.core.errors import UserError
from voxmill.core.files import write_atomically
from voxmill.core.metrics_file import Metrics, flat, forget_after, numbers_of

RETRY_SECONDS = 60.0
"""Between two attempts to reach a server that did not answer."""
FINISH_SECONDS = 60.0
"""What the end of a run waits for MLflow at most."""
AT_ONCE = 1000
PARAMS_AT_ONCE = 100
"""Metrics and params that MLflow takes in one request."""
MOST_WAITING = 1000
"""Settings and files that wait for MLflow at most; older ones are given up, and counted."""
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
OFF = "none"
TAG = "voxmill.run"
SENT = "mlflow-sent.json"
"""In the run's folder: how many lines of the file MLflow has."""
REFUSED = ("BAD_REQUEST", "INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST")
"""MLflow's answers to what it will never take; asking again would hold up all that comes after."""
Send = Callable[[Any, str], None]


@dataclass(frozen=True)
class _Entry:
    """One thing for MLflow that is no number."""

    send: Send
    after: int
    """So many lines of the file go out before it."""


@dataclass(frozen=True)
class _Lines:
    """Lines of the file that go out together. `bytes`: their length; a line may have more numbers than a request."""

    metrics: Metrics
    count: int
    bytes: int


class Tracker:
    """One run. Construct it on one rank only.

    Args:
        out: folder of the run; gets `metrics.jsonl`, `media/`, and MLflow's database where no server is named.
        uri: MLflow tracking URI; None takes MLFLOW_TRACKING_URI, else a database in `out`; "none" leaves MLflow out.
        experiment: name in MLflow. name: of the run.
        run_id: an earlier `run_id`, to resume that run; None: a new one.
        step: lines of `metrics.jsonl` after this step are dropped: they are about to be made again.

    Raises:
        UserError: a URI that MLflow has no store for.
    """

    def __init__(
        self, out: Path, *, uri: str | None, experiment: str, name: str, run_id: str | None = None, step: int = 0
    ) -> None:
        self.out, self.name = out, name
        self.run_id = run_id or uuid.uuid4().hex
        """MLflow's id of the run once a server has given it; until then a random name, kept there as the tag `TAG`."""
        self._uri, self._experiment, self._is_new = uri, experiment, run_id is None
        self._client: Any = None
        self._waiting: deque[_Entry] = deque()
        self._change = threading.Condition()
        self._silent_until, self._trying, self._hurry = 0.0, False, False
        self._is_reported, self._num_refused, self._num_dropped = False, 0, 0
        wrong = wrong_uri(self._address)
        if wrong:
            raise UserError(wrong)
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / "metrics.jsonl"
        self._unwritten, self._is_full = "", False
        if self._is_new:
            (out / SENT).unlink(missing_ok=True)
        known = None if self._is_new else self._num_sent()
        self._num_lines, sent = forget_after(self.path, step, known)
        self._sent_lines, self._sent_bytes = sent
        """Of the file, what MLflow has; the thread's own."""
        if self._address != OFF:
            # MLflow's own patience is minutes, in which nothing else would go out.
            for variable, value in (("REQUEST_MAX_RETRIES", "0"), ("REQUEST_TIMEOUT", "10")):
                os.environ.setdefault(f"MLFLOW_HTTP_{variable}", value)
            import mlflow  # noqa: F401 (here, not in the thread, where it could meet other imports half-way)

            threading.Thread(target=self._work, name="tracking", daemon=True).start()

    def params(self, values: Mapping[str, Any]) -> None:
        """Settings of the run, nested or not. Those that MLflow has already stay as they were, as it wants it."""
        named = {key: str(value)[:500] for key, value in flat(values, ".")}

        def send(client: Any, run_id: str) -> None:
            from mlflow.entities import Param

            known = client.get_run(run_id).data.params
            new = [Param(key, value) for key, value in named.items() if key not in known]
            for start in range(0, len(new), PARAMS_AT_ONCE):
                client.log_batch(run_id, params=new[start : start + PARAMS_AT_ONCE])

        self._later(send)

    def metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Numbers of one step, nested or not: `{"a": {"b": 1}}` is `a/b` in MLflow; the rest is in the file only."""
        self._unwritten += json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n"
        self._write_lines()

    def _write_lines(self) -> None:
        """To the file; where the disk is full they wait in memory for the next step, and none is left half written."""
        content = self._unwritten.encode()
        with self.path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                while content:
                    content = content[file.write(content) :]
            except OSError as error:
                file.truncate(before)
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise
                if not self._is_full:
                    print(
                        f"{self.path}: {error.strerror}; its lines wait in memory for room", file=sys.stderr, flush=True
                    )
                self._is_full = True
                return
        with self._change:
            self._num_lines += self._unwritten.count("\n")
            self._change.notify_all()
        self._unwritten, self._is_full = "", False

    def _num_sent(self) -> int:
        """Lines of the file that this MLflow has from before; 0 where that is not known."""
        try:
            sent = json.loads((self.out / SENT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0
        return int(sent["lines"]) if sent["uri"] == self._address else 0

    def _note_sent(self, num_lines: int) -> None:
        write_atomically(self.out / SENT, json.dumps({"uri": self._address, "lines": num_lines}))

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

    def wait(self, seconds: float = FINISH_SECONDS) -> bool:
        """Tries at once and waits until MLflow has everything, does not answer, or so many seconds have passed.

        Returns:
            Whether nothing waits any more.
        """
        with self._change:
            self._hurry = bool(self._num_waiting)
            self._change.notify_all()
            self._change.wait_for(lambda: not self._num_waiting or not (self._hurry or self._trying), timeout=seconds)
            return not self._num_waiting

    def finish(self, status: str = "FINISHED") -> None:
        """Ends the run as FINISHED, FAILED or KILLED, and reports what MLflow never got. Takes a minute at most."""
        if self._unwritten:
            self._write_lines()
        self._later(lambda client, run_id: client.set_terminated(run_id, status))
        self.wait()
        lost = self._num_waiting + self._num_dropped
        if lost:
            print(
                f"tracking: {lost} entries never reached MLflow ({self._address}); {self.path} has every number",
                file=sys.stderr,
            )
        if self._num_refused:
            print(
                f"tracking: MLflow refused {self._num_refused} entries; {self.path} has every number", file=sys.stderr
            )

    @property
    def _is_own(self) -> bool:
        """Whether MLflow is a database in `out`."""
        return self._uri is None and not os.environ.get("MLFLOW_TRACKING_URI")

    @property
    def _address(self) -> str:
        # A database's path may hold blanks and the like; MLflow takes it as it is.
        database = f"sqlite:///{(self.out / 'mlflow.db').resolve()}"
        return self._uri or os.environ.get("MLFLOW_TRACKING_URI") or database

    def _media(self, step: int, name: str) -> Path:
        path = self.out / "media" / f"{step:08d}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def _num_waiting(self) -> int:
        """Lines of the file and other entries that MLflow has not got; 0 where it is off."""
        if self._address == OFF:
            return 0
        return self._num_lines - self._sent_lines + len(self._waiting)

    def _later(self, send: Send) -> None:
        if self._address == OFF:
            return
        with self._change:
            # Under a request its entry is the first: it stays, and the one behind it goes.
            if len(self._waiting) >= MOST_WAITING:
                del self._waiting[1]
                self._num_dropped += 1
            self._waiting.append(_Entry(send, self._num_lines))
            self._change.notify_all()

    def _work(self) -> None:
        """The thread: sends what waits, in order; after a failure nothing for a while, unless somebody waits for it."""
        while True:
            with self._change:
                while not self._num_waiting or not (self._hurry or time.monotonic() >= self._silent_until):
                    left = self._silent_until - time.monotonic()
                    self._change.wait(left if self._num_waiting else None)
                entry = self._waiting[0] if self._waiting and self._waiting[0].after <= self._sent_lines else None
                until = self._waiting[0].after if self._waiting else self._num_lines
                self._trying, self._hurry = True, False
            lines = None
            try:
                lines = None if entry is not None else self._read_lines(until)
                is_done = self._sent(entry if lines is None else lines)
            except (OSError, ValueError) as error:  # the file is away or damaged
                is_done = self._report(error)
            with self._change:
                self._trying = False
                if not is_done:
                    self._silent_until = time.monotonic() + RETRY_SECONDS
                else:
                    if lines is None:
                        self._waiting.popleft()
                    else:
                        self._sent_lines += lines.count
                        self._sent_bytes += lines.bytes
                    self._hurry = bool(self._num_waiting)
                self._change.notify_all()

    def _read_lines(self, until: int) -> _Lines:
        """The next lines of the file, one at least, up to line `until`, whose numbers fit into one request."""
        metrics, count, size = Metrics(), 0, 0
        with self.path.open("rb") as file:
            file.seek(self._sent_bytes)
            while self._sent_lines + count < until:
                text = file.readline()
                numbers = numbers_of(json.loads(text))
                if count and len(metrics) + len(numbers) > AT_ONCE:
                    break
                metrics += numbers
                count, size = count + 1, size + len(text)
        return _Lines(metrics, count, size)

    def _sent(self, entry: _Entry | _Lines | None) -> bool:
        """Whether it is dealt with: taken by MLflow, or refused for good."""
        from mlflow.entities import Metric

        try:
            client = self._connect()
        except Exception as error:  # whatever it is, the thread must live on and try again
            return self._report(error)
        lines = entry if isinstance(entry, _Lines) else None
        try:
            if isinstance(entry, _Entry):
                entry.send(client, self.run_id)
            for start in range(0, len(lines.metrics) if lines else 0, AT_ONCE):
                assert lines is not None
                metrics = [Metric(*values) for values in lines.metrics[start : start + AT_ONCE]]
                client.log_batch(self.run_id, metrics=metrics)
        except Exception as error:
            if getattr(error, "error_code", None) not in REFUSED and not isinstance(error, FileNotFoundError):
                return self._report(error)
            count = 1 if lines is None else lines.count
            self._num_refused += count
            print(f"tracking: MLflow refused {count} entries ({first_line(error)})", file=sys.stderr)
        if lines is not None:
            try:
                self._note_sent(self._sent_lines + lines.count)
            except OSError as error:  # at worst these lines are sent again
                print(f"tracking: {self.out / SENT} cannot be written ({first_line(error)})", file=sys.stderr)
        if self._is_reported:
            print("tracking: MLflow answers again", file=sys.stderr)
            self._is_reported = False
        return True

    def _report(self, error: Exception) -> bool:
        if not self._is_reported:
            print(f"tracking: MLflow does not answer ({first_line(error)}); training continues", file=sys.stderr)
            self._is_reported = True
        return False

    def _connect(self) -> Any:
        if self._client is None:
            from mlflow import MlflowClient

            if self._is_own:
                self._make_database()
            client = MlflowClient(tracking_uri=self._address)
            self.run_id = self._find_run(client)
            self._client = client
        return self._client

    def _make_database(self) -> None:
        """Makes the database under another name first: MLflow takes seconds for it and never repairs half a one."""
        from mlflow import MlflowClient

        final = self.out / "mlflow.db"
        if final.exists():
            return
        for old in self.out.glob(".mlflow-*"):
            old.unlink()
        attempt = self.out / f".mlflow-{uuid.uuid4().hex[:8]}.db"
        MlflowClient(tracking_uri=f"sqlite:///{attempt.resolve()}").search_experiments(max_results=1)
        attempt.rename(final)

    def _find_run(self, client: Any) -> str:
        """MLflow's id of the run, made where there is none: by its id, or by the name that it was tagged with."""
        from mlflow.exceptions import MlflowException

        if not self._is_new:
            try:
                client.update_run(self.run_id, status="RUNNING")
                return self.run_id
            except MlflowException as error:
                if error.error_code not in REFUSED:
                    raise
        experiment = find_experiment(client, self._experiment, self.out if self._is_own else None)
        # An answer that was lost on its way here must not make two of one run.
        named = client.search_runs([experiment], filter_string=f"tags.`{TAG}` = '{self.run_id}'", max_results=1)
        if named:
            run_id: str = named[0].info.run_id
            client.update_run(run_id, status="RUNNING")
            return run_id
        made: str = client.create_run(experiment, run_name=self.name, tags={TAG: self.run_id}).info.run_id
        return made


def find_experiment(client: Any, name: str, database_folder: Path | None) -> str:
    """MLflow's id of the experiment, made where there is none.

    Args:
        client: an MlflowClient.
        database_folder: where the database lies, for artifacts beside it and not where the command happened to run;
            None: a server, which keeps them where it likes.
    """
    known = client.get_experiment_by_name(name)
    if known is not None:
        known_id: str = known.experiment_id
        return known_id
    place = (database_folder / "mlartifacts").resolve().as_uri() if database_folder is not None else None
    made_id: str = client.create_experiment(name, artifact_location=place)
    return made_id


def wrong_uri(uri: str | None) -> str:
    """Why MLflow cannot be at `uri` (None: at MLFLOW_TRACKING_URI), and what to write; "" where it may be there.

    A folder, a server, a database, Databricks, and what a plug-in of MLflow is for may be.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or OFF
    scheme, colon, rest = uri.partition(":")
    kind = scheme.partition("+")[0].lower()
    known = not colon or kind in ("databricks", "databricks-uc", "uc", "file") or Path(uri).is_absolute()
    known |= kind in DATABASES and rest.startswith("//")
    known |= kind in ("http", "https") and bool(urlsplit(uri).hostname)
    if known or kind in {plugin.name for plugin in entry_points(group="mlflow.tracking_store")}:
        return ""
    return (
        f"tracking URI {uri}: MLflow has no such store; write http://HOST:PORT, sqlite:///FILE or another database's "
        f"URI, or {OFF} for metrics.jsonl alone"
    )


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
