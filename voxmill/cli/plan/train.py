"""`voxmill plan train`: what a training run will take, before any machine is reserved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from voxmill.core.errors import UserError, command

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cluster.planner.memory import Dtype, ModelShape, Zero
    from cluster.planner.plan import Choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of the command; None where one was not given."""

    model: str
    gpus: int
    gpu_memory: float
    zero: int | None
    dtype: str
    offload: bool
    recompute: bool
    positions: int
    rows: int
    audio: float
    train_positions: float | None
    mfu: float
    peak_tflops: float


def run(options: Options, console: Console | None = None) -> None:
    """Prints the plan.

    Raises:
        UserError: no such model, or a value that cannot be.
    """
    from rich.console import Console

    from cluster.planner.memory import Setup
    from cluster.planner.plan import choices
    from model.config import read_config
    from model.presets import PRESETS, preset
    from training.curriculum.plan.memory import shape_of

    console = console or Console(highlight=False)
    _check(options)
    config = preset(options.model) if options.model in PRESETS else read_config(options.model)
    shape = shape_of(config)
    base = Setup(
        zero=1,
        dtype=_dtype(options.dtype),
        world=options.gpus,
        positions=options.positions,
        audio=options.audio,
        offload=options.offload,
        recompute=options.recompute,
    )
    candidates = choices(shape, base, options.gpu_memory * 1e9, zero=_zero(options.zero))
    console.print(
        f"{options.model}: {shape.parameters / 1e6:.4g} M parameters, {options.dtype}, {options.gpus} x "
        f"{options.gpu_memory:g} GB, rows of {options.positions} positions, {options.audio:.0%} of them audio",
        soft_wrap=True,
    )
    console.print(_table(candidates))
    for line in advice_lines(options, shape, candidates):
        console.print(line, soft_wrap=True)


def _dtype(name: str) -> Dtype:
    from cluster.planner.memory import SIZES

    for known in SIZES:
        if name == known:
            return known
    raise UserError(f"--dtype {name}: write one of {', '.join(SIZES)}")


def _zero(number: int | None) -> Zero | None:
    if number is None:
        return None
    known: tuple[Zero, ...] = (0, 1, 2, 3)
    if number not in known:
        raise UserError(f"--zero {number}: write 0, 1, 2 or 3")
    return known[number]


def _check(options: Options) -> None:
    if options.offload and options.zero in (0, 1):
        raise UserError(f"--offload with --zero {options.zero}: only ZeRO 2 and 3 can be offloaded")
    for name in ("gpus", "gpu_memory", "positions", "rows", "mfu", "peak_tflops"):
        if not getattr(options, name) > 0:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)}: must be more than 0")
    for name in ("audio", "mfu"):
        if not 0 <= getattr(options, name) <= 1:
            raise UserError(f"--{name} {getattr(options, name)}: a share, 0 to 1")


def _table(candidates: list[Choice]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        "ZeRO", "again", "weights", "grads", "optim.", "activ.", "buffers", "step", "peak", "fits", box=box.SIMPLE
    )
    for choice in candidates:
        m, setup = choice.memory, choice.setup
        sizes = (m.weights, m.gradients, m.optimizer, m.activations, m.communication, m.step, m.peak)
        name = f"{setup.zero}{' CPU' if setup.offload else ''}"
        table.add_row(
            name,
            "yes" if setup.recompute else "no",
            *(f"{size / 1e9:.1f}" for size in sizes),
            "yes" if choice.fits else "no",
        )
    return table


def advice_lines(options: Options, shape: ModelShape, candidates: list[Choice]) -> list[str]:
    """The recommended settings, and how long the run takes with them."""
    from cluster.planner.compute import gpu_hours, position_flops, whole_rows
    from cluster.planner.plan import HEADROOM, longest_row, recommended

    lines = [
        f"GB a rank. again: activations are computed again (activation checkpointing); CPU: offloaded; step: copies "
        f"while the optimizer runs, after the activations; {HEADROOM:.0%} of a GPU stays free. States and what "
        "autograd saves were checked on a CPU, the rest is an estimate."
    ]
    best = recommended(candidates)
    if best is None:
        longest = max(longest_row(shape, choice.setup, options.gpu_memory * 1e9) for choice in candidates)
        more = (
            f"; rows of {longest} positions would fit"
            if longest
            else "; more GPUs, or GPUs with more memory, are needed"
        )
        return [*lines, f"none of these fits{more}"]
    setup = best.setup
    rows = whole_rows(options.rows, options.gpus)
    words = [f"engine.zero={setup.zero}"] + (["engine.offload=true"] if setup.offload else [])
    words += ["engine.activation_checkpointing=true"] if setup.recompute else []
    lines.append(
        f"take {' '.join(words)}, rows={rows} "
        f"({rows // options.gpus} a rank); the longest row that fits has "
        f"{longest_row(shape, setup, options.gpu_memory * 1e9)} positions"
    )
    if best.memory.host:
        lines.append(f"CPU memory for the offloaded optimizer: {best.memory.host / 1e9:.1f} GB a rank")
    flops = position_flops(shape, audio=options.audio, context=options.positions)
    lines.append(f"{flops / 1e9:.3g} GFLOP a position, forward and backward")
    if options.train_positions is not None:
        hours = gpu_hours(flops * options.train_positions, peak_tflops=options.peak_tflops, mfu=options.mfu)
        lines.append(
            f"{options.train_positions:.3g} positions at an assumed MFU of {options.mfu:.0%} of "
            f"{options.peak_tflops:g} TFLOP/s: {hours:,.0f} GPU-hours, "
            f"{hours / options.gpus / 24:,.1f} days on {options.gpus}"
        )
    return lines


@command("voxmill plan train")
def train(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="a checkpoint folder, or tiny, small, voxcpm2")
    ] = "voxcpm2",
    gpus: Annotated[int, typer.Option(help="ranks, one on each GPU")] = 8,
    gpu_memory: Annotated[float, typer.Option(help="memory of one GPU, in 1e9 bytes")] = 80.0,
    zero: Annotated[int | None, typer.Option(help="ZeRO stage; by default all are tried")] = None,
    dtype: Annotated[str, typer.Option(help="bfloat16 or float32")] = "bfloat16",
    offload: Annotated[bool, typer.Option("--offload", help="keep the optimizer in CPU memory")] = False,
    recompute: Annotated[bool, typer.Option("--recompute", help="only with activation checkpointing")] = False,
    positions: Annotated[int, typer.Option(help="positions of a packed row")] = 8192,
    rows: Annotated[int, typer.Option(help="packed rows of a step, over all ranks")] = 256,
    audio: Annotated[float, typer.Option(help="share of positions that are audio, all of it targets")] = 1.0,
    train_positions: Annotated[float | None, typer.Option(help="positions to train on, for days and GPU-hours")] = None,
    mfu: Annotated[float, typer.Option(help="assumed model FLOPs utilisation")] = 0.4,
    peak_tflops: Annotated[float, typer.Option(help="peak TFLOP/s of one GPU; 989 is an H100 in bf16")] = 989.0,
) -> None:
    """Prints what training takes: memory of each rank, what fits, GPU-hours.

    \b
    Examples:
      voxmill plan train VoxCPM2/ --gpus 64 --train-positions 1e11 --mfu 0.4
      voxmill plan train voxcpm2 --gpus 1 --gpu-memory 24
    """
    run(
        Options(
            model=model,
            gpus=gpus,
            gpu_memory=gpu_memory,
            zero=zero,
            dtype=dtype,
            offload=offload,
            recompute=recompute,
            positions=positions,
            rows=rows,
            audio=audio,
            train_positions=train_positions,
            mfu=mfu,
            peak_tflops=peak_tflops,
        )
    )
