"""What a GPU gives: training and generation at full size, and the labelling graph of `annotate`.

    python benchmarks/gpu.py train [--steps 8] [--positions 8192] [--rows 2] [--profile FOLDER] [--tiny] [key=value ...]
    python benchmarks/gpu.py generate [--repeats 3] [--patches 20] [--preset voxcpm2] [--no-released]
    python benchmarks/gpu.py annotate [--hours 2] [--cpu-hours 0.5] [key=value ...]

`train`: random weights in bf16 through the trainer's engine, one rank (nccl), with torch.compile (`engine.compile`)
and without, one after the other; memory beside the planner's figure for these rows, MFU by the model's own
operations (`training/curriculum/plan/flops.py`). The goal: an MFU of 45 % on an H100. `attention`: the kernel for rows
of documents in bf16 beside the loop over documents in fp32, relative errors. `--tiny`: the benchmark itself, on a CPU.

`generate`: random weights in bf16, 1, 8 and 64 requests.

The goal: an RTF of 0.05 or less at one request on an H100.

`compiled`: steps through torch.compile, replayed as CUDA graphs; `graphs`: the graphs alone. The released code: its own
`optimize()`, one request, since it has no batches. The stop predictor is ignored, so that all requests have the same
number of patches; RTF is wall time over seconds of speech of all requests, first patch is the time to the first 160 ms
of a stream (of the slowest request, where several start together), a step is one patch of all requests without the
AudioVAE. Warm-ups are not counted. `agreement_...` holds the GPU's patches against the CPU's (relative error, fp32).
Each part is a process: all get ready at the same time, then each is measured alone, and one that fails takes no other
with it.

`annotate`: the graph over copies of the sample recordings (16 kHz, without those with music), Whisper base in
fp16, then without the GPU on the same machine. Audio hours an hour over all, from the first tenth of the audio to the
last, and of the models alone (audio over the seconds that their stages took). GPU busy is the share of time in which a
kernel ran, as the driver samples it.

Results by date and device are in benchmarks/results. `annotate` has none yet: on the one GPU at hand it did not end in
its time.

A JSON line a part as it comes, then the table; last line: JSON of all.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from rich.console import Console  # noqa: E402

from benchmarks.gpu_parts.processes import Found, run_parts  # noqa: E402
from benchmarks.support.tables import table  # noqa: E402
from samples.released import is_installed  # noqa: E402
from voxmill.core.errors import ExitStatus, UserError, command  # noqa: E402

SIZES = (1, 8, 64)
PARTS = Path("benchmarks") / "gpu_parts"


def device_name(device: str) -> str:
    """The GPU's name.

    Raises:
        UserError: there is none.
    """
    if device != "cuda":
        return device
    import torch

    if not torch.cuda.is_available():
        raise UserError("no CUDA device here; run it on a machine with an NVIDIA GPU")
    return torch.cuda.get_device_name()


def generate(arguments: argparse.Namespace) -> int:
    """Runs the parts; FAILED where one has no result."""
    if not arguments.no_released and not is_installed():
        raise UserError("voxcpm is missing; pip install --no-deps voxcpm==2.0.3, or give --no-released")
    gpu = device_name(arguments.device)
    shared = ["--device", arguments.device]
    sized = [*shared, "--preset", arguments.preset, "--patches", str(arguments.patches)]
    sized += ["--repeats", str(arguments.repeats)]
    script = str(PARTS / "generation.py")
    ours = ["graphs"] if arguments.no_compile else ["compiled", "graphs"]
    first, *more = arguments.sizes
    wanted = [(system, first) for system in ours]
    wanted += [] if arguments.no_released else [("released", 1)]
    wanted += [(system, size) for system in ours for size in more]
    commands = {f"{s}_{size}": [script, "--system", s, "--count", str(size), *sized] for s, size in wanted}
    if not arguments.no_agreement:
        agreement = [str(PARTS / "agreement.py"), *shared, "--preset", arguments.agreement_preset]
        commands |= {f"agreement_{system}": agreement for system in ours}
        if not arguments.no_compile:
            commands["agreement_compiled"] = [*agreement, "--compiled"]
    threads = max(1, (os.cpu_count() or 1) // 4)  # half of the parts compile
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": str(threads)}

    def show(name: str, found: Found) -> None:
        print(json.dumps({"part": name} | found), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        logs = Path(arguments.logs or folder)
        found = run_parts(
            commands, patience=arguments.patience, turn=60, logs=logs, environment=environment, on_found=show
        )
    headings = ["system", "requests", "RTF of all together", "RTF of each", "first patch", "step", "memory", "ready in"]
    rows = []
    for system, size in wanted:
        part = found[f"{system}_{size}"]
        if "error" not in part:
            cells = [f"{part['rtf']:.4f}", f"{part['rtf_each']:.4f}", f"{part['first_ms']:.0f} ms"]
            cells.append(f"{part['step_ms']:.2f} ms" if "step_ms" in part else "")
            cells += [f"{part.get('memory_gb', 0):.1f} GB", f"{part['ready_s']:.0f} s"]
            rows.append([system, str(size), *cells])
    title = f"{gpu}, {arguments.preset} in bf16, {arguments.patches} patches a request, {arguments.repeats} repeats"
    Console(width=120).print(table(title, headings, rows))
    print(json.dumps({"gpu": gpu, "preset": arguments.preset, "patches": arguments.patches} | found))
    return ExitStatus.FAILED if any("error" in part for part in found.values()) else ExitStatus.DONE


def train(arguments: argparse.Namespace) -> int:
    """Trains with torch.compile and without, and compares attention; FAILED where one has no result."""
    if arguments.tiny:
        arguments.device, arguments.preset, arguments.positions, arguments.steps = "cpu", "tiny", 256, 2
    gpu = device_name(arguments.device)
    shared = ["--device", arguments.device, "--preset", arguments.preset, "--compiler", arguments.compiler]
    sized = ["--positions", str(arguments.positions), "--rows", str(arguments.rows), "--steps", str(arguments.steps)]
    script = [str(PARTS / "training.py"), *shared, *sized]
    commands = {"attention": [str(PARTS / "agreement.py"), "--device", arguments.device, "--attention"]}
    for name, words in {"eager": [], "compiled": ["--compiled"]}.items():
        profile = ["--profile", f"{arguments.profile}/{name}.txt"] if arguments.profile else []
        if name == "eager" or not arguments.no_compile:
            commands[name] = [*script, *words, *profile, *arguments.overrides]
    environment = dict(os.environ) | ({"OMP_NUM_THREADS": "1"} if arguments.device == "cpu" else {})
    found: dict[str, Found] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, words in commands.items():  # one after the other: two models of the full size fit on no GPU
            found |= run_parts(
                {name: words},
                patience=arguments.patience,
                turn=arguments.patience,
                logs=Path(arguments.logs or folder),
                environment=environment,
                on_found=lambda name, found: print(json.dumps({"part": name} | found), flush=True),
            )
    rows = []
    for name, part in found.items():
        if "positions_s" in part:
            mfu = f"{part['mfu']:.1%}" if "mfu" in part else ""
            cells = [f"{part['positions_s']:.0f}", f"{part['step_s']:.3f} s", f"{part['teraflops']:.1f}", mfu]
            cells += [f"{part['memory_gb']:.1f} GB" if "memory_gb" in part else "", f"{part['planned_gb']:.1f} GB"]
            rows.append(
                [name, *cells, f"{part['recomputed']:.0%}", f"{part['loss'][-1]:.4f}", f"{part['ready_s']:.0f} s"]
            )
    headings = [
        "layers",
        "positions/s",
        "step",
        "TFLOP/s",
        "MFU",
        "memory",
        "planned",
        "recomputed",
        "loss",
        "ready in",
    ]
    title = f"{gpu}, {arguments.preset} in bf16, {arguments.rows} rows of {arguments.positions} positions a step"
    Console(width=120).print(table(title, headings, rows))
    print(json.dumps({"gpu": gpu, "preset": arguments.preset, "positions": arguments.positions} | found))
    return ExitStatus.FAILED if any("error" in part for part in found.values()) else ExitStatus.DONE


def annotate(arguments: argparse.Namespace) -> int:
    """Runs the graph with the GPU and without; FAILED where one has no result."""
    gpu = device_name("cuda" if arguments.hours else "cpu")
    wanted = {"gpu": ("cuda", arguments.hours), "cpu": ("cpu", arguments.cpu_hours)}
    found: dict[str, Found] = {}
    with tempfile.TemporaryDirectory(prefix="voxmill-") as folder:
        for name, (device, hours) in wanted.items():
            if hours:
                place = ["--device", device, "--folder", f"{folder}/{name}", "--hours", str(hours)]
                found |= run_parts(
                    {name: [str(PARTS / "annotation.py"), *place, *arguments.overrides]},
                    patience=120,
                    turn=arguments.patience,
                    logs=Path(arguments.logs or folder),
                    environment=os.environ,
                    on_found=lambda name, found: print(json.dumps({"part": name} | found), flush=True),
                )
    rows = []
    for name, part in found.items():
        if "error" not in part:
            cells = [f"{part['audio_hours']:.2f} h", f"{part['wall_s']:.0f} s", f"{part['hours_an_hour']:.0f}"]
            cells += [f"{part.get('steady_hours_an_hour', 0):.0f}", f"{part['models_alone_hours_an_hour']:.0f}"]
            rows.append([name, *cells, f"{part['gpu_busy']:.0%}" if "gpu_busy" in part else ""])
    headings = ["on", "audio", "took", "hours an hour", "without ends", "models alone", "GPU busy"]
    Console(width=120).print(table(f"annotate, Whisper base, {gpu}, {os.cpu_count()} CPUs", headings, rows))
    print(json.dumps({"gpu": gpu, "cpus": os.cpu_count()} | found))
    return ExitStatus.FAILED if any("error" in part for part in found.values()) else ExitStatus.DONE


@command("benchmarks/gpu.py")
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    speech = parts.add_parser("generate", help="speech of the full size, beside the released code")
    speech.set_defaults(run=generate)
    speech.add_argument("--repeats", type=int, default=3)
    speech.add_argument("--patches", type=int, default=20, help="patches of 160 ms a request")
    speech.add_argument("--preset", default="voxcpm2")
    speech.add_argument("--agreement-preset", default="small")
    speech.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="requests at once")
    speech.add_argument("--device", default="cuda", help="cpu: to try the benchmark itself")
    speech.add_argument("--patience", type=float, default=180, help="seconds until all parts must be ready")
    speech.add_argument("--logs", help="folder for what the parts write to stderr")
    speech.add_argument("--no-compile", action="store_true", help="CUDA graphs only")
    speech.add_argument("--no-released", action="store_true", help="voxmill only")
    speech.add_argument("--no-agreement", action="store_true", help="speed only")
    learning = parts.add_parser("train", help="training of the full size, with torch.compile and without")
    learning.set_defaults(run=train)
    learning.add_argument("--tiny", action="store_true", help="the tiny preset on a CPU: to try the benchmark itself")
    learning.add_argument("--preset", default="voxcpm2")
    learning.add_argument("--positions", type=int, default=8192, help="of a row")
    learning.add_argument("--rows", type=int, default=2, help="of a step")
    learning.add_argument("--steps", type=int, default=8, help="that count, after three that do not")
    learning.add_argument("--device", default="cuda")
    learning.add_argument("--compiler", default="inductor", help="backend of torch.compile")
    learning.add_argument(
        "--patience", type=float, default=150, help="seconds for a part to get ready, and for its steps"
    )
    learning.add_argument("--profile", help="folder for tables of what one more step spends its time on")
    learning.add_argument("--logs", help="folder for what the parts write to stderr")
    learning.add_argument("--no-compile", action="store_true", help="without torch.compile only")
    learning.add_argument("overrides", nargs="*", metavar="key=value", help="of the recipe stage1")
    labels = parts.add_parser("annotate", help="the labelling graph, with the GPU and without")
    labels.set_defaults(run=annotate)
    labels.add_argument("--hours", type=float, default=2.0, help="audio hours with the GPU; 0: without it only")
    labels.add_argument("--cpu-hours", type=float, default=0.5, help="audio hours without the GPU; 0: with it only")
    labels.add_argument("--patience", type=float, default=240, help="seconds that each of the two may take")
    labels.add_argument("--logs", help="folder for what the parts write to stderr")
    labels.add_argument("overrides", nargs="*", metavar="key=value", help="of the recipe")
    arguments = parser.parse_args()
    status: int = arguments.run(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
