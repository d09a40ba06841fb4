"""The record of a run: `metrics.jsonl` always, MLflow beside it.

The file is the truth and MLflow a copy, sent by a thread of its own: a server that is down or hangs costs the run
nothing. What it missed waits in memory, in order, and goes out when it answers; what still waits at the end is
reported. Numbers that a killed run had not sent yet are sent from the file when the run is resumed.
"""

import errno
import json
import os
import re
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from voxmill.core.files import write_atomically

RETRY_SECONDS = 60.0
"""Between two attempts to reach a server that did not answer."""
FINISH_SECONDS = 60.0
"""What the end of a run waits for MLflow at most."""
AT_ONCE = 1000
PARAMS_AT_ONCE = 100
"""Metrics and params that MLflow takes in one request."""
OFF = "none"
TAG = "voxmill.run"
SENT = "mlflow-sent.json"
"""In the run's folder: how many lines of the file MLflow has."""
REFUSED = ("BAD_REQUEST", "INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST")
"""MLflow's answers to what it will never take; asking again would hold up all that comes after."""
Send = Callable[[Any, str], None]
Metrics = list[tuple[str, float, int, int]]
"""(name, value, milliseconds, step) each."""


@dataclass(frozen=True)
class _Entry:
    """One thing for MLflow: metrics, which go out many together, or whatever `send` does."""

    metrics: Metrics
    send: Send | None = None
    line: int | None = None
    """So many lines of the file are at MLflow with it."""


class Tracker:
    """One run. Construct it on one rank only.

    Args:
        out: folder of the run; gets `metrics.jsonl`, `media/`, and MLflow's database where no server is named.
        uri: MLflow tracking URI; None takes MLFLOW_TRACKING_URI, else a database in `out`; "none" leaves MLflow out.
        experiment: name in MLflow. name: of the run.
        run_id: an earlier `run_id`, to resume that run; None: a new one.
        step: lines of `metrics.jsonl` after this step are dropped: they are about to be made again.
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
        self._is_reported, self._num_refused = False, 0
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / "metrics.jsonl"
        lines = _forget_after(self.path, step)
        self._num_lines = len(lines)
        self._unwritten, self._is_full = "", False
        if self._is_new:
            (out / SENT).unlink(missing_ok=True)
        if self._address != OFF:
            first = self._num_lines if self._is_new else self._num_sent()
            for number, line in enumerate(lines[first:], start=first + 1):
                self._send_line(line, number)
            # MLflow's own patience is minutes, in which nothing else would go out.
            for variable, value in (("REQUEST_MAX_RETRIES", "0"), ("REQUEST_TIMEOUT", "10")):
                os.environ.setdefault(f"MLFLOW_HTTP_{variable}", value)
            import mlflow  # noqa: F401 (here, not in the thread, where it could meet other imports half-way)

            threading.Thread(target=self._work, name="tracking", daemon=True).start()

    def params(self, values: Mapping[str, Any]) -> None:
        """Settings of the run, nested or not. Those that MLflow has already stay as they were, as it wants it."""
        flat = {key: str(value)[:500] for key, value in _flat(values, ".")}

        def send(client: Any, run_id: str) -> None:
            from mlflow.entities import Param

            known = client.get_run(run_id).data.params
            new = [Param(key, value) for key, value in flat.items() if key not in known]
            for start in range(0, len(new), PARAMS_AT_ONCE):
                client.log_batch(run_id, params=new[start : start + PARAMS_AT_ONCE])

        self._later(_Entry([], send))

    def metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Numbers of one step, nested or not: `{"a": {"b": 1}}` is `a/b` in MLflow; the rest is in the file only."""
        line = {"step": step, "time": round(time.time(), 3), **values}
        self._unwritten += json.dumps(line) + "\n"
        self._write_lines()
        self._num_lines += 1
        self._send_line(line, self._num_lines)

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
        self._unwritten, self._is_full = "", False

    def _send_line(self, line: Mapping[str, Any], number: int) -> None:
        step, stamp = line["step"], int(line["time"] * 1000)
        flat = _flat({key: value for key, value in line.items() if key not in ("step", "time")}, "/")
        numbers = [
            (re.sub(r"[^\w\-. :/]", "_", key), float(value), stamp, step)
            for key, value in flat
            if isinstance(value, (int, float))
        ]
        for start in range(0, len(numbers), AT_ONCE):
            is_last = start + AT_ONCE >= len(numbers)
            self._later(_Entry(numbers[start : start + AT_ONCE], line=number if is_last else None))

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
        self._later(_Entry([], lambda client, run_id: client.log_artifact(run_id, str(path), folder)))

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
            self._hurry = bool(self._waiting)
            self._change.notify_all()
            self._change.wait_for(lambda: not self._waiting or not (self._hurry or self._trying), timeout=seconds)
            return not self._waiting

    def finish(self, status: str = "FINISHED") -> None:
        """Ends the run as FINISHED, FAILED or KILLED, and reports what MLflow never got. Takes a minute at most."""
        if self._unwritten:
            self._write_lines()
        self._later(_Entry([], lambda client, run_id: client.set_terminated(run_id, status)))
        if not self.wait():
            print(
                f"tracking: {len(self._waiting)} entries never reached MLflow ({self._address}); "
                f"{self.path} has every number",
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

    def _later(self, entry: _Entry) -> None:
        if self._address == OFF:
            return
        with self._change:
            self._waiting.append(entry)
            self._change.notify_all()

    def _work(self) -> None:
        """The thread: sends what waits, in order; after a failure nothing for a while, unless somebody waits for it."""
        while True:
            with self._change:
                while not self._waiting or not (self._hurry or time.monotonic() >= self._silent_until):
                    left = self._silent_until - time.monotonic()
                    self._change.wait(left if self._waiting else None)
                entries = self._next()
                self._trying, self._hurry = True, False
            is_done = self._sent(entries)
            with self._change:
                self._trying = False
                if is_done:
                    for _ in entries:
                        self._waiting.popleft()
                    self._hurry = bool(self._waiting)
                else:
                    self._silent_until = time.monotonic() + RETRY_SECONDS
                self._change.notify_all()

    def _next(self) -> list[_Entry]:
        """The first entry, or the first ones together where they are metrics that fit into one request."""
        entries, room = [self._waiting[0]], AT_ONCE - len(self._waiting[0].metrics)
        if entries[0].send is None:
            for entry in islice(self._waiting, 1, None):
                room -= len(entry.metrics)
                if entry.send is not None or room < 0:
                    break
                entries.append(entry)
        return entries

    def _sent(self, entries: list[_Entry]) -> bool:
        """Whether these are dealt with: taken by MLflow, or refused for good."""
        from mlflow.entities import Metric

        try:
            client = self._connect()
        except Exception as error:  # whatever it is, the thread must live on and try again
            return self._report(error)
        try:
            for entry in entries[:1]:
                if entry.send is not None:
                    entry.send(client, self.run_id)
            metrics = [Metric(*values) for entry in entries for values in entry.metrics]
            if metrics:
                client.log_batch(self.run_id, metrics=metrics)
        except Exception as error:
            if getattr(error, "error_code", None) not in REFUSED and not isinstance(error, FileNotFoundError):
                return self._report(error)
            self._num_refused += len(entries)
            print(f"tracking: MLflow refused {len(entries)} entries ({first_line(error)})", file=sys.stderr)
        lines = [entry.line for entry in entries if entry.line is not None]
        if lines:
            try:
                self._note_sent(lines[-1])
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


def _forget_after(path: Path, step: int) -> list[dict[str, Any]]:
    """Drops the lines after this step and gives the others."""
    if not path.exists():
        return []
    kept = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # the last line of a run that was killed while it wrote
        if line["step"] <= step:
            kept.append((text, line))
    write_atomically(path, "".join(text + "\n" for text, _ in kept))
    return [line for _, line in kept]


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _flat(values: Mapping[str, Any], between: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, between, f"{prefix}{key}{between}")
        else:
            yield f"{prefix}{key}", value
