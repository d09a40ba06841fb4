"""The labelling phase on three nodes when something happens to one of them.

    python benchmarks/nodes.py [--units 40] [--seconds 6] [--cases alone killed added out in disk store]

Each case is a Ray of its own on this machine: a head without CPUs, on which the driver runs, and two nodes of one CPU,
started by `ray start` as processes of their own. The runner, the graph, the workers and the decoder are the real ones;
models are stand-ins that sleep. Cases:

    alone    nothing happens
    killed   one node is killed in the middle of the job
    added    one node comes in the middle of the job, where only one other was
    out      one node has an empty folder where OUT should be (a mount namespace of its own)
    in       the same with IN
    disk     OUT lies on a disk that becomes full
    store    object stores of 80 MB, three pools, units of a minute at 48 kHz

`lost`, `repeated`: units without a result, and results with a window too many, after the last command. `same_bytes`:
results equal those of `alone`. `tail_seconds`: how long the last worker worked alone at the end. Where a case ends the
job, its line must name the node, and the same command on healthy nodes must finish the work.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.support.stand_ins import (  # noqa: E402
    RATE,
    SleepingMeasure,
    SleepingModels,
    busy_folder,
    stand_in_units,
)
from benchmarks.support.tables import table  # noqa: E402
from voxmill.core.errors import JobError, command  # noqa: E402
from voxmill.core.hashing import sha256_text  # noqa: E402
from voxmill.core.local_ray import environment, free_port  # noqa: E402
from voxmill.data.records import to_json_text  # noqa: E402

CASES = ("alone", "killed", "added", "out", "in", "disk", "store")
NAMES_A_NODE = re.compile(r"node \S+ \([0-9a-f]{8}\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a case went; `line` is what the job said where it ended early."""

    lost: int
    repeated: int
    same_bytes: bool
    tail_seconds: float
    line: str = ""

    def is_good(self, case: str) -> bool:
        """Whether nothing is lost, repeated or different, and a job that ended early named its node."""
        named = bool(NAMES_A_NODE.search(self.line)) == (case in ("out", "in", "disk"))
        return not self.lost and not self.repeated and self.same_bytes and named


class Nodes:
    """A Ray of several processes on this machine."""

    def __init__(self, folder: Path, store_bytes: int | None) -> None:
        self._folder, self._store, self._port = folder, store_bytes, free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        self.address = f"127.0.0.1:{self._port}"
        head = ["--head", f"--port={self._port}", "--num-cpus=0", "--include-dashboard=false", "--no-monitor"]
        self._start(["--node-ip-address=127.0.0.1", f"--temp-dir={self._folder}", *head])

    def add(self, hidden: Path | None = None) -> subprocess.Popen[bytes]:
        """A node of one CPU; `hidden` is an empty folder for it."""
        words = [f"--address={self.address}", "--num-cpus=1", "--node-ip-address=127.0.0.1"]
        return self._start(words, hidden)

    def _start(self, words: list[str], hidden: Path | None = None) -> subprocess.Popen[bytes]:
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *words]
        if self._store is not None:
            ray += [f"--object-store-memory={self._store}"]
        if hidden is not None:
            hide = f'mount -t tmpfs -o size=50m tmpfs "{hidden}" && exec "$@"'
            ray = ["unshare", "-m", "sh", "-c", hide, "sh", *ray]
        log = self._folder.with_name(f"{self._folder.name}-{len(self._processes)}.log")
        with open(log, "wb") as output:
            process = subprocess.Popen(ray, env=environment(), stdout=output, stderr=output, start_new_session=True)
        self._processes.append(process)
        for _ in range(240):
            if "Ray runtime started" in log.read_text(errors="replace"):
                return process
            if process.poll() is not None:
                break
            time.sleep(0.25)
        raise JobError(f"a node did not start: {log.read_text(errors='replace')[-800:]}")

    def end(self) -> None:
        """Kills every node."""
        for process in reversed(self._processes):
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kills a node with all that it started, as a machine that is taken away."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def nodes(store_bytes: int | None = None) -> Iterator[Nodes]:
    """A head without CPUs."""
    # Ray's sockets lie below; their paths must be short.
    with tempfile.TemporaryDirectory(prefix="vm-", ignore_cleanup_errors=True) as folder:
        made = Nodes(Path(folder) / "ray", store_bytes)
        try:
            yield made
        finally:
            made.end()


def make_inputs(folder: Path, units: int, seconds: float) -> None:
    """Noise of other samples for each unit."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(units):
        samples = random.integers(-3000, 3000, round(seconds * RATE), dtype=np.int16)
        soundfile.write(folder / f"{number:05d}.flac", samples, RATE)


def run_labelling(source: Path, out: Path, units: int, seconds: float, pools: bool) -> None:
    """What the job's process does: plans the units and labels them on the Ray that RAY_ADDRESS names."""
    import dataclasses

    import ray

    from pipelines.config import AnnotateConfig
    from pipelines.engine.pools import Cluster
    from pipelines.engine.runner import Runner
    from pipelines.stages.decode import Decode
    from pipelines.units.plan_files import BucketPlan, write_bucket
    from voxmill.core.local_ray import join_ray
    from voxmill.core.progress import Progress

    join_ray()
    made = []
    for unit in stand_in_units(units, seconds):
        (result,) = unit.results
        window = dataclasses.replace(result.window, path=str(source / f"{result.window.name[:5]}.flac"))
        made.append(dataclasses.replace(unit, results=(dataclasses.replace(result, window=window),)))
    write_bucket(out, 0, BucketPlan(recordings=(), units=tuple(made)))
    config = AnnotateConfig.model_validate({"run": {"progress": False, "pools": pools}})
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cluster = Cluster(cpus=float(resources.get("CPU", 0)), gpus=0)
    stages = (Decode, SleepingModels, SleepingMeasure)
    Runner(out, config, cluster, Progress(enabled=True), [0], stages).label_units()


def start_labelling(
    source: Path, out: Path, address: str, units: int, seconds: float, pools: bool = False
) -> subprocess.Popen[str]:
    """The job as a process of its own."""
    own = [sys.executable, str(Path(__file__).resolve()), "--job", str(source), str(out)]
    own += ["--units", str(units), "--seconds", str(seconds), *(["--pools"] if pools else [])]
    variables = environment() | {"RAY_ADDRESS": address}
    return subprocess.Popen(own, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_units(out: Path, count: int, job: subprocess.Popen[str]) -> None:
    """Waits until so many units are done, or the job has ended."""
    while job.poll() is None and len(list((out / "work" / "units").glob("*/*.tar"))) < count:
        time.sleep(0.1)


def results(out: Path) -> dict[str, str]:
    """A digest of what each unit's file says of its recordings."""
    from pipelines.units.store import read_unit

    found = {}
    for path in sorted((out / "work" / "units").glob("*/*.tar")):
        unit = read_unit(path).unit
        found[path.stem] = sha256_text("".join(to_json_text(result) for result in unit.results))
    return found


def tail(out: Path) -> float:
    """Seconds that the last worker worked alone at the end."""
    ends = sorted(
        max(float(line.split()[1]) for line in path.read_text().splitlines()) for path in busy_folder(out).iterdir()
    )
    return round(ends[-1] - ends[-2], 1) if len(ends) > 1 else 0.0


def run_case(case: str, source: Path, folder: Path, units: int, seconds: float, expected: dict[str, str]) -> Outcome:
    """One case on a Ray of its own, and where its job ends early, the same command on healthy nodes."""
    disk = folder / f"disk-{case}"
    disk.mkdir()
    out, line = disk / "out", ""
    if case == "disk":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60k", "tmpfs", str(disk)], check=True)
    try:
        with nodes(80_000_000 if case == "store" else None) as made:
            (out / "work").mkdir(parents=True)
            first = made.add()
            second = None
            if case != "added":
                second = made.add({"out": out, "in": source}.get(case))
            job = start_labelling(source, out, made.address, units, seconds, pools=case == "store")
            if case in ("killed", "added"):
                wait_for_units(out, units // 4, job)
            if case == "killed":
                kill(first)
            elif case == "added":
                second = made.add()
            _, errors = job.communicate(timeout=600)
            status = job.returncode
            line = errors.strip().splitlines()[-1] if status else ""
            if status and case == "disk":
                subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
            if status and case in ("out", "in") and second is not None:
                kill(second)
                made.add()
            if status:
                again = start_labelling(source, out, made.address, units, seconds)
                _, errors = again.communicate(timeout=600)
                if again.returncode:
                    raise JobError(f"{case}: the same command did not finish the work: {errors[-1500:]}")
        found = results(out)
        return Outcome(
            lost=units - len(found),
            repeated=max(len(found) - units, 0),
            same_bytes=found == expected or case == "alone",
            tail_seconds=tail(out),
            line=line,
        )
    finally:
        if case == "disk":
            subprocess.run(["umount", "-l", str(disk)], check=True)


@command("benchmarks/nodes.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--pools", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--job", type=Path, nargs=2, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job is not None:
        source, out = arguments.job
        run_labelling(source, out, arguments.units, arguments.seconds, arguments.pools)
        return
    folder = Path(tempfile.mkdtemp(prefix="voxmill-nodes-"))
    source = folder / "in"
    make_inputs(source, arguments.units, arguments.seconds)
    outcomes: dict[str, Outcome] = {}
    expected: dict[str, str] = {}
    for case in dict.fromkeys(["alone", *arguments.cases]):
        outcomes[case] = run_case(case, source, folder, arguments.units, arguments.seconds, expected)
        if case == "alone":
            expected = results(folder / "disk-alone" / "out")
        print(f"{case}: {outcomes[case]}", flush=True)
    rows = [
        [case, str(one.lost), str(one.repeated), str(one.same_bytes), f"{one.tail_seconds} s", one.line[:70]]
        for case, one in outcomes.items()
    ]
    Console(width=150).print(
        table("three nodes", ["case", "lost", "repeated", "same bytes", "tail", "the job's line"], rows)
    )
    result = {
        "lost": sum(one.lost for one in outcomes.values()),
        "repeated": sum(one.repeated for one in outcomes.values()),
        "same_bytes": all(one.same_bytes for one in outcomes.values()),
        "tail_seconds": max(one.tail_seconds for one in outcomes.values()),
        "good": {case: one.is_good(case) for case, one in outcomes.items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
