"""How a plan of data is shown: tables for people, one line of JSON for programs."""

import json
import math
import string

from rich import box
from rich.console import Console
from rich.table import Table

from cluster.planner.data_setup import DataPlan
from cluster.planner.rates import Source


class _Sources:
    """Letters of the sources in the order of their first use."""

    def __init__(self) -> None:
        self._letters: dict[Source, str] = {}

    def cell(self, source: Source) -> str:
        """Such as "assumed b"."""
        letter = self._letters.setdefault(source, _letter(len(self._letters)))
        return f"{source.kind} {letter}"

    def lines(self) -> list[str]:
        """One a source: where and when it was measured and by what, or why it is assumed."""
        return [
            f"{letter}: {source}" + (f": {source.command}" if source.command else "")
            for source, letter in self._letters.items()
        ]


def json_line(plan: DataPlan, changed: DataPlan | None) -> str:
    """The plan as one line of JSON; bytes, hours and days as plain numbers, null where work would never end.

    Args:
        changed: the plan that is possible, None where none is; its machines and units stand under "possible_with".
    """
    setup = plan.setup
    values: dict[str, object] = {
        "possible": not plan.problems,
        "problems": [{"what": one.what, "changes": list(one.changes)} for one in plan.problems],
        "possible_with": None
        if changed is None
        else {
            "gpus": changed.setup.gpus,
            "cores": changed.setup.cores,
            "driver_memory": changed.setup.driver_memory,
            "node_memory": changed.setup.node_memory,
            "unit_seconds": changed.setup.unit_seconds,
            "buckets": changed.buckets,
        },
        "audio_hours": setup.audio_hours,
        "kept_hours": plan.kept_hours,
        "clips": round(plan.clips),
        "recordings": round(plan.recordings),
        "units": round(plan.units),
        "buckets": plan.buckets,
        "gpus": setup.gpus,
        "cores": setup.cores,
        "gpu_hours": plan.gpu_hours,
        "core_hours": plan.core_hours,
        "days": _finite(plan.days),
        "stages": [
            {
                "stage": line.stage,
                "phase": line.phase,
                "device": line.device,
                "device_hours": line.device_hours,
                "seconds_per_audio_hour": line.seconds,
                "source": line.source.model_dump(),
            }
            for line in plan.stages
        ],
        "phases": [
            {"phase": line.phase, "days": _finite(line.days), "bound_by": line.bound_by, "gpus_busy": line.gpu_busy}
            | {"files_written": round(line.puts), "ranges_read": round(line.gets)}
            for line in plan.phases
        ],
        "storage": [
            {"name": line.name, "bytes": round(line.bytes), "files": round(line.files), "source": str(line.source)}
            for line in plan.storage
        ],
        "memory": [
            {"name": line.name, "bytes": round(line.bytes), "limit": round(line.limit), "source": str(line.source)}
            for line in plan.memory
        ],
    }
    return json.dumps(values, ensure_ascii=False, allow_nan=False)


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _letter(number: int) -> str:
    return string.ascii_lowercase[number % 26] * (number // 26 + 1)


def print_plan(plan: DataPlan, *, gpu_price: float | None, core_price: float | None) -> None:
    """Tables of stages, phases, storage and memory, then the totals and the sources."""
    console, sources = Console(highlight=False), _Sources()
    setup = plan.setup
    console.print(
        f"{setup.audio_hours:,.0f} h in {_count(plan.recordings)} recordings at {setup.sample_rate / 1000:g} kHz, "
        f"{plan.kept_hours:,.0f} h kept in {_count(plan.clips)} clips; {setup.gpus:,} GPUs, {setup.cores:,} cores, "
        f"{plan.buckets:,} buckets of {plan.bucket_hours:.1f} h, {_count(plan.units)} work units",
        soft_wrap=True,
    )
    for table in (_stage_table(plan, sources), _phase_table(plan), _storage_table(plan, sources)):
        console.print(table)
    console.print(_memory_table(plan, sources))
    for line in [*_totals(plan, gpu_price, core_price), *sources.lines()]:
        console.print(line, soft_wrap=True, markup=False)


def _table(*headings: str, left: tuple[int, ...]) -> Table:
    table = Table(box=box.SIMPLE)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number in left else "right")
    return table


def _stage_table(plan: DataPlan, sources: _Sources) -> Table:
    table = _table("stage", "on", "audio h", "s an audio h", "device-hours", "rate", left=(0, 1, 5))
    for line, following in zip(plan.stages, [*plan.stages[1:], None], strict=True):
        table.add_row(
            line.stage,
            line.device,
            f"{line.audio_hours:,.0f}",
            f"{line.seconds:.4g}",
            f"{line.device_hours:,.0f}",
            sources.cell(line.source),
            end_section=following is not None and following.phase != line.phase,
        )
    return table


def _phase_table(plan: DataPlan) -> Table:
    table = _table("phase", "days", "bound by", "GPUs busy", "files written", "ranges read", left=(0, 2))
    for line in plan.phases:
        busy = line.gpu_busy
        table.add_row(
            line.phase,
            _days(line.days),
            line.bound_by,
            "" if busy is None else f"{busy:.0%}",
            _count(line.puts),
            _count(line.gets),
        )
    return table


def _storage_table(plan: DataPlan, sources: _Sources) -> Table:
    table = _table("storage", "bytes", "files", "size", left=(0, 3))
    for line in plan.storage:
        table.add_row(line.name, _bytes(line.bytes), _count(line.files), sources.cell(line.source))
    return table


def _memory_table(plan: DataPlan, sources: _Sources) -> Table:
    table = _table("memory", "takes", "has", "size", left=(0, 3))
    for line in plan.memory:
        table.add_row(line.name, _bytes(line.bytes), _bytes(line.limit), sources.cell(line.source))
    return table


def _totals(plan: DataPlan, gpu_price: float | None, core_price: float | None) -> list[str]:
    written = plan.storage[1:]
    lines = [
        f"total: {plan.gpu_hours:,.0f} GPU-hours, {plan.core_hours:,.0f} core-hours, {_days(plan.days)} days; "
        f"{_bytes(sum(line.bytes for line in written))} in {_count(sum(line.files for line in written))} files beside "
        "the recordings"
    ]
    for name, price, number in (("GPUs", gpu_price, plan.setup.gpus), ("cores", core_price, plan.setup.cores)):
        if price is not None:
            lines.append(f"{name}: {number * plan.days * 24 * price:,.0f} for {number:,} of them, {price:g} an hour")
    return lines


def _days(days: float) -> str:
    return "never" if math.isinf(days) else f"{days:,.1f}" if days >= 1 else f"{days:.3f}"


def _count(number: float) -> str:
    """A count of millions (M) or thousands of millions (bn) with three digits, a smaller one in full."""
    for size, suffix in ((1e9, " bn"), (1e6, " M")):
        if number >= size:
            return f"{number / size:.3g}{suffix}"
    return f"{number:,.0f}"


def _bytes(size: float) -> str:
    for unit, name in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size / 1e3:.3g} kB"
