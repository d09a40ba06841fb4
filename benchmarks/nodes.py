"""Jobs on three nodes when something happens to one of them.

    python benchmarks/nodes.py [--units 40] [--seconds 6] [--cases CASE ...]

Each case is a Ray of its own on this machine: a head without CPUs, on which the driver runs, and two nodes of one CPU,
started by `ray start` as processes of their own. The runner, the graph, the workers and the decoder are the real ones;
models are stand-ins that sleep, but for the last case. Cases, all of them where none is named:

    alone    nothing happens
    killed   one node is killed in the middle of the job
    added    one node comes in the middle of the job, where only one other was
    joined   the same with a (pretended) GPU on either, and so with three pools
    mixed    a node of four CPUs without a GPU beside one of one CPU and two (pretended) GPUs
    head     the head is killed in the middle, and the driver with it; the same command is given to another Ray
    out      one node has an empty folder where OUT should be (a mount namespace of its own)
    in       the same with IN
    disk     OUT lies on a disk that becomes full
    store    object stores of 80 MB, three pools (a pretended GPU a node), units of a minute at 48 kHz
    submitted
             `ray job submit` of pipelines/annotate.py with its models, on sample recordings; one node is killed in the
             middle; recordings, clips and bytes are compared with those of the same job on nodes that stay

`lost`, `repeated`: windows without a result, and with more than one, after the last command. `same_bytes`: results
equal those of `alone`. `nodes`: how many had a unit in its models. `again`: runs of the models beyond one a unit, or
model calls that were made again. `tail_seconds`: how long the last worker worked alone at the end, where one command
did all. Where a case ends the job, its line must name the node, and the same command on healthy nodes must finish the
work.
"""

import argparse
import collections
import dataclasses
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.driver import digests  # noqa: E402
from benchmarks.support.stand_ins import (  # noqa: E402
    RATE,
    SleepingMeasure,
    SlowModels,
    busy_folder,
    stand_in_units,
)
from benchmarks.support.tables import table  # noqa: E402
from samples.ray_nodes import Nodes, empty, kill, ray_nodes  # noqa: E402
from voxmill.cli.demo import submit  # noqa: E402
from voxmill.core.errors import JobError, command  # noqa: E402
from voxmill.core.hashing import sha256_text  # noqa: E402
from voxmill.core.local_ray import environment  # noqa: E402
from voxmill.data.layout import read_index  # noqa: E402
from voxmill.data.records import to_json_text  # noqa: E402

CASES = ("alone", "killed", "added", "joined", "mixed", "out", "in", "disk", "store", "head", "submitted")
ONE_GPU = ("store", "joined")
STORE_BYTES, STORE_SECONDS = 80_000_000, 60.0
RECORDINGS = ("en-1", "es-1", "fr-1", "it-1")
ENDS_THE_JOB = ("out", "in", "disk")
NAMES_A_NODE = re.compile(r"node \S+ \([0-9a-f]{8}\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a case went; `line` is what the job said where it ended early, and there is no tail then."""

    lost: int
    repeated: int
    same_bytes: bool
    nodes: int
    again: int
    tail_seconds: float | None
    line: str = ""

    def is_good(self, case: str) -> bool:
        """Whether nothing is lost, repeated or different, all nodes worked, and a job that ended early named one."""
        named = bool(NAMES_A_NODE.search(self.line)) == (case in ENDS_THE_JOB)
        worked = self.nodes >= 2 or case in (*ENDS_THE_JOB, "mixed")
        return not self.lost and not self.repeated and self.same_bytes and worked and named


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """A folder with a recording for each unit; `seconds` of each."""

    folder: Path
    units: int
    seconds: float

    def make(self) -> None:
        """Noise of other samples for each unit."""
        self.folder.mkdir(parents=True)
        random = np.random.default_rng(0)
        for number in range(self.units):
            samples = random.integers(-3000, 3000, round(self.seconds * RATE), dtype=np.int16)
            soundfile.write(self.folder / f"{number:05d}.flac", samples, RATE)


def run_labelling(inputs: Inputs, out: Path) -> None:
    """What the job's process does: plans the units and labels them on the Ray that RAY_ADDRESS names."""

    from pipelines.config import AnnotateConfig
    from pipelines.engine.pools import Cluster
    from pipelines.engine.runner import Runner
    from pipelines.stages.decode import Decode
    from pipelines.units.plan_files import BucketPlan, write_bucket
    from voxmill.core.local_ray import join_ray
    from voxmill.core.progress import Progress

    join_ray()
    made = []
    for unit in stand_in_units(inputs.units, inputs.seconds):
        (result,) = unit.results
        window = dataclasses.replace(result.window, path=str(inputs.folder / f"{result.window.name[:5]}.flac"))
        made.append(dataclasses.replace(unit, results=(dataclasses.replace(result, window=window),)))
    write_bucket(out, 0, BucketPlan(recordings=(), units=tuple(made)))
    config = AnnotateConfig.model_validate({"run": {"progress": False}})
    stages = (Decode, SlowModels, SleepingMeasure)
    Runner(out, config, Cluster.now(), Progress(enabled=True), [0], stages).label_units()


def start_labelling(inputs: Inputs, out: Path, address: str) -> subprocess.Popen[str]:
    """The job as a process of its own."""
    own = [sys.executable, str(Path(__file__).resolve()), "--job", str(inputs.folder), str(out)]
    own += ["--units", str(inputs.units), "--seconds", str(inputs.seconds)]
    variables = environment() | {"RAY_ADDRESS": address}
    return subprocess.Popen(own, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_units(out: Path, count: int, has_ended: Callable[[], bool]) -> None:
    """Waits until so many units are done, or the job has ended."""
    while not has_ended() and len(list((out / "work" / "units").glob("*/*.tar"))) < count:
        time.sleep(0.1)


def wait_for_work(out: Path, nodes: int, has_ended: Callable[[], bool]) -> None:
    """Waits until so many nodes are in the middle of a unit at once, or the job has ended."""
    from pipelines.units.attempts import open_attempts

    while not has_ended():
        if len({one.node for _, attempts in open_attempts(out) for one in attempts if not one.ended}) >= nodes:
            return
        time.sleep(0.1)


def results(out: Path) -> dict[str, str]:
    """A digest of what each unit's file says of its recordings."""
    from pipelines.units.store import read_unit

    found = {}
    for path in sorted((out / "work" / "units").glob("*/*.tar")):
        unit = read_unit(path).unit
        found[path.stem] = sha256_text("".join(to_json_text(result) for result in unit.results))
    return found


def labelled_windows(out: Path) -> list[str]:
    """The windows that the units' files have results of."""
    from pipelines.units.store import read_unit

    paths = (out / "work" / "units").glob("*/*.tar")
    return [result.window.name for path in paths for result in read_unit(path).unit.results]


def runs(out: Path) -> list[tuple[str, list[tuple[float, float]]]]:
    """(Ray's id of its node, (begin, end) of each unit) of every actor of models that had one."""
    found = []
    for path in busy_folder(out).iterdir():
        lines = [line.split() for line in path.read_text().splitlines()]
        found.append((path.name.partition("-")[0], [(float(begin), float(end)) for begin, end in lines]))
    return found


def tail(out: Path) -> float:
    """Seconds that the last worker worked alone at the end."""
    ends = sorted(spans[-1][1] for _, spans in runs(out))
    return round(ends[-1] - ends[-2], 1) if len(ends) > 1 else 0.0


def finish_labelling(case: str, inputs: Inputs, out: Path, address: str) -> None:
    """The same command on healthy nodes.

    Raises:
        JobError: it failed.
    """
    job = start_labelling(inputs, out, address)
    _, errors = job.communicate(timeout=600)
    if job.returncode:
        raise JobError(f"{case}: the same command did not finish the work: {errors[-1500:]}")


def run_case(case: str, inputs: Inputs, folder: Path, expected: dict[str, str] | None = None) -> Outcome:
    """One case on a Ray of its own, and where its job ends early, the same command on healthy nodes.

    Args:
        expected: results of the same inputs where nothing happens; None: this is that run.
    """
    disk = folder / case
    disk.mkdir(parents=True)
    out, line = disk / "out", ""
    if case == "disk":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60k", "tmpfs", str(disk)], check=True)
    try:
        with ray_nodes(store_bytes=STORE_BYTES if case == "store" else None) as made:
            (out / "work").mkdir(parents=True)
            gpus = 1 if case in ONE_GPU else 0
            first = made.add(cpus=4 if case == "mixed" else 1, gpus=gpus)
            second = None
            if case not in ("added", "joined"):
                hidden = {"out": out, "in": inputs.folder}.get(case)
                second = made.add(gpus=2 if case == "mixed" else gpus, mount=empty(hidden) if hidden else "")
            job = start_labelling(inputs, out, made.address)

            def has_ended() -> bool:
                return job.poll() is not None

            if case in ("killed", "added", "joined", "head"):
                wait_for_units(out, inputs.units // 4, has_ended)
            if case in ("killed", "head"):
                wait_for_work(out, 2, has_ended)
                kill(first if case == "killed" else made.head)
            elif case in ("added", "joined"):
                second = made.add(gpus=gpus)
            _, errors = job.communicate(timeout=600)
            status = job.returncode
            line = errors.strip().splitlines()[-1] if status else ""
            if status and case == "disk":
                subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
            if status and case in ("out", "in") and second is not None:
                kill(second)
                made.add()
            if status and case != "head":
                finish_labelling(case, inputs, out, made.address)
        if status and case == "head":
            with ray_nodes() as made:
                made.add()
                finish_labelling(case, inputs, out, made.address)
        found, windows = results(out), labelled_windows(out)
        return Outcome(
            lost=inputs.units - len(set(windows)),
            repeated=len(windows) - len(set(windows)),
            same_bytes=expected is None or found == expected,
            nodes=len({node for node, _ in runs(out)}),
            again=sum(len(spans) for _, spans in runs(out)) - inputs.units,
            tail_seconds=None if line else tail(out),
            line=line,
        )
    finally:
        if case == "disk":
            subprocess.run(["umount", "-l", str(disk)], check=True)


def run_submitted(folder: Path) -> Outcome:
    """The job with its models, by `ray job submit`: once as it is, once with a node killed in the middle."""
    from pipelines.report.run_record import read_run

    folder.mkdir()
    manifest = folder / "manifest.jsonl"
    samples = ROOT / "samples" / "recordings"
    manifest.write_text("".join(json.dumps({"path": str(samples / f"{name}.flac")}) + "\n" for name in RECORDINGS))
    whole = folder / "whole"
    with ray_nodes(dashboard=True) as made:
        for _ in range(2):
            made.add()
        submit_annotation(manifest, whole, made)
    out = folder / "killed"
    with ray_nodes(dashboard=True) as made, ThreadPoolExecutor(1) as pool:
        first, _ = made.add(), made.add()
        job = pool.submit(submit_annotation, manifest, out, made)
        wait_for_work(out, 2, job.done)
        kill(first)
        was_killed = not job.done()
        job.result()
    names = read_index(out / "recordings.parquet", ["path"])["path"].to_pylist()
    clips = [
        name
        for index in ("clips.parquet", "rejected.parquet")
        for name in read_index(out / index, ["clip_id"])["clip_id"].to_pylist()
    ]
    return Outcome(
        lost=len(RECORDINGS) - len(set(names)),
        repeated=sum(count - 1 for count in collections.Counter([*names, *clips]).values()),
        same_bytes=digests(out) == digests(whole),
        nodes=2 if was_killed else 1,
        again=read_run(out)["model_calls_repeated"],
        tail_seconds=None,
    )


def submit_annotation(manifest: Path, out: Path, made: Nodes) -> None:
    """`ray job submit` of the annotation job.

    Raises:
        JobError: it failed; its output has been shown.
    """
    ray = [str(Path(sys.executable).parent / "ray"), "job", "submit", f"--address={made.dashboard}"]
    job = ["python", "pipelines/annotate.py", str(manifest), str(out), "run.progress=false"]
    status = submit([*ray, f"--working-dir={ROOT}", "--", *job])
    if status:
        raise JobError(f"the submitted job ended with status {status}")


def run_cases(cases: list[str], inputs: Inputs, folder: Path) -> Iterator[tuple[str, Outcome]]:
    """(case, how it went); the one in which nothing happens comes first where another is compared with it."""
    expected: dict[str, str] | None = None
    for case in cases:
        if case == "submitted":
            yield case, run_submitted(folder / case)
        elif case == "store":
            long = Inputs(folder=folder / "long-recordings", units=max(inputs.units // 2, 6), seconds=STORE_SECONDS)
            long.make()
            run_case("alone", long, folder / "long")
            yield case, run_case(case, long, folder, results(folder / "long" / "alone" / "out"))
        else:
            if expected is None:
                inputs.make()
                yield "alone", run_case("alone", inputs, folder)
                expected = results(folder / "alone" / "out")
            if case != "alone":
                yield case, run_case(case, inputs, folder, expected)


@command("benchmarks/nodes.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--job", type=Path, nargs=2, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    inputs = Inputs(folder=Path(), units=arguments.units, seconds=arguments.seconds)
    if arguments.job is not None:
        source, out = arguments.job
        run_labelling(dataclasses.replace(inputs, folder=source), out)
        return
    folder = Path(tempfile.mkdtemp(prefix="voxmill-nodes-"))
    outcomes = {}
    for case, outcome in run_cases(arguments.cases, dataclasses.replace(inputs, folder=folder / "recordings"), folder):
        outcomes[case] = outcome
        print(f"{case}: {outcome}", flush=True)
    rows = [
        [
            case,
            str(one.lost),
            str(one.repeated),
            str(one.same_bytes),
            str(one.nodes),
            str(one.again),
            "" if one.tail_seconds is None else f"{one.tail_seconds} s",
            one.line.partition(": ")[2][:90],
        ]
        for case, one in outcomes.items()
    ]
    headings = ["case", "lost", "repeated", "same bytes", "nodes", "again", "tail", "the job's line"]
    Console(width=170).print(table("three nodes", headings, rows))
    result = {
        "lost": sum(one.lost for one in outcomes.values()),
        "repeated": sum(one.repeated for one in outcomes.values()),
        "same_bytes": all(one.same_bytes for one in outcomes.values()),
        "tail_seconds": max(one.tail_seconds or 0.0 for one in outcomes.values()),
        "good": {case: one.is_good(case) for case, one in outcomes.items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
