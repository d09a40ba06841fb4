"""What planning takes of the driver: memory and time over fabricated scans of more and more recordings.

    python benchmarks/planning.py [--rows 10000 100000 1000000] [--seconds 60] [--folder DIR]

Every row of a manifest names an object that does not exist; what its scan would have found is written beforehand.
Each size is planned by a process of its own on a Ray of this machine; `driver_gb` is that process's peak.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.support.tables import table  # noqa: E402
from pipelines.inputs.manifest import read_inputs  # noqa: E402
from pipelines.inputs.scan import Scan, ScanOptions, ScanStore, block_name, blocks  # noqa: E402
from voxmill.core.errors import JobError, command  # noqa: E402
from voxmill.core.local_ray import environment, local_ray  # noqa: E402
from voxmill.data.schemas import schema_of  # noqa: E402

RATE = 16_000
# Plans one manifest and prints what that took.
DRIVER = """
import json, resource, sys, time
from pathlib import Path
from pipelines.config import AnnotateConfig
from pipelines.inputs.planning import open_inputs, plan_corpus
from pipelines.units.plan_files import planned_buckets
from voxmill.core.local_ray import join_ray
from voxmill.core.progress import Progress
join_ray()
clock, cpu = time.perf_counter(), time.process_time()
out = Path(sys.argv[2])
plan_corpus(open_inputs(sys.argv[1]), out, AnnotateConfig(), Progress(enabled=False))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
took = {"seconds": time.perf_counter() - clock, "driver_core_seconds": time.process_time() - cpu, "driver_gb": peak}
print(json.dumps(took | {"buckets": len(planned_buckets(out))}))
"""


def fabricate(folder: Path, rows: int, seconds: float) -> Path:
    """A manifest of so many rows as Parquet, and in `folder / "out"` the scans of its blocks; one row in 50 repeats."""
    manifest = folder / "list.parquet"
    folder.mkdir(parents=True)
    numbers = np.arange(rows)
    paths = [f"s3://fabricated/{number % 997:03d}/{number:09d}.flac" for number in numbers]
    sessions = [f"session-{number // 8:08d}" for number in numbers]
    pq.write_table(pa.table({"path": paths, "session": sessions}), manifest)
    scans = ScanStore(folder / "out", ScanOptions())
    digests = ["0123456789abcdef"] * -(-round(RATE * seconds) // 480_000)
    first = 0
    for block in blocks(read_inputs(str(manifest))):
        count = len(block)
        own = np.arange(first, first + count)
        samples = np.full(count, round(RATE * seconds))
        same = np.where(own % 50 == 49, own - 1, own)
        columns = {
            "location": [entry.path for entry in block],
            "problem": [None] * count,
            "detail": [""] * count,
            "recording_id": [f"{int(number) * 2654435761 % 2**32:08x}{int(number):024x}" for number in same],
            "sample_rate": [RATE] * count,
            "channels": [1] * count,
            "codec": ["flac"] * count,
            "num_samples": samples,
            "scale": [1.0] * count,
            "read": [[{"channel": None, "ends": [int(end)], "digests": digests}] for end in samples],
            "other_tracks": [[]] * count,
            "warnings": [[]] * count,
        }
        scans.write(block_name(block, scans.options), pa.table(columns, schema=schema_of(Scan)))
        first += count
    return manifest


def measure(folder: Path, rows: int, seconds: float, address: str) -> dict[str, float]:
    """Plans so many rows in a process of its own."""
    manifest = fabricate(folder, rows, seconds)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(manifest), str(folder / "out")],
        env=environment() | {"RAY_ADDRESS": address, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise JobError(f"planning failed after {time.monotonic() - began:.0f} s: {done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {"rows": rows} | figures


@command("benchmarks/planning.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each recording")
    parser.add_argument("--folder", type=Path, default=None, help="where plans are made (default: temporary)")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="voxmill-planning-"))
    results = []
    with local_ray(num_cpus=os.cpu_count() or 1) as address:
        for rows in arguments.rows:
            results.append(measure(folder / str(rows), rows, arguments.seconds, address))
            print(json.dumps(results[-1]), flush=True)
    shown = [
        [
            f"{one['rows']:.0f}",
            f"{one['buckets']:.0f}",
            f"{one['driver_gb']:.2f}",
            f"{one['seconds']:.1f}",
            f"{one['driver_core_seconds']:.1f}",
        ]
        for one in results
    ]
    headings = ["recordings", "buckets", "driver's peak, GB", "seconds", "core seconds of the driver"]
    Console().print(table("Planning scanned recordings", headings, shown))
    print(json.dumps(results))


if __name__ == "__main__":
    sys.exit(main())
