"""The graph of `annotate` on clusters of many sizes: whether it ends, and how busy it keeps the GPUs.

    python benchmarks/graph.py [--cpus 1 2 4 8 16] [--gpus 0 1 2 4] [--seconds 6 60] [--units 12] [--limit 150]

The graph, its pools, rows and workers are the real ones; its stages are stand-ins that sleep (see
`benchmarks/support/stand_ins.py`), and CPUs and GPUs are numbers that Ray is told: the machine has what it has. Each
cluster is a Ray of its own, which runs units of each size, `--units` for each GPU (and as many more), and is given up
after `--limit` seconds: that counts as hung.

`gpu_busy`: the share of their time in which the actors of models work while work is there: from when the last of them
has begun its first unit to when the last unit is begun.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
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
    stand_in_units,
)
from benchmarks.support.tables import table  # noqa: E402
from voxmill.core.errors import UserError, command  # noqa: E402
from voxmill.core.local_ray import environment  # noqa: E402
from voxmill.data.records import WorkUnit  # noqa: E402


def busy_share(out: Path, gpus: int) -> float | None:
    """The share of time in which GPUs work while work is there; None where too few units were run to tell."""
    spans = [
        [tuple(map(float, line.split())) for line in path.read_text().splitlines()]
        for path in busy_folder(out).iterdir()
    ]
    spans = [lines for lines in spans if lines]
    begin, end = max(lines[0][0] for lines in spans), max(lines[-1][0] for lines in spans)
    if end - begin < 1:
        return None
    busy = sum(max(min(last, end) - max(first, begin), 0.0) for lines in spans for first, last in lines)
    return busy / (gpus * (end - begin))


def run_cluster(cpus: int, gpus: int, sizes: list[float], units_a_gpu: int, folder: Path) -> None:
    """Runs the graph on a Ray of so many CPUs and GPUs; prints a JSON line for each size of units."""
    import ray

    from pipelines.config import AnnotateConfig
    from pipelines.engine.graph import run_graph
    from pipelines.engine.pools import Cluster, plan_pools
    from pipelines.units.probe import probe

    ray.init(num_cpus=cpus, num_gpus=gpus, log_to_driver=False)
    for seconds in sizes:
        out = folder / f"{cpus}-{gpus}-{seconds:g}"
        count = units_a_gpu * (max(gpus, 1) + 1)
        stages = (SleepingPrepare, SleepingModels, SleepingMeasure)
        pools = plan_pools(stages, AnnotateConfig().run, Cluster(cpus=cpus, gpus=gpus), count)
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
        print(
            json.dumps(
                {
                    "seconds": seconds,
                    "units": count,
                    "done": len(set(names)),
                    "wall": round(time.monotonic() - began, 1),
                    "gpu_busy": busy_share(out, gpus) if gpus else None,
                }
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
    parser.add_argument("--units", type=int, default=12, help="for each GPU, and as many more")
    parser.add_argument("--limit", type=float, default=150.0, help="seconds after which a cluster counts as hung")
    parser.add_argument("--one", type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        run_cluster(arguments.cpus[0], arguments.gpus[0], arguments.seconds, arguments.units, arguments.one)
        return
    folder = Path(tempfile.mkdtemp(prefix="voxmill-graph-"))
    sizes = [f"{seconds:g}" for seconds in arguments.seconds]
    rows: list[list[str]] = []
    hung, lost, shares = 0, 0, dict[str, float]()
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
            if one["gpu_busy"] is not None:
                shares[f"{cpus}x{gpus}x{one['seconds']:g}"] = round(one["gpu_busy"], 3)
            busy = "" if one["gpu_busy"] is None else f"{one['gpu_busy']:.2f}"
            rows.append(
                [
                    f"{cpus} x {gpus}",
                    f"{one['seconds']:g} s",
                    f"{one['done']} of {one['units']}",
                    f"{one['wall']} s",
                    busy,
                ]
            )
        print(f"{cpus} CPUs, {gpus} GPUs: {'; '.join(' '.join(row[1:]) for row in rows[-len(sizes) :])}", flush=True)
    Console(width=100).print(table("the graph", ["CPUs x GPUs", "unit", "done", "wall time", "GPU busy"], rows))
    result = {
        "clusters": len(arguments.cpus) * len(arguments.gpus) * len(sizes),
        "hung": hung,
        "lost": lost,
        "gpu_busy": min(shares.values(), default=None),
        "gpu_busy_median": round(statistics.median(shares.values()), 3) if shares else None,
        "gpu_busy_by_cluster": shares,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
