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
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.support.kills import Tally, Untouched, job_workers, kill  # noqa: E402
from benchmarks.support.tables import table  # noqa: E402
from pipelines.units.attempts import open_attempts  # noqa: E402
from samples import bad_input  # noqa: E402
from samples.annotate_process import finish_job, run_job, start_job  # noqa: E402
from voxmill.core.errors import command  # noqa: E402
from voxmill.core.local_ray import local_ray  # noqa: E402

# The corpus lasts 73 s: in small units a killed run has some done, some in flight and some not begun.
UNITS = "label.unit_seconds=6"


@dataclass(kw_only=True)
class AuditTally(Tally):
    """Counts over all kills."""

    model_calls: int = 0
    model_calls_repeated: int = 0
    units_in_flight: int = 0
    rule_violations: int = 0


def in_flight(out: Path) -> set[str]:
    """Units that some stage has begun and that have no file yet."""
    begun = {unit for unit, _ in open_attempts(out)}
    return {unit for unit in begun if not any((out / "work" / "units").glob(f"*/{unit}.tar"))}


def next_victim(
    job: "subprocess.Popen[bytes]", head: psutil.Process, wants_worker: bool, after: float, choice: random.Random
) -> psutil.Process | None:
    """A worker or the driver, some seconds later; None where the job has ended before that."""
    deadline = time.monotonic() + after
    while time.monotonic() < deadline and job.poll() is None:
        time.sleep(0.1)
    victims = job_workers(head)
    # Workers come seconds after their driver.
    while wants_worker and not victims and job.poll() is None:
        time.sleep(0.5)
        victims = job_workers(head)
    if job.poll() is not None:
        return None
    return choice.choice(victims) if wants_worker else psutil.Process(job.pid)


def audit(
    corpus: Path,
    inputs: list[str],
    folder: Path,
    kills: int,
    seed: int,
    head: psutil.Process,
    address: str,
    *,
    also_alone_on_two: bool = True,
) -> AuditTally:
    """The whole audit on one running Ray; `folder` gets the datasets.

    Args:
        inputs: names of recordings, each of which must come out once.
        head: the process below which Ray's workers are.
        also_alone_on_two: whether two workers are left alone, too; killed jobs use one and two in turn whatever it is.
    """
    choice = random.Random(seed)
    tally = AuditTally()
    began = time.monotonic()
    run_job(corpus, folder / "alone-1", address, "run.workers=1", UNITS)
    seconds = time.monotonic() - began
    untouched = Untouched.of(folder / "alone-1")
    print(f"left alone, one worker: {seconds:.0f} s", flush=True)
    if also_alone_on_two:
        run_job(corpus, folder / "alone-2", address, "run.workers=2", UNITS)
        tally.same_bytes &= Untouched.of(folder / "alone-2") == untouched
        print(f"left alone, two workers: same bytes {tally.same_bytes}", flush=True)
    while tally.kills < kills:
        out, workers = folder / f"killed-{tally.datasets}", 1
        job = start_job(corpus, out, address, f"run.workers={workers}", UNITS)
        while tally.kills < kills:
            # In turn, not as they happen to be there.
            victim = next_victim(job, head, tally.kills % 2 == 1, choice.uniform(1, seconds * 0.8), choice)
            if victim is None:
                break
            title = " ".join(victim.cmdline())[:60]
            if kill(victim, job):
                tally.units_in_flight += len(in_flight(out))
                workers = 3 - workers
                job = start_job(corpus, out, address, f"run.workers={workers}", UNITS)
                tally.count_kill("the driver", kills, is_driver=True)
            else:
                tally.units_in_flight += 2
                tally.count_kill(title, kills, is_driver=False)
        finish_job(job, out)
        tally.compare(out, untouched, inputs)
        run = json.loads((out / "run.json").read_text())
        tally.model_calls += run["model_calls"]
        tally.model_calls_repeated += run["model_calls_repeated"]
        tally.rule_violations += run["corpus_labels"]["references"]["rule_violations"]
        print(f"calls again: {run['model_calls_repeated']}", flush=True)
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
