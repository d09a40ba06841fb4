"""Turns what an annotation run left on disk into one self-contained HTML page with playable examples."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.ticker import MaxNLocator

from pipelines.report.formatting import amount, number, percent, visible
from pipelines.report.gallery import controllability, listeners
from pipelines.report.previews import EXAMPLE_SECONDS, listenable, spread
from pipelines.report.run_record import Run, StageCost
from pipelines.report.tables import Outcome, floats, groups, languages, leaves, load_outcome, median, strings, total
from voxmill.core.files import write_atomically
from voxmill.data.records import StageName

KEPT_EXAMPLES = 6
REASON_EXAMPLES = 3
# 15 s of 32 kbit/s Opus is about 80 kB in base64, so the page stays near 10 MB even with forty drop reasons.
MAX_EXAMPLES = 120
# A browser lays out some ten thousand table rows before it stutters; beyond that the Parquet file is the better list.
MAX_LISTED = 10_000
MAX_TEXT = 600

HISTOGRAMS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("Duration", "s", "duration", ("seconds", "duration")),
    ("DNSMOS overall", "MOS", "quality.dnsmos_ovr", ("dnsmos_ovr",)),
    ("Signal to noise", "dB", "quality.snr_db", ("snr_db", "snr")),
    ("Speaking rate", "characters/s", "transcript.characters_per_second", ("characters_per_second",)),
    ("Expressiveness", "deviations", "expressiveness", ("threshold",)),
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
    """One chart; lengths in SVG units, `base` is the line between kept and rejected."""

    title: str
    unit: str
    bars: list[Bar]
    marks: list[Mark]
    ticks: list[Mark]
    base: float
    width: float
    bar: float
    kept: str
    dropped: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A clip to listen to. `cut`: longer than what is played here; `facts`: (name, value) of a few measures."""

    note: str
    audio: str | None
    cut: bool
    text: str
    clip: str
    language: str
    duration: str
    origin: str
    value: str
    threshold: str
    facts: list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DropReason:
    """Rejected clips of one stage and reason; `share` is percent of the most frequent reason."""

    stage: str
    reason: str
    count: int
    share: float
    seconds: float
    value: str
    threshold: str
    examples: list[Example]


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelRow:
    """What was left after one step: `seconds` of audio, `share` of it in percent, `compute` seconds by `stages`."""

    key: str
    label: str
    count: int
    unit: Literal["recordings", "clips"]
    seconds: float
    share: float
    compute: float | None
    stages: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndCount:
    """Recordings with one state, stage and reason; `share` is percent of all."""

    state: str
    stage: str
    reason: str
    count: int
    seconds: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LostRecording:
    """A recording of which no clip was kept."""

    path: str
    state: str
    stage: str
    reason: str
    detail: str
    value: str
    threshold: str
    duration: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingEnds:
    """How recordings ended: counted, and the first of those that were lost; `unlisted` more were lost."""

    counts: list[EndCount]
    lost: list[LostRecording]
    unlisted: int
    num_kept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """Compute of one stage; `share` is percent of all stages, `bar` of the slowest, `speed` times real time."""

    name: str
    seconds: float
    share: float
    bar: float
    audio: float | None
    calls: str
    slowest: bool
    speed: str


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
    kept, dropped = (
        values[np.isfinite(values)] for values in (floats(outcome.clips, column), floats(outcome.rejected, column))
    )
    both = np.concatenate([kept, dropped])
    if not both.size:
        return None
    lines = limits(outcome.run.get("config"), aliases)
    low, high = (float(edge) for edge in np.percentile(both, [0.5, 99.5]))
    # A limit the data never came near (a maximum of 60 s over clips of 5 s) would squeeze the bars into one.
    near = [value for _, value in lines if low - (high - low) <= value <= high + (high - low)]
    low, high = min([low, *near]), max([high, *near])
    margin = (high - low) * 0.04 or max(abs(low) * 0.1, 0.5)
    low, high = (max(0.0, low - margin) if low >= 0 else low - margin), high + margin
    edges = np.linspace(low, high, 33)
    up, down = (np.histogram(np.clip(values, low, high), edges)[0] for values in (kept, dropped))
    peak_up, peak_down = int(up.max()), int(down.max())
    # Both sides share one scale, so areas compare; each side keeps a little room for its label.
    scale = 128.0 / max(1, peak_up + peak_down)
    base = 14.0 + peak_up * scale
    width = 400.0

    def place(value: float) -> float:
        return (value - low) / (high - low) * width

    sides: tuple[tuple[Literal["kept", "rejected"], np.ndarray], ...] = (("kept", up), ("rejected", down))
    bars = [
        Bar(
            x=i * width / len(up),
            y=base - counts[i] * scale if kind == "kept" else base,
            h=counts[i] * scale,
            kind=kind,
            title=f"{number(float(edges[i]))} to {number(float(edges[i + 1]))} {unit}: {counts[i]:,} {kind}",
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
        bars=bars,
        marks=marks,
        ticks=ticks,
        base=base,
        width=width,
        bar=width / len(up) - 1.5,
        kept=number(median(kept)),
        dropped=number(median(dropped)),
    )


def example(outcome: Outcome, table: pa.Table, row: int, note: str) -> Example:
    """One clip of a table as the page shows it."""
    record = table.slice(row, 1).to_pylist()[0]
    text = str(record.get("text") or "")
    duration = record.get("duration")
    facts = [
        ("DNSMOS", number(record.get("quality.dnsmos_ovr"))),
        ("SNR", number(record.get("quality.snr_db")) + " dB"),
        ("chars/s", number(record.get("transcript.characters_per_second"))),
    ]
    return Example(
        note=note,
        audio=listenable(outcome.out, record),
        cut=duration is not None and duration > EXAMPLE_SECONDS,
        text=visible(text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + " …"),
        clip=visible(record.get("clip_id") or ""),
        language=visible(record.get("language") or "?"),
        duration=amount(duration),
        origin=visible(record.get("origin") or ""),
        value=number(record.get("value")),
        threshold=number(record.get("threshold")),
        facts=[fact for fact in facts if not fact[1].startswith("–")],
    )


def drop_reasons(outcome: Outcome, budget: int) -> list[DropReason]:
    """One entry per (stage, reason), most frequent first, with a borderline, a typical and an extreme example."""
    table = outcome.rejected
    duration, value, threshold = (floats(table, name) for name in ("duration", "value", "threshold"))
    stored = np.asarray([bool(shard) for shard in strings(table, "shard")], dtype=bool)
    by_reason = groups(zip(strings(table, "stage"), strings(table, "reason"), strict=True))
    most = max((len(rows) for rows in by_reason.values()), default=0)
    entries = []
    for (stage, reason), rows in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        candidates = rows[stored[rows]] if stored[rows].any() else rows
        distance = np.abs(value[candidates] - threshold[candidates])
        ranked = bool(np.isfinite(distance).all()) and float(np.ptp(distance)) > 0
        order = candidates[np.argsort(distance, kind="stable")] if ranked else candidates
        chosen = spread(order, min(REASON_EXAMPLES, budget)) if budget else []
        budget -= len(chosen)
        notes = {3: ("borderline", "typical", "extreme"), 2: ("nearest", "farthest")}.get(
            len(chosen), ("",) * len(chosen)
        )
        bars = sorted({float(bar) for bar in threshold[rows] if math.isfinite(bar)})
        if not bars:
            shown = "–"
        else:
            shown = number(bars[0]) if len(bars) == 1 else f"{number(bars[0])} to {number(bars[-1])}"
        entries.append(
            DropReason(
                stage=visible(stage),
                reason=visible(reason),
                count=len(rows),
                share=percent(len(rows), most),
                seconds=total(duration[rows]),
                value=number(median(value[rows])),
                threshold=shown,
                examples=[example(outcome, table, row, notes[i] if ranked else "") for i, row in enumerate(chosen)],
            )
        )
    return entries


def funnel(outcome: Outcome) -> list[FunnelRow]:
    """From recordings in to clips kept; every stage's seconds appear on exactly one row, so they add up."""
    recordings, rejected = outcome.recordings, outcome.rejected
    states, lengths = np.asarray(strings(recordings, "state"), dtype=object), floats(recordings, "duration")
    readable = states != "unreadable"
    distinct = readable & (states != "duplicate")
    with_speech = distinct & (np.nan_to_num(floats(recordings, "num_clips")) > 0)
    dropped, dropped_by = floats(rejected, "duration"), groups(strings(rejected, "stage"))
    kept_seconds = total(floats(outcome.clips, "duration"))
    left, seconds_left = outcome.clips.num_rows + len(dropped), kept_seconds + total(dropped)

    steps: list[tuple[str, str, int, Literal["recordings", "clips"], float]] = [
        ("in", "Recordings in", len(states), "recordings", total(lengths)),
        ("readable", "Readable", int(readable.sum()), "recordings", total(lengths[readable])),
        ("distinct", "Not a duplicate", int(distinct.sum()), "recordings", total(lengths[distinct])),
        ("speech", "With speech", int(with_speech.sum()), "recordings", total(lengths[with_speech])),
        ("clips", "Clips found", left, "clips", seconds_left),
    ]
    order = list(StageName)
    # What the last of these drops leaves what was kept.
    for name in sorted(dropped_by, key=lambda name: order.index(StageName(name)))[:-1]:
        left, seconds_left = left - len(dropped_by[name]), seconds_left - total(dropped[dropped_by[name]])
        steps.append((f"stage:{name}", f"After {name}", left, "clips", max(0.0, seconds_left)))
    steps.append(("kept", "Clips kept", outcome.clips.num_rows, "clips", kept_seconds))

    costs = _costs_by_step(outcome.run.get("stages") or [], {key for key, *_ in steps})
    return [
        FunnelRow(
            key=key,
            label=label,
            count=count,
            unit=unit,
            seconds=seconds,
            share=percent(seconds, total(lengths)),
            compute=sum(float(cost["seconds"]) for cost in costs[key]) if costs[key] else None,
            stages=", ".join(cost["name"] for cost in costs[key]),
        )
        for key, label, count, unit, seconds in steps
    ]


def _costs_by_step(stages: list[StageCost], keys: set[str]) -> dict[str, list[StageCost]]:
    """Every stage's cost under the step that it leads to, in the stages' order."""
    costs: dict[str, list[StageCost]] = {key: [] for key in keys}
    order = list(StageName)
    # Backwards, so that a stage that drops no clip itself counts towards the next one that does.
    after = "kept"
    for cost in sorted(stages, key=lambda cost: order.index(StageName(cost["name"])), reverse=True):
        step: str = StageName(cost["name"]).funnel_step
        if step == "kept":
            after = step = f"stage:{cost['name']}" if f"stage:{cost['name']}" in keys else after
        costs[step].insert(0, cost)
    return costs


def recording_ends(outcome: Outcome) -> RecordingEnds:
    """How every recording ended: counts by state and reason, and each one that was not kept."""
    table = outcome.recordings
    states, reasons, stages = (strings(table, name) for name in ("state", "reason", "stage"))
    lengths = floats(table, "duration")
    rank = {"kept": 0, "rejected": 1, "duplicate": 2, "unreadable": 3}
    counted = sorted(
        groups(zip(states, stages, reasons, strict=True)).items(),
        key=lambda item: (rank.get(item[0][0], 9), -len(item[1])),
    )
    lost = [row for row, state in enumerate(states) if state != "kept"]
    listed = table.take(pa.array(lost[:MAX_LISTED], pa.int64())).to_pylist()
    return RecordingEnds(
        counts=[
            EndCount(
                state=visible(state),
                stage=visible(stage),
                reason=visible(reason),
                count=len(rows),
                seconds=total(lengths[rows]),
                share=percent(len(rows), table.num_rows),
            )
            for (state, stage, reason), rows in counted
        ],
        lost=[
            LostRecording(
                path=visible(row.get("path") or ""),
                state=visible(row.get("state") or ""),
                stage=visible(row.get("stage") or ""),
                reason=visible(row.get("reason") or ""),
                detail=visible(row.get("detail") or ""),
                value=number(row.get("value")),
                threshold=number(row.get("threshold")),
                duration=amount(row.get("duration")),
            )
            for row in listed
        ],
        unlisted=len(lost) - len(listed),
        num_kept=states.count("kept"),
    )


def stage_costs(run: Run) -> list[CostRow]:
    """Compute of every stage, with its share and its speed."""
    stages = run.get("stages") or []
    seconds = [float(stage["seconds"]) for stage in stages]
    slowest = max(seconds, default=0.0)
    return [
        CostRow(
            name=visible(stage["name"]),
            seconds=spent,
            share=percent(spent, sum(seconds)),
            bar=percent(spent, slowest),
            audio=stage["audio_seconds"],
            calls=number(stage["calls"]),
            slowest=spent == slowest > 0,
            speed=number(stage["audio_seconds"] / spent if spent > 0 else None),
        )
        for stage, spent in zip(stages, seconds, strict=True)
    ]


def write_report(out: Path) -> Path:
    """Writes OUT/report.html and returns its path."""
    outcome = load_outcome(out)
    run, clips = outcome.run, outcome.clips
    ovr = floats(clips, "quality.dnsmos_ovr")
    shown = spread(np.argsort(np.nan_to_num(ovr), kind="stable"), KEPT_EXAMPLES)
    places = (
        ("lowest DNSMOS", *[""] * (len(shown) - 2), "highest DNSMOS")
        if len(shown) > 1 and np.isfinite(ovr).any()
        else ("",)
    )
    kept_seconds, in_seconds = total(floats(clips, "duration")), total(floats(outcome.recordings, "duration"))
    dropped_seconds = total(floats(outcome.rejected, "duration"))
    env = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {"amount": amount, "number": number, "visible": visible}
    page = env.get_template("report.html.j2").render(
        run={key: run.get(key) for key in ("started", "finished", "wall_seconds", "found_done", "seed")},
        kept_seconds=kept_seconds,
        in_seconds=in_seconds,
        dropped_seconds=dropped_seconds,
        kept_share=percent(kept_seconds, in_seconds),
        dropped_share=percent(dropped_seconds, max(in_seconds, kept_seconds + dropped_seconds)),
        outside_seconds=max(0.0, in_seconds - kept_seconds - dropped_seconds),
        num_kept=clips.num_rows,
        num_dropped=outcome.rejected.num_rows,
        num_recordings=outcome.recordings.num_rows,
        num_speakers=len(set(strings(clips, "speaker")) - {""}),
        median_ovr=number(median(ovr)),
        origins=Counter(visible(origin or "unknown") for origin in strings(clips, "origin")).most_common(),
        funnel=funnel(outcome),
        ends=recording_ends(outcome),
        languages=languages(outcome),
        reasons=drop_reasons(outcome, MAX_EXAMPLES - len(shown)),
        kept_examples=[
            example(outcome, clips, row, note) for row, note in zip(shown, [*places, *[""] * len(shown)], strict=False)
        ],
        histograms=[chart for spec in HISTOGRAMS if (chart := histogram(outcome, *spec))],
        separation=run.get("separation") or {},
        control=controllability(outcome),
        listeners=listeners(outcome),
        stages=stage_costs(run),
        models=run.get("models") or [],
        config=yaml.safe_dump(dict(run.get("config") or {}), sort_keys=False, allow_unicode=True),
        versions=sorted((run.get("versions") or {}).items()),
    )
    target = out / "report.html"
    # backslashreplace: a lone surrogate from a broken file name must not cost the whole report.
    write_atomically(target, page.encode("utf-8", "backslashreplace"))
    return target
