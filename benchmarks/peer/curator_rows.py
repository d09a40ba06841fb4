"""Rows a second of NeMo Curator's driver: a manifest through its reader, a stage that does nothing, and its writer.

    python benchmarks/peer/curator_rows.py --python V/bin/python [--rows 1000 10000] [--executor xenna ray_data]

`curator_resume.py` says how to make the environment V. Rows are fabricated and name no audio: what is measured is what
the framework itself takes for a row, with its checkpoint for resuming as ours always has it. `core_seconds` and `gb`
are of the driver's process alone, which is what ends a large job; `seconds` has the work of Ray and of workers, too.
Beside it stands what our driver takes to plan as many recordings, by the functions of `benchmarks/planning.py`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[0] = str(ROOT)

from voxmill.core.errors import JobError, UserError, command  # noqa: E402
from voxmill.core.local_ray import environment, local_ray  # noqa: E402

EXECUTORS = ("xenna", "ray_data")
ROWS_A_FILE = 360
"""As many as one of our blocks of a manifest has."""
# Runs in their environment.
DRIVER = """
import json, resource, sys, time
from nemo_curator.backends.ray_data import RayDataExecutor
from nemo_curator.backends.xenna import XennaExecutor
from nemo_curator.pipeline import Pipeline
from nemo_curator.stages.audio.common import ManifestReader
from nemo_curator.stages.audio.io.convert import AudioToDocumentStage
from nemo_curator.stages.base import ProcessingStage
from nemo_curator.stages.text.io.writer import JsonlWriter


class PassStage(ProcessingStage):
    name = "pass"

    def num_workers(self):
        return 1

    def process(self, task):
        return task


manifests, out, checkpoint, executor = sys.argv[1:]
pipeline = Pipeline(name="rows")
pipeline.add_stage(ManifestReader(manifest_path=manifests, files_per_partition=1))
pipeline.add_stage(PassStage())
pipeline.add_stage(AudioToDocumentStage().with_(batch_size=64))
pipeline.add_stage(JsonlWriter(path=out))
clock, cpu = time.perf_counter(), time.process_time()
pipeline.run(XennaExecutor() if executor == "xenna" else RayDataExecutor(), checkpoint_path=checkpoint)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
took = {"seconds": time.perf_counter() - clock, "core_seconds": time.process_time() - cpu, "gb": peak}
print("FIGURES " + json.dumps(took))
"""


def curator(python: str, folder: Path, rows: int, executor: str, address: str, limit: float) -> dict[str, float]:
    """Their driver over so many rows; `written` counts rows of the output.

    Raises:
        JobError: it failed.
    """
    manifests = folder / "manifests"
    manifests.mkdir(parents=True)
    for first in range(0, rows, ROWS_A_FILE):
        numbers = range(first, min(first + ROWS_A_FILE, rows))
        lines = [
            json.dumps({"audio_filepath": f"/fabricated/{n:09d}.flac", "session": f"session-{n // 8:08d}"})
            for n in numbers
        ]
        (manifests / f"{first:09d}.jsonl").write_text("\n".join(lines) + "\n")
    places = [str(folder / name) for name in ("manifests", "out", "checkpoint")]
    with open(folder / "log", "wb") as log:
        try:
            done = subprocess.run(
                [python, "-c", DRIVER, *places, executor],
                env=environment() | {"RAY_ADDRESS": address},
                stdout=subprocess.PIPE,
                stderr=log,
                timeout=limit,
                text=True,
            )
        except subprocess.TimeoutExpired:
            return {"rows": rows, "ended": 0, "seconds": limit}
    figures = [line for line in done.stdout.splitlines() if line.startswith("FIGURES ")]
    if done.returncode or not figures:
        raise JobError(f"their pipeline failed: {(folder / 'log').read_text(errors='replace')[-2000:]}")
    written = sum(len(path.read_bytes().splitlines()) for path in (folder / "out").glob("*.jsonl"))
    took: dict[str, float] = json.loads(figures[-1].removeprefix("FIGURES "))
    return {"rows": rows, "ended": 1, "written": written} | took


@command("benchmarks/peer/curator_rows.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="the interpreter of NeMo Curator's environment")
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--executor", nargs="+", choices=EXECUTORS, default=list(EXECUTORS))
    parser.add_argument("--limit", type=float, default=600.0, help="seconds that one run may take")
    arguments = parser.parse_args()
    if arguments.python is None:
        raise UserError("--python is needed: the interpreter of NeMo Curator's environment")
    compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    """Theirs in a Ray of their environment, then ours in one of ours."""
    from rich.console import Console

    from benchmarks.planning import measure
    from benchmarks.support.tables import table

    folder = Path(tempfile.mkdtemp(prefix="voxmill-curator-rows-"))
    runs: list[tuple[str, dict[str, float]]] = []
    child = [arguments.python, str(Path(__file__).with_name("curator_resume.py")), "--ray"]
    with subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as ray:
        assert ray.stdin and ray.stdout
        try:
            address = ray.stdout.readline().strip()
            for executor in arguments.executor:
                for rows in arguments.rows:
                    place = folder / f"{executor}-{rows}"
                    runs.append((executor, curator(arguments.python, place, rows, executor, address, arguments.limit)))
                    print(json.dumps(runs[-1]), flush=True)
        finally:
            ray.stdin.close()
    with local_ray(num_cpus=2) as address:
        for rows in arguments.rows:
            began = time.perf_counter()
            took = measure(folder / f"ours-{rows}", rows, 60.0, address)
            ours = {"rows": rows, "ended": 1, "written": rows, "seconds": took["seconds"]}
            runs.append(
                ("voxmill, planning", ours | {"core_seconds": took["driver_core_seconds"], "gb": took["driver_gb"]})
            )
            print(json.dumps(runs[-1]), f"{time.perf_counter() - began:.0f} s with fabrication", flush=True)
    cells = [
        [name, *(f"{run[key]:.{digits}f}" if key in run else "not ended" for key, digits in SHOWN)]
        for name, run in runs
    ]
    headings = ["what", "rows", "written", "seconds", "driver core seconds", "driver GB"]
    Console().print(table("Rows through the driver", headings, cells))
    print(json.dumps([{"what": name} | run for name, run in runs]))


SHOWN = (("rows", 0), ("written", 0), ("seconds", 1), ("core_seconds", 2), ("gb", 2))


if __name__ == "__main__":
    sys.exit(main())
