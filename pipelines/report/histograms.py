"""Histograms of measures, kept clips upwards and rejected ones downwards, as coordinates that the page draws."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.ticker import MaxNLocator

from pipelines.report.bucket_summary import DNSMOS, GRIDS, SNR
from pipelines.report.formatting import number
from pipelines.report.grids import Counts
from pipelines.report.tables import Outcome, leaves

MAX_BARS = 32

HISTOGRAMS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("Duration", "s", "duration", ("seconds", "duration")),
    ("DNSMOS overall", "MOS", DNSMOS, ("dnsmos_ovr",)),
    ("Signal to noise", "dB", SNR, ("snr_db", "snr")),
    ("Speaking rate", "characters/s", "transcript.characters_per_second", ("characters_per_second",)),
    ("Expressiveness", "deviations", "expressiveness", ("threshold",)),
    ("Predicted word error rate", "errors a word", "predicted_wer", ("predicted_wer",)),
    ("Bandwidth", "Hz", "quality.bandwidth_hz", ("bandwidth_hz", "bandwidth")),
)


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
    """One chart; lengths in SVG units, `base` is the line between kept and rejected, `cell` that of its grid."""

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
    peak_up, peak_down = int(up.max()), int(down.max())
    # Both sides share one scale, so areas compare; each side keeps a little room for its label.
    scale = 128.0 / max(1, peak_up + peak_down)
    base = 14.0 + peak_up * scale
    width = 400.0

    def place(value: float) -> float:
        return float((value - low) / (high - low) * width)

    sides: tuple[tuple[Literal["kept", "rejected"], np.ndarray], ...] = (("kept", up), ("rejected", down))
    bars = [
        Bar(
            x=i * width / len(up),
            y=base - counts[i] * scale if kind == "kept" else base,
            h=counts[i] * scale,
            kind=kind,
            title=f"{number(edges[i])} to {number(edges[i + 1])} {unit}: {counts[i]:,} {kind}",
        )
        for kind, counts in sides
        for i in np.flatnonzero(counts)
    ]
    marks = [
        Mark(
            x=place(value),
            text=f"{'≥' if side == 'min' else '≤'} {number(value)}",
            end=place(value) > width * 0.75,
        )
        for side, value in lines
        if low <= value <= high
    ]
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
        marks=marks,
        ticks=ticks,
        base=base,
        width=width,
        bar=width / len(up) - 1.5,
        kept=number(grid.quantile(measure.kept, 0.5)),
        dropped=number(grid.quantile(measure.rejected, 0.5)),
    )


def _bars(counts: Counts, first: int, per_bar: int, num_bars: int) -> np.ndarray:
    """Counts a bar, int64; what lies outside the bars counts in the first or the last one."""
    bars = (counts.first + np.arange(len(counts.counts)) - first) // per_bar
    return np.bincount(np.clip(bars, 0, num_bars - 1), counts.counts, num_bars).astype(np.int64)
