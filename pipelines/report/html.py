"""Turns what an annotation run left on disk into one self-contained HTML page with playable examples."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipelines.report.formatting import amount, number, percent, visible
from pipelines.report.funnel import funnel
from pipelines.report.gallery import controllability, listeners
from pipelines.report.histograms import HISTOGRAMS, histogram
from pipelines.report.previews import EXAMPLE_SECONDS, listenable, spread
from pipelines.report.run_record import Run
from pipelines.report.tables import Outcome, floats, groups, languages, load_outcome, median, strings, total
from voxmill.core.files import write_atomically

KEPT_EXAMPLES = 6
REASON_EXAMPLES = 3
# 15 s of 32 kbit/s Opus is about 80 kB in base64, so the page stays near 10 MB even with forty drop reasons.
MAX_EXAMPLES = 120
# A browser lays out some ten thousand table rows before it stutters; beyond that the Parquet file is the better list.
MAX_LISTED = 10_000
MAX_TEXT = 600


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
