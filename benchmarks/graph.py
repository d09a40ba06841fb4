"""The graph of `annotate` on clusters of many sizes: whether it ends, and how busy it keeps the GPUs.

    python benchmarks/graph.py [--cpus 1 2 4 8 16] [--gpus 0 1 2 4] [--seconds 6 60] [--units 24] [--limit 300]

The graph, its pools, rows and workers are the real ones; its stages are stand-ins that sleep (see
`benchmarks/support/stand_ins.py`), and CPUs and GPUs are numbers that Ray is told: the machine has what it has. Each
cluster is a Ray of its own, which runs units of each size, `--units` for each GPU (and as many more), and is given up
after `--limit` seconds a size: that counts as hung. Where many actors start on few real cores, the first units wait for
those: take so many units that this is a small part.

`gpu_busy`: the share of their time in which the actors of models work while work is there: from when the last of them
has begun its first unit to when the last unit is begun. Work is there for as many idle actors as there are units that
are prepared and not begun: on their way between the pools, too. `gpu_fed`: the share of the actors' time in which they
work at all, which is less where CPUs prepare more slowly than GPUs compute.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.support.stand_ins import (  # noqa: E402
    SleepingMeasure,
    SleepingModels,
    SleepingPrepare,
    busy_folder,
    prepared_folder,
    stand_in_units,
)
from benchmarks.support.tables import table  # noqa: E402
from voxmill.core.errors import UserError, command  # noqa: E402
from voxmill.core.local_ray import environment  # noqa: E402
from voxmill.data.records import WorkUnit  # noqa: E402


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy:
    """Shares of the actors' time: in which they work while work is there, in which they work at all."""

    gpu_busy: float
    gpu_fed: float


def busy_share(out: Path, gpus: int) -> Busy | None:
    """How busy the GPUs were; None where too few units were run to tell."""
    spans = [
        [(float(first), float(last)) for first, last in map(str.split, path.read_text().splitlines())]
        for path in busy_folder(out).iterdir()
    ]
    spans = [lines for lines in spans if lines]
    begin, end = max(lines[0][0] for lines in spans), max(lines[-1][0] for lines in spans)
    if end - begin < 1:
        return None
    changes = [
        change for lines in spans for first, last in lines for change in ((first, 1, -1), (last, -1, 0))
    ]  # (time, working actors more, waiting units more)
    changes += [
        (float(time), 0, 1) for path in prepared_folder(out).iterdir() for time in path.read_text().splitlines()
    ]
    busy = wasted = 0.0
    working = waiting = 0
    before = 0.0
    for now, more_working, more_waiting in sorted(changes):
        span = max(min(now, end) - max(before, begin), 0.0)
        busy += working * span
        wasted += min(gpus - working, waiting) * span
        working, waiting, before = working + more_working, waiting + more_waiting, now
    return Busy(gpu_busy=busy / (busy + wasted), gpu_fed=busy / (gpus * (end - begin)))


def run_cluster(cpus: int, gpus: int, sizes: list[float], units_a_gpu: int, folder: Path) -> None:
    """Runs the graph on a Ray of so many CPUs and GPUs; prints a JSON line for each size of units."""
    import ray

    from pipelines.config import AnnotateConfig
    from pipelines.engine.graph import run_graph
    from pipelines.engine.pools import Cluster, plan_pools
    from pipelines.units.probe import probe

    ray.init(address="local", num_cpus=cpus, num_gpus=gpus, log_to_driver=False)
    for seconds in sizes:
        out = folder / f"{cpus}-{gpus}-{seconds:g}"
        count = units_a_gpu * (max(gpus, 1) + 1)
        stages = (SleepingPrepare, SleepingModels, SleepingMeasure)
        pools = plan_pools(stages, AnnotateConfig().run, Cluster.now(), count)
        began = time.monotonic()
        with probe(out) as shared:
            rows = run_graph(
                (0,),
                partial(_units, count, seconds),
                pools,
                out=out,
                config=AnnotateConfig(),
                run="benchmark",
                probe=shared,
            )
            names = [row.unit.unit_id for row in rows if row.unit.failure is None]
        busy = busy_share(out, gpus) if gpus else None
        print(
            json.dumps(
                {
                    "seconds": seconds,
                    "units": count,
                    "done": len(set(names)),
                    "wall": round(time.monotonic() - began, 1),
                }
                | (asdict(busy) if busy else {})
            ),
            flush=True,
        )


def _units(count: int, seconds: float, bucket: int) -> list[WorkUnit]:
    return stand_in_units(count, seconds, bucket)


@command("benchmarks/graph.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpus", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--gpus", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--seconds", type=float, nargs="+", default=[6.0, 60.0])
    parser.add_argument("--units", type=int, default=24, help="for each GPU, and as many more")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which a size of units counts as hung")
    parser.add_argument("--one", type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        run_cluster(arguments.cpus[0], arguments.gpus[0], arguments.seconds, arguments.units, arguments.one)
        return
    folder = Path(tempfile.mkdtemp(prefix="voxmill-graph-"))
    sizes = [f"{seconds:g}" for seconds in arguments.seconds]
    rows: list[list[str]] = []
    hung, lost, shares, fed = 0, 0, dict[str, float](), dict[str, float]()
    for cpus, gpus in itertools.product(arguments.cpus, arguments.gpus):
        child = [sys.executable, str(Path(__file__).resolve()), "--one", str(folder), "--units", str(arguments.units)]
        child += ["--cpus", str(cpus), "--gpus", str(gpus), "--seconds", *sizes]
        lines: list[str] = []
        try:
            ended = subprocess.run(
                child, env=environment(), capture_output=True, text=True, timeout=arguments.limit * len(sizes)
            )
            lines = [line for line in ended.stdout.splitlines() if line.startswith('{"seconds"')]
            if ended.returncode:
                raise UserError(f"{cpus} CPUs, {gpus} GPUs: {ended.stderr[-2000:]}")
        except subprocess.TimeoutExpired as error:
            output = error.stdout or b""
            lines = [line for line in output.decode().splitlines() if line.startswith('{"seconds"')]
        results = [json.loads(line) for line in lines]
        hung += len(sizes) - len(results)
        for one in results:
            lost += one["units"] - one["done"]
            if "gpu_busy" in one:
                shares[f"{cpus}x{gpus}x{one['seconds']:g}"] = round(one["gpu_busy"], 3)
                fed[f"{cpus}x{gpus}x{one['seconds']:g}"] = round(one["gpu_fed"], 3)
            busy, at_all = (f"{one[key]:.2f}" if key in one else "" for key in ("gpu_busy", "gpu_fed"))
            rows.append(
                [
                    f"{cpus} x {gpus}",
                    f"{one['seconds']:g} s",
                    f"{one['done']} of {one['units']}",
                    f"{one['wall']} s",
                    busy,
                    at_all,
                ]
            )
        print(f"{cpus} CPUs, {gpus} GPUs: {'; '.join(' '.join(row[1:]) for row in rows[-len(sizes) :])}", flush=True)
    Console(width=100).print(
        table("the graph", ["CPUs x GPUs", "unit", "done", "wall time", "GPU busy", "GPU fed"], rows)
    )
    result = {
        "clusters": len(arguments.cpus) * len(arguments.gpus) * len(sizes),
        "hung": hung,
        "lost": lost,
        "gpu_busy": min(shares.values(), default=None),
        "gpu_busy_median": round(statistics.median(shares.values()), 3) if shares else None,
        "gpu_busy_by_cluster": shares,
        "gpu_fed_by_cluster": fed,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
