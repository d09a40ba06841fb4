"""The main job from and to object storage, killed at random moments: nothing is lost, repeated, different or local.

    python benchmarks/object_store.py [--kills 20] [--seed 0] [--recordings 4] [--folder DIR]

An S3 server on loopback holds some of the sample recordings. One run is left alone; then processes are killed with -9
and the same command is run again at once, until the dataset is whole. All requests go through a proxy, which tells the
moments: a kill comes in one of the job's phases (plan, label, finish) and

    cut         in the midst of an upload, of which the server sees nothing; the process that uploads dies
    unanswered  when the server has stored the object and the process does not know yet
    later       up to two seconds after an upload: a worker and the driver in turn

`local_files` counts what jobs left on this machine: in the folder that they ran in, in the folder of temporary files,
and in the scratch folder; `stray_objects` what killed jobs left below OUT and a job that is left alone does not.
"""

import argparse
import json
import os
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.support.kills import Tally, Untouched, is_job_worker, job_workers, kill  # noqa: E402
from benchmarks.support.tables import table  # noqa: E402
from samples.annotate_process import finish_job, start_job  # noqa: E402
from samples.s3_proxy import CUT, UNANSWERED, Answer, Request, s3_proxy  # noqa: E402
from samples.s3_server import BUCKET, s3_server  # noqa: E402
from voxmill.core.errors import command  # noqa: E402
from voxmill.core.files import list_files, write_atomically  # noqa: E402
from voxmill.core.local_ray import local_ray  # noqa: E402
from voxmill.core.storage import to_path  # noqa: E402

# Small units: a killed run has some done, some in flight and some not begun. Four buckets: parts of indexes.
SETTINGS = ("label.unit_seconds=20", "write.buckets=4")
PHASES = ("plan", "label", "label", "finish", "finish")
"""Of the kills, in turn."""
HOWS = ("cut", "unanswered", "later")
_PLANNING = ("work/scans/", "work/plan/", "work/shuffle/", "work/identity", "work/lease")
_LABELLING = ("work/attempts/", "work/units/", "work/labels/", "work/probes/")


@dataclass(kw_only=True)
class ObjectStoreTally(Tally):
    """Counts over all kills; `cut_uploads`: kills in the midst of an upload or before its answer."""

    cut_uploads: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    local_files: int = 0
    stray_objects: int = 0


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

    def start(self, out: Path) -> subprocess.Popen[bytes]:
        """The job from the bucket's recordings to `out`."""
        settings = (*SETTINGS, f"run.workers={self.workers}")
        return start_job(to_path(f"s3://{BUCKET}/in"), out, self.address, *settings, log=self.log, folder=self.current)

    def left(self) -> list[str]:
        """Files that jobs left on this machine."""
        found = [path for folder in (self.current, self.scratch) for path in folder.rglob("*") if path.is_file()]
        odd = [path for folder in (ROOT, self.current) for path in folder.glob("*:*")]
        return [str(path) for path in (*found, *odd)]


def phase_of(name: str) -> str:
    """The phase in which a job writes an object; `name` from OUT."""
    if name.startswith(_PLANNING):
        return "plan"
    return "label" if name.startswith(_LABELLING) else "finish"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The next kill: at the `number`-th upload of a phase, counted from 1."""

    phase: str
    how: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Caught:
    """An upload that waits for the death of the process that makes it; `name` from OUT."""

    name: str
    process: psutil.Process


class Trap:
    """Counts a job's uploads by phase and holds back the one that is wished for until `release`."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(PHASES, 0)
        self.caught: queue.Queue[Caught] = queue.Queue()
        self._wish: Wish | None = None
        self._seen = 0
        self._spared: set[str] = set()
        self._lock, self._released = threading.Lock(), threading.Event()

    def begin(self) -> None:
        """A new dataset."""
        with self._lock:
            self._spared.clear()

    def arm(self, wish: Wish) -> None:
        """Waits for an upload from now on."""
        with self._lock:
            self._wish, self._seen = wish, 0
            self._released.clear()

    def release(self) -> None:
        """Lets the upload that was caught go its way."""
        self._released.set()

    def disarm(self) -> None:
        """Waits for nothing more; what was caught goes its way."""
        with self._lock:
            self._wish = None
        self._released.set()

    def __call__(self, request: Request) -> Answer | None:
        """The proxy's fault."""
        name = request.key.partition("/")[2].partition("/")[2]
        if not request.is_upload or not name:
            return None
        phase = phase_of(name)
        with self._lock:
            self.counts[phase] += 1
            wish = self._wish
            # The workers of a unit die once: one that dies of every attempt is convicted, as it should be.
            if wish is None or wish.phase != phase or Path(name).stem in self._spared:
                return None
            self._seen += 1
            if self._seen < wish.number:
                return None
            process = request.process()
            if process is None or not (is_job_worker(process) or "annotate.py" in " ".join(process.cmdline())):
                return None
            self._wish = None
            if phase == "label":
                self._spared.add(Path(name).stem)
        self.caught.put(Caught(name=name, process=process))
        if wish.how == "later":
            return None
        if wish.how == "cut":
            self._released.wait()
        return CUT if wish.how == "cut" else UNANSWERED


def wishes(choice: random.Random, usual: dict[str, int]) -> Iterator[Wish]:
    """Kills without end, in every phase and of every kind.

    Args:
        usual: uploads of a job that is left alone, by phase.
    """
    number = 0
    while True:
        phase = PHASES[number % len(PHASES)]
        # A new dataset has so many uploads in this phase, whatever was killed in the phases before.
        most = max(round(usual[phase] * (0.8 if phase == "finish" else 0.5)), 1)
        yield Wish(phase=phase, how=HOWS[number % len(HOWS)], number=choice.randint(1, most))
        number += 1


@contextmanager
def trapped() -> Iterator[Trap]:
    """A trap in a proxy before the S3 server."""
    trap = Trap()
    with s3_proxy(trap):
        yield trap


def measure(place: Place, trap: Trap, inputs: list[str], kills: int, seed: int) -> ObjectStoreTally:
    """The whole measurement.

    Args:
        inputs: names of recordings, each of which must come out once.
    """
    choice, tally = random.Random(seed), ObjectStoreTally()
    began, alone = time.monotonic(), to_path(f"s3://{BUCKET}/alone")
    finish_job(place.start(alone), alone, log=place.log)
    untouched, usual = Untouched.of(alone), dict(trap.counts)
    objects = {file.name for file in list_files(alone)}
    print(f"left alone: {time.monotonic() - began:.0f} s, {len(untouched.clips)} clips, uploads {usual}", flush=True)
    wished = wishes(choice, usual)
    wish = next(wished)
    while tally.kills < kills:
        out = to_path(f"s3://{BUCKET}/killed-{tally.datasets}")
        began, job = time.monotonic(), place.start(out)
        trap.begin()
        # One that did not come true in the dataset before, whose job was past it, does in a new one.
        trap.arm(wish)
        while tally.kills < kills and job.poll() is None:
            try:
                caught = trap.caught.get(timeout=0.1)
            except queue.Empty:
                continue
            try:
                job = _kill(place, trap, tally, job, out, wish, caught, kills)
                wish = next(wished)
            except psutil.NoSuchProcess:
                # It ended by itself just before.
                trap.release()
            if tally.kills < kills:
                trap.arm(wish)
        trap.disarm()
        finish_job(job, out, log=place.log)
        tally.compare(out, untouched, inputs)
        stray = sorted({file.name for file in list_files(out)} - objects)
        tally.stray_objects += len(stray)
        print(f"{time.monotonic() - began:.0f} s, stray {stray[:5]}", flush=True)
    left = place.left()
    tally.local_files = len(left)
    for path in left[:10]:
        print(f"left: {path}", flush=True)
    return tally


def _kill(
    place: Place,
    trap: Trap,
    tally: ObjectStoreTally,
    job: subprocess.Popen[bytes],
    out: Path,
    wish: Wish,
    caught: Caught,
    kills: int,
) -> subprocess.Popen[bytes]:
    """Kills as wished; returns the job, a new one where its driver died."""
    victim = caught.process
    if wish.how == "later":
        time.sleep(random.Random(tally.kills).uniform(0, 2))
        workers = job_workers(place.head)
        victim = workers[0] if workers and tally.kills % 2 else psutil.Process(job.pid)
    title = victim.name()
    is_driver = kill(victim, job)
    trap.release()
    title = "the driver" if is_driver else title
    tally.count_kill(title, kills, is_driver=is_driver, moment=f"{wish.how} {caught.name}")
    tally.cut_uploads += wish.how != "later"
    tally.phases[wish.phase] += 1
    return place.start(out) if is_driver else job


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
    with s3_server(), trapped() as trap, local_ray(num_cpus=max(os.cpu_count() or 1, 2)) as address:
        for path in recordings:
            write_atomically(to_path(f"s3://{BUCKET}/in/{path.name}"), path.read_bytes())
        place = Place(address=address, head=psutil.Process(), folder=folder, workers=arguments.workers)
        for inner in (place.current, place.scratch):
            inner.mkdir(exist_ok=True)
        tally = measure(place, trap, [path.name for path in recordings], arguments.kills, arguments.seed)
    keys = ["kills", "driver_kills", "cut_uploads", "datasets"]
    keys += ["lost", "repeated", "same_bytes", "local_files", "stray_objects"]
    found = {key: getattr(tally, key) for key in keys} | {
        f"{phase}_kills": tally.phases[phase] for phase in sorted(set(PHASES))
    }
    title = f"{len(recordings)} recordings from and to S3, {tally.datasets} datasets"
    Console().print(table(title, ["what", "count"], [[key.replace("_", " "), str(found[key])] for key in found]))
    print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
