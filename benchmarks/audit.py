"""Kills the main job at random points and checks that nothing is lost, repeated or different.

    python benchmarks/audit.py [--kills 20] [--seed 0] [--folder DIR]

The corpus is the bad-input set. One run is left alone with one worker and one with two; then drivers and workers are
killed with -9 at random moments and the same command is run again, on one and on two workers in turn, until the
dataset is whole. A work unit repeats only what was in flight: begun, and not yet written, when its process died.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow.parquet as pq
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.support.tables import table  # noqa: E402
from pipelines.units.attempts import open_attempts  # noqa: E402
from samples import bad_input  # noqa: E402
from samples.annotate_process import finish_job, run_job, start_job  # noqa: E402
from voxmill.core.errors import command  # noqa: E402
from voxmill.core.hashing import sha256_bytes, sha256_file  # noqa: E402
from voxmill.core.local_ray import local_ray  # noqa: E402

# The corpus lasts 73 s: in small units a killed run has some done, some in flight and some not begun.
UNITS = "label.unit_seconds=6"
INDEXES = ("clips.parquet", "rejected.parquet", "recordings.parquet")


@dataclass
class Tally:
    """Counts over all kills."""

    kills: int = 0
    driver_kills: int = 0
    datasets: int = 0
    lost: int = 0
    repeated: int = 0
    same_bytes: bool = True
    model_calls: int = 0
    model_calls_repeated: int = 0
    units_in_flight: int = 0
    rule_violations: int = 0
    moments: list[str] = field(default_factory=list)


def digest(out: Path) -> dict[str, str]:
    """sha256 of every shard by name and of every index's rows."""
    digests = {path.name: sha256_file(path) for path in sorted((out / "shards").iterdir())}
    for name in INDEXES:
        rows = json.dumps(pq.read_table(out / name).to_pylist(), sort_keys=True, default=str)
        digests[name] = sha256_bytes(rows.encode())
    return digests


def worker_processes(head: psutil.Process) -> list[psutil.Process]:
    """The Ray workers of this audit's own Ray that do some of the job's work."""
    workers = []
    for process in head.children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if title.startswith(("ray::MapWorker", "ray::scan_recording", "ray::read", "ray::write")):
            workers.append(process)
    return workers


def in_flight(out: Path) -> set[str]:
    """Units that some stage has begun and that have no file yet."""
    begun = {unit for unit, _ in open_attempts(out)}
    return {unit for unit in begun if not any((out / "work" / "units").glob(f"*/{unit}.tar"))}


def count_faults(out: Path, inputs: list[str], expected: set[str]) -> tuple[int, int]:
    """(lost, repeated): inputs and clip ids of the untouched run that are missing, and those that come twice."""
    names = pq.read_table(out / "recordings.parquet")["path"].to_pylist()
    clips = [clip for name in INDEXES[:2] for clip in pq.read_table(out / name)["clip_id"].to_pylist()]
    lost = len(set(inputs) - set(names)) + len(expected - set(clips))
    return lost, len(names) - len(set(names)) + len(clips) - len(set(clips))


def audit(
    corpus: Path, inputs: list[str], folder: Path, kills: int, seed: int, head: psutil.Process, address: str
) -> Tally:
    """The whole audit on one running Ray; `folder` gets the datasets.

    Args:
        inputs: names of recordings, each of which must come out once.
        head: the process below which Ray's workers are.
    """
    choice = random.Random(seed)
    tally = Tally()
    began = time.monotonic()
    run_job(corpus, folder / "alone-1", address, "run.workers=1", UNITS)
    seconds = time.monotonic() - began
    expected = digest(folder / "alone-1")
    clips = {c for n in INDEXES[:2] for c in pq.read_table(folder / "alone-1" / n)["clip_id"].to_pylist()}
    print(f"left alone, one worker: {seconds:.0f} s", flush=True)
    run_job(corpus, folder / "alone-2", address, "run.workers=2", UNITS)
    tally.same_bytes &= digest(folder / "alone-2") == expected
    print(f"left alone, two workers: same bytes {tally.same_bytes}", flush=True)
    while tally.kills < kills:
        out = folder / f"killed-{tally.datasets}"
        workers = 1
        job = start_job(corpus, out, address, f"run.workers={workers}", UNITS)
        while job.poll() is None:
            if tally.kills >= kills:
                finish_job(job, out)
                break
            deadline = time.monotonic() + choice.uniform(1, seconds * 0.8)
            while time.monotonic() < deadline and job.poll() is None:
                time.sleep(0.1)
            if job.poll() is not None:
                break
            victims = worker_processes(head)
            # In turn, not as they happen to be there: workers come seconds after their driver.
            wants_worker = tally.kills % 2 == 1
            while wants_worker and not victims and job.poll() is None:
                time.sleep(0.5)
                victims = worker_processes(head)
            if job.poll() is not None:
                break
            if wants_worker:
                victim = choice.choice(sorted(victims, key=lambda p: p.pid))
                title = " ".join(victim.cmdline())[:60]
                victim.kill()
                tally.units_in_flight += 2
            else:
                job.kill()
                job.wait()
                title, flying = "the driver", in_flight(out)
                tally.units_in_flight += len(flying)
                tally.driver_kills += 1
                workers = 3 - workers
                job = start_job(corpus, out, address, f"run.workers={workers}", UNITS)
            tally.kills += 1
            tally.moments.append(title)
            print(f"kill {tally.kills} of {kills}: {title}", flush=True)
        finish_job(job, out)
        lost, repeated = count_faults(out, inputs, clips)
        run = json.loads((out / "run.json").read_text())
        calls, again = run["model_calls"], run["model_calls_repeated"]
        same = digest(out) == expected
        tally.lost += lost
        tally.repeated += repeated
        tally.model_calls += calls
        tally.model_calls_repeated += again
        tally.same_bytes &= same
        tally.datasets += 1
        tally.rule_violations += run["corpus_labels"]["references"]["rule_violations"]
        print(
            f"dataset {tally.datasets}: lost {lost}, twice {repeated}, same bytes {same}, calls again {again}",
            flush=True,
        )
    return tally


@command("benchmarks/audit.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None, help="where the datasets are made (default: temporary)")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="voxmill-audit-"))
    folder.mkdir(parents=True, exist_ok=True)
    corpus = folder / "in"
    bad_input.make(corpus)
    with local_ray(num_cpus=max(os.cpu_count() or 1, 2)) as address:
        head = psutil.Process()
        tally = audit(corpus, sorted(bad_input.CASES), folder, arguments.kills, arguments.seed, head, address)
    shown = ["kills", "driver_kills", "lost", "repeated", "same_bytes"]
    shown += ["model_calls", "model_calls_repeated", "units_in_flight", "rule_violations"]
    rows = [[name.replace("_", " "), str(getattr(tally, name))] for name in shown]
    title = f"{len(bad_input.CASES)} inputs, {tally.datasets} datasets"
    Console().print(table(title, ["what", "count"], rows))
    keys = (
        "kills",
        "lost",
        "repeated",
        "same_bytes",
        "model_calls_repeated",
        "units_in_flight",
        "driver_kills",
        "rule_violations",
    )
    print(json.dumps({key: getattr(tally, key) for key in keys}))


if __name__ == "__main__":
    sys.exit(main())
