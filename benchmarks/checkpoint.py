"""What a checkpoint costs a run: how long a step waits for it, what is read to go on from it, and the memory of it.

    python benchmarks/checkpoint.py [--millions 200] [--ranks 2] [--zero 2] [--repeats 3] [--beside COMMIT]

Linear layers of so many million parameters under DeepSpeed with AdamW, fp32 on the CPU, on so many ranks of this
machine. `stall_seconds`: between two steps, until the next one may begin; `write_seconds`: until the checkpoint is
whole; `restore_seconds` and `read_mb`: of a rank that restores it, which is checked against the weights that were
saved; `peak_gb`: the most memory that the first rank ever held. Medians of the repeats, over ranks the largest.
`--beside COMMIT` runs the same with the code of a commit of this repository, just before. The last line is one JSON
object.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(os.environ.get("VOXMILL_BENCHMARK_ROOT") or Path(__file__).resolve().parent.parent)
sys.path[0] = str(ROOT)

from rich.console import Console  # noqa: E402

from benchmarks.support.tables import table  # noqa: E402
from voxmill.core.errors import JobError, command  # noqa: E402

WIDTH = 1024
COLUMNS = ("stall_seconds", "write_seconds", "restore_seconds", "read_mb", "peak_gb")


def measure(options: argparse.Namespace) -> None:
    """On every rank: saves and restores so many times; the first rank prints the figures as JSON."""
    import deepspeed
    import torch
    from torch import nn

    from cluster.deepspeed.files import read_deepspeed
    from training.run.checkpoints import Checkpoints
    from training.run.world import join_world
    from training.run.zero_state import ZeroState

    with join_world("cpu") as world:
        torch.manual_seed(0)
        pairs = round(options.millions * 1e6 / (8 * WIDTH * WIDTH))
        layers = [nn.Linear(*sizes) for _ in range(pairs) for sizes in ((WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH))]
        module = nn.Sequential(*layers)
        names = {parameter: name for name, parameter in module.named_parameters()}
        optimizer = torch.optim.AdamW(list(names), lr=0.0)
        config = read_deepspeed(options.zero, offload=False)
        _, wrapped, _, _ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
        state = ZeroState(wrapped, names, world, zero=options.zero)
        is_ours = hasattr(state, "copied")
        store: Any = Checkpoints
        checkpoints = store(options.out, dict[str, int], keep=1, **({"world": world} if is_ours else {}))
        first, saved = next(iter(names)), float("nan")
        figures: dict[str, list[float]] = {name: [] for name in COLUMNS}
        for step in range(options.repeats):
            world.barrier()
            began = time.perf_counter()
            path = (save_ours if is_ours else save_whole)(checkpoints, state, world, step)
            world.barrier()
            figures["stall_seconds"].append(time.perf_counter() - began)
            checkpoints.wait()
            world.barrier()
            figures["write_seconds"].append(time.perf_counter() - began)
            figures["peak_gb"].append(most_memory() / 1e9)
            saved = float(state.whole(first, "weight").sum())
            before, began = bytes_read(), time.perf_counter()
            read = (restore_ours if is_ours else restore_whole)(state, path)
            figures["restore_seconds"].append(time.perf_counter() - began)
            figures["read_mb"].append((read + bytes_read() - before) / 1e6)
            assert float(state.whole(first, "weight").sum()) == saved
        medians = {name: statistics.median(values) for name, values in figures.items()}
        largest = dict(zip(COLUMNS, world.maxima([medians[name] for name in COLUMNS]), strict=True))
        if world.is_first:
            print(json.dumps(largest | {"peak_gb": figures["peak_gb"][-1]}), flush=True)


def save_ours(checkpoints: Any, state: Any, world: Any, step: int) -> Path:
    """As the trainers do."""
    checkpoints.wait()
    fragments = state.copied()
    path: Path = checkpoints.save(step, lambda part: part.add_tensors(fragments), {"step": step})
    return path


def restore_ours(state: Any, path: Path) -> int:
    """Bytes that were read and the system does not count."""
    from voxmill.core.sharded_tensors import ShardedTensors

    state.restore(ShardedTensors(path), 1)
    return 0


def save_whole(checkpoints: Any, state: Any, world: Any, step: int) -> Path:
    """As the trainers did up to format 2: the first rank gathers and writes all of it."""
    from training.run import checkpoints as module

    store: Any = module
    tensors = state.tensors_on_first()
    if world.is_first:
        checkpoints.save(step, lambda folder: store.write_tensors(folder, tensors), {"step": step})
    path: Path = checkpoints.folder / f"step-{step:08d}"
    return path


def restore_whole(state: Any, path: Path) -> int:
    """As the trainers did up to format 2; the bytes are read from mapped files."""
    from training.run import checkpoints as module

    store: Any = module
    read = [0]

    def counted() -> Any:
        for name, tensors in store.read_tensors(path):
            read[0] += sum(tensor.nbytes for tensor in tensors.values())
            yield name, tensors

    state.restore(counted(), 1)
    return read[0]


def most_memory() -> int:
    """Bytes that this process ever held at once."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def bytes_read() -> int:
    """Bytes that this process has read from files, from the disk or from memory of the system."""
    return int(Path("/proc/self/io").read_text(encoding="ascii").partition("rchar:")[2].split()[0])


def start(options: argparse.Namespace, root: Path, out: Path) -> dict[str, float]:
    """One run of all ranks with the code in `root`.

    Raises:
        JobError: it failed.
    """
    own = [f"--{name}={getattr(options, name)}" for name in ("millions", "zero", "repeats")]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(options.ranks)]
    words = [sys.executable, *launcher, str(Path(__file__).resolve()), "--worker", f"--out={out}", *own]
    ours = {"VOXMILL_BENCHMARK_ROOT": str(root), "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=os.environ | ours, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise JobError(f"a run with the code in {root} failed: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@command("benchmarks/checkpoint.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, default=200.0, help="parameters")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--zero", type=int, default=2, choices=(0, 1, 2, 3))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--beside", metavar="COMMIT", help="whose code is measured, too")
    parser.add_argument("--out", type=Path, help="folder for the checkpoints; default: a temporary one")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        measure(options)
        return
    with tempfile.TemporaryDirectory(dir=options.out) as temporary:
        roots = {"this code": ROOT}
        if options.beside:
            roots = {options.beside: Path(temporary) / "beside", **roots}
            roots[options.beside].mkdir()
            archive = subprocess.run(["git", "archive", options.beside], cwd=ROOT, capture_output=True, check=True)
            subprocess.run(["tar", "-x", "-C", roots[options.beside]], input=archive.stdout, check=True)
        found = {name: start(options, root, Path(temporary) / "out" / name) for name, root in roots.items()}
    rows = [[name, *(f"{figures[column]:.2f}" for column in COLUMNS)] for name, figures in found.items()]
    title = f"{options.millions:g} M parameters, {options.ranks} ranks, ZeRO {options.zero}"
    Console().print(table(title, ["code", *COLUMNS], rows))
    print(json.dumps({"millions": options.millions, "ranks": options.ranks, "zero": options.zero, **found}))


if __name__ == "__main__":
    sys.exit(main())
