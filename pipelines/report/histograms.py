"""Histograms of measures, kept clips upwards and rejected ones downwards, as coordinates that the page draws."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.ticker import MaxNLocator

from pipelines.report.bucket_summary import DNSMOS, GRIDS, SNR
from pipelines.report.formatting import amount, number
from pipelines.report.grids import Counts, Grid
from pipelines.report.tables import Outcome, leaves

MAX_BARS = 32
WIDTH = 400.0

HISTOGRAMS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("DNSMOS overall", "MOS", DNSMOS, ("dnsmos_ovr",)),
    ("Signal to noise", "dB", SNR, ("snr_db", "snr")),
    ("Speaking rate", "characters/s", "transcript.characters_per_second", ("characters_per_second",)),
    ("Expressiveness", "deviations", "expressiveness", ("threshold",)),
    ("Predicted word error rate", "errors a word", "predicted_wer", ("predicted_wer",)),
    ("Bandwidth", "Hz", "quality.bandwidth_hz", ("bandwidth_hz", "bandwidth")),
)


LENGTH_EDGES = tuple(2 ** (half / 2) for half in range(18))
"""Of the bars of lengths, in seconds: 1 s to 6 min, two an octave."""
LENGTH_TICKS = (2, 5, 10, 30, 60, 180, 300)
LONG_SECONDS = (30, 60, 180)
"""Lengths of which the report tells how much is in longer clips: of what is recognised at once, and of the stages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar of a histogram in SVG units: left and upper edge, height, and the text that a pointer shows."""

    x: float
    y: float
    h: float
    kind: Literal["kept", "rejected"]
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A threshold or a tick of the axis; `end`: so far right that its text stands to its left."""

    x: float
    text: str
    end: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """One chart; lengths in SVG units, `base` is the line between kept and rejected, `cell` that of its grid.

    note: what else there is to say of it.
    """

    title: str
    unit: str
    cell: str
    bars: list[Bar]
    marks: list[Mark]
    ticks: list[Mark]
    base: float
    width: float
    bar: float
    kept: str
    dropped: str
    note: str = ""


def limits(config: object, aliases: tuple[str, ...]) -> list[tuple[str, float]]:
    """The thresholds that `select` sets on one measure, as (min|max, value)."""
    thresholds = []
    for path, value in leaves(config):
        section, _, name = path.rpartition(".")
        side, _, measure = name.partition("_")
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            continue
        if section.split(".")[0] == "select" and side in ("min", "max") and measure in aliases:
            thresholds.append((side, float(value)))
    return thresholds


def histograms(outcome: Outcome) -> list[Histogram]:
    """Charts of all that was measured."""
    charts = (length_histogram(outcome), *(histogram(outcome, *spec) for spec in HISTOGRAMS))
    return [chart for chart in charts if chart is not None]


def histogram(outcome: Outcome, title: str, unit: str, column: str, aliases: tuple[str, ...]) -> Histogram | None:
    """Bars of kept (upwards) and rejected (downwards) clips as SVG coordinates, or None where nothing was measured."""
    grid, measure = GRIDS[column], outcome.summary.measure(column)
    both = measure.kept + measure.rejected
    low, high = grid.quantile(both, 0.005), grid.quantile(both, 0.995)
    if low is None or high is None:
        return None
    lines = limits(outcome.run.get("config"), aliases)
    # A limit the data never came near (a maximum of 60 s over clips of 5 s) would squeeze the bars into one.
    near = [value for _, value in lines if low - (high - low) <= value <= high + (high - low)]
    low, high = min([low, *near]), max([high, *near])
    margin = (high - low) * 0.04 or max(abs(low) * 0.1, 0.5)
    first, last = (int(cell) for cell in grid.cell(np.array([low - margin, high + margin])))
    # Every bar is a whole number of cells.
    per_bar = -(-(last - first + 1) // MAX_BARS)
    num_bars = -(-(last - first + 1) // per_bar)
    low, high = grid.low + first * grid.step, grid.low + (first + num_bars * per_bar) * grid.step
    edges = [low + i * per_bar * grid.step for i in range(num_bars + 1)]
    up, down = (_bars(counts, first, per_bar, num_bars) for counts in (measure.kept, measure.rejected))

    def place(value: float) -> float:
        return float((value - low) / (high - low) * WIDTH)

    bars, base = _both_sides(up, down, lambda i: f"{number(edges[i])} to {number(edges[i + 1])} {unit}", "{:,}".format)
    ticks = [
        Mark(x=place(float(value)), text=number(float(value)))
        for value in MaxNLocator(5).tick_values(low, high)
        if low <= value <= high
    ]
    return Histogram(
        title=title,
        unit=unit,
        cell=f"{number(grid.step)} {unit}",
        bars=bars,
        marks=_marks(lines, low, high, place),
        ticks=ticks,
        base=base,
        width=WIDTH,
        bar=WIDTH / len(up) - 1.5,
        kept=number(grid.quantile(measure.kept, 0.5)),
        dropped=number(grid.quantile(measure.rejected, 0.5)),
    )


def length_histogram(outcome: Outcome) -> Histogram | None:
    """Seconds of kept (upwards) and rejected clips by their length, on a logarithmic axis; None without clips."""
    grid, measure = GRIDS["duration"], outcome.summary.measure("duration")
    kept, rejected = (_by_length(grid, counts) for counts in (measure.kept, measure.rejected))
    if not len(kept[0]) and not len(rejected[0]):
        return None
    low, high = LENGTH_EDGES[0], LENGTH_EDGES[-1]

    def place(value: float) -> float:
        return float(np.log(value / low) / np.log(high / low) * WIDTH)

    up, down = (
        np.histogram(np.clip(lengths, low, high), LENGTH_EDGES, weights=seconds)[0]
        for lengths, seconds in (kept, rejected)
    )
    bars, base = _both_sides(
        up, down, lambda i: f"{number(LENGTH_EDGES[i])} to {number(LENGTH_EDGES[i + 1])} s", amount
    )
    lengths, seconds = kept
    total = max(float(seconds.sum()), 1e-9)
    shares = [f"{float(seconds[lengths > limit].sum()) / total:.0%} over {limit} s" for limit in LONG_SECONDS]
    return Histogram(
        title="Clip length",
        unit="s, audio in clips of each length",
        cell=f"{number(grid.step)} s",
        bars=bars,
        marks=_marks(limits(outcome.run.get("config"), ("seconds", "duration")), low, high, place),
        ticks=[Mark(x=place(value), text=number(value)) for value in LENGTH_TICKS],
        base=base,
        width=WIDTH,
        bar=WIDTH / len(up) - 1.5,
        kept=number(grid.quantile(measure.kept, 0.5)),
        dropped=number(grid.quantile(measure.rejected, 0.5)),
        note=f"of the kept audio: {', '.join(shares)}",
    )


def _by_length(grid: Grid, counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """Length of each cell's clips, and seconds of them together."""
    lengths = grid.low + (counts.first + np.arange(len(counts.counts)) + 0.5) * grid.step
    return lengths, lengths * np.asarray(counts.counts, dtype=np.float64)


def _both_sides(
    up: np.ndarray, down: np.ndarray, name: Callable[[int], str], shown: Callable[[float], str]
) -> tuple[list[Bar], float]:
    """Bars of amounts of kept and rejected clips, and the line between them."""
    peak_up, peak_down = float(up.max()), float(down.max())
    # Both sides share one scale, so areas compare; each side keeps a little room for its label.
    scale = 128.0 / ((peak_up + peak_down) or 1.0)
    base = 14.0 + peak_up * scale
    sides: tuple[tuple[Literal["kept", "rejected"], np.ndarray], ...] = (("kept", up), ("rejected", down))
    bars = [
        Bar(
            x=i * WIDTH / len(up),
            y=base - counts[i] * scale if kind == "kept" else base,
            h=counts[i] * scale,
            kind=kind,
            title=f"{name(int(i))}: {shown(counts[i])} {kind}",
        )
        for kind, counts in sides
        for i in np.flatnonzero(counts)
    ]
    return bars, base


def _marks(lines: Sequence[tuple[str, float]], low: float, high: float, place: Callable[[float], float]) -> list[Mark]:
    return [
        Mark(
            x=place(value),
            text=f"{'≥' if side == 'min' else '≤'} {number(value)}",
            end=place(value) > WIDTH * 0.75,
        )
        for side, value in lines
        if low <= value <= high
    ]


def _bars(counts: Counts, first: int, per_bar: int, num_bars: int) -> np.ndarray:
    """Counts a bar, int64; what lies outside the bars counts in the first or the last one."""
    bars = (counts.first + np.arange(len(counts.counts)) - first) // per_bar
    return np.bincount(np.clip(bars, 0, num_bars - 1), counts.counts, num_bars).astype(np.int64)
