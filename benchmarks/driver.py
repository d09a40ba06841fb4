"""What the corpus steps of `annotate` cost: memory of the driver, CPU of all processes, growth, bytes, an increment.

    python benchmarks/driver.py --clips 10000 100000 [--workers 2] [--folder /tmp/driver] [--described-up-to 10000]

On fabricated finished work (`samples/finished_work.py`): nothing is labelled, audio is a few bytes a clip. Every run is
a process of its own with a Ray of its own; CPU is that of its whole process tree, sampled. Each corpus is finished
without descriptions, up to --described-up-to clips also with them, and once more unchanged; the smallest also by 1, 2
and 4 workers (`same_bytes`), and with one recording more (`files_rewritten`, `percentiles_changed`).
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

sys.path[0] = str(Path(__file__).resolve().parents[1])

import psutil  # noqa: E402

from benchmarks.support.tables import markdown  # noqa: E402
from pipelines.config import AnnotateConfig  # noqa: E402
from samples.finished_work import CLIPS_A_RECORDING, make_finished  # noqa: E402
from voxmill.data.layout import read_index  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
JOB = """
import datetime, sys, time
from pathlib import Path
from pipelines.config import AnnotateConfig
from pipelines.finish import Labelled, Started, finish
from voxmill.core.config import load_config
from voxmill.core.local_ray import join_ray
from voxmill.core.progress import Progress
out, workers = Path(sys.argv[1]), int(sys.argv[2])
if __name__ == "__main__":
    join_ray(num_cpus=workers)
    started = Started(time=datetime.datetime.now(datetime.UTC), clock=time.perf_counter())
    config = load_config(AnnotateConfig, None, sys.argv[3:])
    finish(out, config, Progress(enabled=False), Labelled(units=0, found_done=0, attributed=0), started)
"""
QUIET = ("corpus_labels.labels=[speakers,expressiveness,references]",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one run: peak memory of the driver's process, CPU seconds of its whole tree, wall clock."""

    driver_gb: float
    core_seconds: float
    wall_seconds: float


def finish(out: Path, workers: int, *overrides: str) -> Cost:
    """Runs the corpus steps over OUT in a process of its own."""
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", JOB, str(out), str(workers), *overrides]
    clock, peak = time.perf_counter(), 0
    cpu: dict[int, float] = {}
    with tempfile.TemporaryFile("w+") as output:
        job = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        driver = psutil.Process(job.pid)
        while job.poll() is None:
            for process in _tree(driver):
                try:
                    times = process.cpu_times()
                    cpu[process.pid] = max(cpu.get(process.pid, 0.0), times.user + times.system)
                except psutil.Error:
                    continue
            with contextlib.suppress(psutil.Error):
                peak = max(peak, driver.memory_info().rss)
            time.sleep(0.2)
        output.seek(0)
        if job.returncode:
            sys.exit(f"the job failed: {output.read()[-3000:]}")
    return Cost(driver_gb=peak / 1e9, core_seconds=sum(cpu.values()), wall_seconds=time.perf_counter() - clock)


def _tree(driver: psutil.Process) -> list[psutil.Process]:
    try:
        return [driver, *driver.children(recursive=True)]
    except psutil.Error:
        return []


def digests(out: Path) -> dict[str, str]:
    """Checksums of all that a dataset consists of: shards, indexes, norms, dataset.json."""
    names = ("shards", "clips.parquet", "rejected.parquet", "recordings.parquet", "norms", "dataset.json")
    files = [path for name in names for path in ([out / name] if (out / name).is_file() else (out / name).rglob("*"))]
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()
    }


def percentiles(out: Path) -> dict[str, float | None]:
    """Percentile of every clip, kept or not."""
    columns = ["clip_id", "expressiveness_percentile"]
    tables = [read_index(out / name, columns) for name in ("clips.parquet", "rejected.parquet")]
    return {row["clip_id"]: row["expressiveness_percentile"] for table in tables for row in table.to_pylist()}


T = TypeVar("T")


def add_recording(out: Path, clips: int, again: Callable[[], T]) -> tuple[int, int, T]:
    """(files of the dataset that were written, percentiles that changed, what `again` returned) of one recording more.

    Its session is new; `again` runs the corpus steps over OUT.
    """
    before, ranks = digests(out), percentiles(out)
    make_finished(out, CLIPS_A_RECORDING, AnnotateConfig(), first=clips // CLIPS_A_RECORDING)
    done = again()
    after, later = digests(out), percentiles(out)
    written = sum(before.get(name) != digest for name, digest in after.items())
    return written, sum(later.get(clip) != rank for clip, rank in ranks.items()), done


def same_bytes(folder: Path, clips: int, workers: tuple[int, ...]) -> bool:
    """Whether a corpus of eight buckets gives the same bytes by any number of workers."""
    found = []
    config = AnnotateConfig.model_validate({"write": {"buckets": 8}})
    for number in workers:
        out = folder / f"workers-{number}"
        make_finished(out, clips, config)
        finish(out, number, "write.buckets=8")
        found.append(digests(out))
        shutil.rmtree(out)
    return all(one == found[0] for one in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--described-up-to", type=int, default=100_000)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where corpora are made, or lie made (<clips>/); removed afterwards"
    )
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="voxmill-driver-"))
    rows: list[list[str]] = []
    result: dict[str, object] = {}
    for number in arguments.clips:
        out = folder / str(number)
        clips = -(-number // CLIPS_A_RECORDING) * CLIPS_A_RECORDING
        if not out.exists():
            make_finished(out, number, AnnotateConfig())
        overrides = () if number <= arguments.described_up_to else QUIET
        quiet = finish(out, arguments.workers, *QUIET)
        described = None if overrides else finish(out, arguments.workers)
        unchanged = finish(out, arguments.workers, *overrides)
        scale = 100_000 / clips
        print(f"{clips:,}: {quiet}, described {described}, unchanged {unchanged}", file=sys.stderr, flush=True)
        rows.append(
            [
                f"{clips:,}",
                f"{quiet.driver_gb:.2f}",
                f"{described.driver_gb:.2f}" if described else "",
                f"{quiet.core_seconds * scale:.0f}",
                f"{described.core_seconds * scale:.0f}" if described else "",
                f"{unchanged.core_seconds * scale:.0f}",
                f"{quiet.wall_seconds:.0f}",
            ]
        )
        result[str(clips)] = {
            "driver_gb": round(quiet.driver_gb, 3),
            "core_seconds": round(quiet.core_seconds, 1),
            "core_seconds_per_100k": round(quiet.core_seconds * scale, 1),
            "unchanged_core_seconds_per_100k": round(unchanged.core_seconds * scale, 1),
        }
        if described:
            result[f"{clips} described"] = {
                "driver_gb": round(described.driver_gb, 3),
                "core_seconds_per_100k": round(described.core_seconds * scale, 1),
            }
        if number == arguments.clips[0]:
            written, changed, _ = add_recording(out, clips, partial(finish, out, arguments.workers))
            result["increment"] = {"clips": clips, "files_rewritten": written, "percentiles_changed": changed}
        shutil.rmtree(out)
    result["same_bytes"] = same_bytes(folder, min(arguments.clips), (1, 2, 4))
    shutil.rmtree(folder, ignore_errors=True)
    heads = ["clips", "driver GB", "GB, described", "core s/100k", "core s/100k, described", "unchanged", "wall s"]
    print(markdown(heads, rows))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
