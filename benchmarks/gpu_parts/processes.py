"""Parts of a benchmark as processes: all get ready at the same time, then each takes its turn alone.

Compiling takes a minute a part, and a failed kernel leaves its process without a GPU: so no part waits for another's
compiler, and none can take another down. What is known is printed at once, so that a run cut short loses little.
"""

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Found = dict[str, Any]
"""What a part prints: one JSON object."""

ROOT = Path(__file__).resolve().parents[2]


def take_turn(get_ready: Callable[[], None], measure: Callable[[], Found]) -> None:
    """The part's side: gets ready, waits for its turn, measures and prints what it found."""
    started = time.perf_counter()
    get_ready()
    print(json.dumps({"ready_s": round(time.perf_counter() - started, 1)}), flush=True)
    if sys.stdin.readline():  # empty: the other side has given up
        print(json.dumps(measure()), flush=True)


class _Part:
    def __init__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def next(self, seconds: float) -> Found:
        """The next object that it prints; {"error": ...} if there is none in time."""
        end = time.monotonic() + seconds
        while True:
            try:
                line = self.lines.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                return {"error": f"nothing within {seconds:.0f} s: {_last_lines(self.log)}"}
            if not line:
                return {"error": f"exit status {self.process.wait()}: {_last_lines(self.log)}"}
            if line.startswith("{"):  # libraries may print, too
                return dict(json.loads(line))

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def run_parts(
    commands: Mapping[str, Sequence[str]],
    *,
    patience: float,
    turn: float,
    logs: Path,
    environment: Mapping[str, str],
    on_found: Callable[[str, Found], None],
) -> dict[str, Found]:
    """What each part found, or {"error": ...}.

    Args:
        commands: arguments of Python for each part; turns are taken in this order.
        patience: seconds until all must be ready; those that are not are ended.
        turn: seconds that a turn may take.
        logs: folder for what the parts write to stderr.
        on_found: called with each part's name and result as soon as it is known.
    """
    logs.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + patience
    parts = {name: _Part(arguments, logs / f"{name}.txt", environment) for name, arguments in commands.items()}
    found: dict[str, Found] = {}
    try:
        ready = {name: part.next(end - time.monotonic()) for name, part in parts.items()}
        for name, part in parts.items():
            if "error" in ready[name]:
                part.end()  # or it would disturb the others
        for name, part in parts.items():
            result = ready[name]
            if "error" not in result:
                assert part.process.stdin is not None
                part.process.stdin.write("go\n")
                part.process.stdin.flush()
                result = ready[name] | part.next(turn)
            part.end()
            found[name] = result
            on_found(name, result)
    finally:
        for part in parts.values():
            part.end()
    return found


def _last_lines(log: Path, size: int = 1500) -> str:
    return log.read_text(errors="replace")[-size:].strip()
