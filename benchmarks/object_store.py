"""The main job from and to object storage, killed at random moments: nothing is lost, repeated, different or local.

    python benchmarks/object_store.py [--kills 20] [--seed 0] [--recordings 4] [--folder DIR]

An S3 server on loopback holds some of the sample recordings. One run is left alone; then drivers and workers in turn
are killed with -9 and the same command is run again at once, until the dataset is whole. `local_files` counts what
jobs left on this machine: in the folder that they ran in, in the folder of temporary files, and in the scratch folder.
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

from benchmarks.support.tables import table  # noqa: E402
from samples.annotate_process import finish_job, start_job  # noqa: E402
from samples.s3_server import BUCKET, s3_server  # noqa: E402
from voxmill.core.errors import command  # noqa: E402
from voxmill.core.files import write_atomically  # noqa: E402
from voxmill.core.hashing import sha256_bytes  # noqa: E402
from voxmill.core.local_ray import local_ray  # noqa: E402
from voxmill.core.storage import to_path  # noqa: E402
from voxmill.data.layout import read_index  # noqa: E402

# Small units: a killed run has some done, some in flight and some not begun. Four buckets: parts of indexes.
SETTINGS = ("label.unit_seconds=20", "write.buckets=4")
INDEXES = ("clips.parquet", "rejected.parquet", "recordings.parquet")
JOB_PROCESSES = ("ray::MapWorker", "ray::scan", "ray::divide", "ray::find", "ray::plan", "ray::read", "ray::write")
"""Titles of the Ray workers that do a job's work; a node does not survive the loss of others of its processes."""


@dataclass(kw_only=True)
class Tally:
    """Counts over all kills."""

    kills: int = 0
    driver_kills: int = 0
    datasets: int = 0
    lost: int = 0
    repeated: int = 0
    same_bytes: bool = True
    local_files: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where jobs run: the Ray's address and first process, and local folders."""

    address: str
    head: psutil.Process
    folder: Path
    workers: int

    @property
    def current(self) -> Path:
        """The folder that jobs run in."""
        return self.folder / "current"

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    @property
    def log(self) -> Path:
        return self.folder / "job.log"

    def start(self, out: str) -> subprocess.Popen[bytes]:
        """The job from the bucket's recordings to `out`."""
        source, target = to_path(f"s3://{BUCKET}/in"), to_path(out)
        settings = (*SETTINGS, f"run.workers={self.workers}")
        return start_job(source, target, self.address, *settings, log=self.log, folder=self.current)

    def job_workers(self) -> list[psutil.Process]:
        """Processes of this Ray that do some of a job's work now."""
        found = []
        for process in self.head.children(recursive=True):
            try:
                title = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if title.startswith(JOB_PROCESSES):
                found.append(process)
        return found

    def left(self) -> list[str]:
        """Files that jobs left on this machine."""
        found = [path for folder in (self.current, self.scratch) for path in folder.rglob("*") if path.is_file()]
        odd = [path for folder in (ROOT, self.current) for path in folder.glob("*:*")]
        return [str(path) for path in (*found, *odd)]


def digest(out: Path) -> dict[str, str]:
    """sha256 of every shard by name, and of every index's rows."""
    shards = {row["shard"] for row in read_index(out / INDEXES[0], ["shard"]).to_pylist()}
    digests = {name: sha256_bytes((out / name).read_bytes()) for name in sorted(shards)}
    for name in INDEXES:
        rows = json.dumps(read_index(out / name).to_pylist(), sort_keys=True, default=str)
        digests[name] = sha256_bytes(rows.encode())
    return digests


def clip_ids(out: Path) -> list[str]:
    return [clip for name in INDEXES[:2] for clip in read_index(out / name, ["clip_id"])["clip_id"].to_pylist()]


def measure(place: Place, inputs: list[str], kills: int, seed: int) -> Tally:
    """The whole measurement.

    Args:
        inputs: names of recordings, each of which must come out once.
    """
    choice, tally = random.Random(seed), Tally()
    began = time.monotonic()
    alone = to_path(f"s3://{BUCKET}/alone")
    finish_job(place.start(str(alone)), alone, log=place.log)
    seconds = time.monotonic() - began
    expected, clips = digest(alone), clip_ids(alone)
    print(f"left alone: {seconds:.0f} s, {len(clips)} clips", flush=True)
    while tally.kills < kills:
        out = to_path(f"s3://{BUCKET}/killed-{tally.datasets}")
        job = place.start(str(out))
        while tally.kills < kills and job.poll() is None:
            deadline = time.monotonic() + choice.uniform(2, seconds * 0.4)
            while time.monotonic() < deadline and job.poll() is None:
                time.sleep(0.1)
            # In turn, not as they happen to be there: workers come seconds after their driver.
            wants_worker = tally.kills % 2 == 1
            while wants_worker and not place.job_workers() and job.poll() is None:
                time.sleep(0.2)
            victims = place.job_workers()
            if job.poll() is not None or (wants_worker and not victims):
                continue
            if wants_worker:
                victim = choice.choice(sorted(victims, key=lambda process: process.pid))
                title = victim.name()
                victim.kill()
            else:
                title = "the driver"
                job.kill()
                job.wait()
                job = place.start(str(out))
                tally.driver_kills += 1
            tally.kills += 1
            print(f"kill {tally.kills} of {kills}: {title}", flush=True)
        finish_job(job, out, log=place.log)
        names, ids = read_index(out / INDEXES[2], ["path"])["path"].to_pylist(), clip_ids(out)
        tally.lost += len(set(inputs) - set(names)) + len(set(clips) - set(ids))
        tally.repeated += len(names) - len(set(names)) + len(ids) - len(set(ids))
        tally.same_bytes &= digest(out) == expected
        tally.datasets += 1
        print(
            f"dataset {tally.datasets}: lost {tally.lost}, twice {tally.repeated}, same {tally.same_bytes}", flush=True
        )
    left = place.left()
    tally.local_files = len(left)
    for path in left[:10]:
        print(f"left: {path}", flush=True)
    return tally


@command("benchmarks/object_store.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recordings", type=int, default=4, help="how many of the sample recordings")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=None, help="for logs and scratch (default: temporary)")
    arguments = parser.parse_args()
    folder: Path = arguments.folder or Path(tempfile.mkdtemp(prefix="voxmill-object-store-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["VOXMILL_SCRATCH"] = str(folder / "scratch")
    recordings = sorted((ROOT / "samples" / "recordings").glob("*.flac"))[: arguments.recordings]
    with s3_server(), local_ray(num_cpus=max(os.cpu_count() or 1, 2)) as address:
        for path in recordings:
            write_atomically(to_path(f"s3://{BUCKET}/in/{path.name}"), path.read_bytes())
        place = Place(address=address, head=psutil.Process(), folder=folder, workers=arguments.workers)
        for inner in (place.current, place.scratch):
            inner.mkdir(exist_ok=True)
        tally = measure(place, [path.name for path in recordings], arguments.kills, arguments.seed)
    keys = ["kills", "driver_kills", "datasets", "lost", "repeated", "same_bytes", "local_files"]
    rows = [[name.replace("_", " "), str(getattr(tally, name))] for name in keys]
    title = f"{len(recordings)} recordings from and to S3, {tally.datasets} datasets"
    Console().print(table(title, ["what", "count"], rows))
    print(json.dumps({key: getattr(tally, key) for key in keys}))


if __name__ == "__main__":
    sys.exit(main())
