"""Turns what an annotation run left on disk into one self-contained HTML page with playable examples."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.ticker import MaxNLocator

from pipelines.report.card import (
    Outcome,
    amount,
    floats,
    groups,
    languages,
    leaves,
    load_outcome,
    median,
    number,
    percent,
    strings,
    total,
    visible,
)
from pipelines.report.gallery import controllability, listeners
from pipelines.report.previews import EXAMPLE_SECONDS, listenable, spread

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
# Which step of the funnel a stage's time belongs to, by the words a stage is likely named with.
STAGE_STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("readable", ("scan", "probe", "decode", "read", "ingest", "discover", "load")),
    ("distinct", ("dup", "fingerprint", "hash")),
    ("speech", ("vad", "speech", "event", "music", "activity")),
    ("found", ("diari", "segment", "separat", "cut", "split", "clip", "overlap", "demucs")),
)


def limits(config: Mapping[str, Any], aliases: tuple[str, ...]) -> list[tuple[str, float]]:
    """The thresholds config.select sets on one measure, as (min|max, value)."""
    found = []
    for path, value in leaves(config.get("select")):
        side, _, rest = path.rpartition(".")[2].partition("_")
        plain = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if plain and side in ("min", "max") and rest in aliases:
            found.append((side, float(value)))  # type: ignore[arg-type]
    return found


def histogram(outcome: Outcome, title: str, unit: str, column: str, aliases: tuple[str, ...]) -> dict[str, Any] | None:
    """Bars of kept (upwards) and rejected (downwards) clips as SVG coordinates, or None where nothing was measured."""
    kept, dropped = (
        values[np.isfinite(values)] for values in (floats(outcome.clips, column), floats(outcome.rejected, column))
    )
    both = np.concatenate([kept, dropped])
    if not both.size:
        return None
    lines = limits(outcome.run.get("config") or {}, aliases)
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

    bars = []
    for kind, counts in (("kept", up), ("rejected", down)):
        for i in np.flatnonzero(counts):
            height = counts[i] * scale
            told = f"{number(float(edges[i]))} to {number(float(edges[i + 1]))} {unit}: {counts[i]:,} {kind}"
            top = base - height if kind == "kept" else base
            bars.append({"x": i * width / len(up), "y": top, "h": height, "kind": kind, "title": told})
    marks = [
        {
            "x": place(value),
            "text": f"{'≥' if side == 'min' else '≤'} {number(value)}",
            "end": place(value) > width * 0.75,
        }
        for side, value in lines
        if low <= value <= high
    ]
    ticks = [
        {"x": place(float(value)), "text": number(float(value))}
        for value in MaxNLocator(5).tick_values(low, high)
        if low <= value <= high
    ]
    return {
        "title": title,
        "unit": unit,
        "bars": bars,
        "marks": marks,
        "ticks": ticks,
        "base": base,
        "width": width,
        "bar": width / len(up) - 1.5,
        "kept": number(median(kept)),
        "dropped": number(median(dropped)),
    }


def example(outcome: Outcome, table: pa.Table, row: int, note: str) -> dict[str, Any]:
    record = table.slice(row, 1).to_pylist()[0]
    text = str(record.get("text") or "")
    duration = record.get("duration")
    facts = [
        ("DNSMOS", number(record.get("quality.dnsmos_ovr"))),
        ("SNR", number(record.get("quality.snr_db")) + " dB"),
        ("chars/s", number(record.get("transcript.characters_per_second"))),
    ]
    return {
        "note": note,
        "audio": listenable(outcome.out, record),
        "cut": duration is not None and duration > EXAMPLE_SECONDS,
        "text": visible(text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + " …"),
        "clip": visible(record.get("clip_id") or ""),
        "language": visible(record.get("language") or "?"),
        "duration": amount(duration),
        "origin": visible(record.get("origin") or ""),
        "value": number(record.get("value")),
        "threshold": number(record.get("threshold")),
        "facts": [fact for fact in facts if not fact[1].startswith("–")],
    }


def drop_reasons(outcome: Outcome, budget: int) -> list[dict[str, Any]]:
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
        entries.append(
            {
                "stage": visible(stage),
                "reason": visible(reason),
                "count": len(rows),
                "share": percent(len(rows), most),
                "seconds": total(duration[rows]),
                "value": number(median(value[rows])),
                "threshold": number(bars[0])
                if len(bars) == 1
                else f"{number(bars[0])} to {number(bars[-1])}"
                if bars
                else "–",
                "examples": [example(outcome, table, row, notes[i] if ranked else "") for i, row in enumerate(chosen)],
            }
        )
    return entries


def funnel(outcome: Outcome) -> list[dict[str, Any]]:
    """From recordings in to clips kept; every stage's seconds appear on exactly one row, so they add up."""
    recordings, stages = outcome.recordings, outcome.run.get("stages") or []
    states, lengths = np.asarray(strings(recordings, "state"), dtype=object), floats(recordings, "duration")
    clips_in = floats(recordings, "num_clips")
    readable = states != "unreadable"
    distinct = readable & (states != "duplicate")
    with_speech = distinct & (np.nan_to_num(clips_in) > 0)
    dropped, dropped_stage = floats(outcome.rejected, "duration"), groups(strings(outcome.rejected, "stage"))
    left, seconds_left = (
        outcome.clips.num_rows + len(dropped),
        total(floats(outcome.clips, "duration")) + total(dropped),
    )

    rows: list[dict[str, Any]] = []

    def add(key: str, label: str, count: int, unit: str, seconds: float) -> None:
        rows.append({"key": key, "label": label, "count": count, "unit": unit, "seconds": seconds})

    add("in", "Recordings in", len(states), "recordings", total(lengths))
    for key, label, mask in (
        ("readable", "Readable", readable),
        ("distinct", "Not a duplicate", distinct),
        ("speech", "With speech", with_speech),
    ):
        add(key, label, int(mask.sum()), "recordings", total(lengths[mask]))
    add("found", "Clips found", left, "clips", seconds_left)
    order = {str(stage.get("name")): place for place, stage in enumerate(stages)}
    filters = sorted(dropped_stage, key=lambda name: order.get(name, len(order)))
    for name in filters[:-1]:
        left, seconds_left = left - len(dropped_stage[name]), seconds_left - total(dropped[dropped_stage[name]])
        add(f"stage:{name}", f"After {visible(name)}", left, "clips", max(0.0, seconds_left))
    add("kept", "Clips kept", outcome.clips.num_rows, "clips", total(floats(outcome.clips, "duration")))

    spent: dict[str, list[tuple[str, float]]] = {row["key"]: [] for row in rows}
    # Backwards, so that a stage which drops nothing itself counts towards the next one that does.
    after = "kept"
    for stage in reversed(stages):
        name = str(stage.get("name"))
        after = f"stage:{name}" if f"stage:{name}" in spent else after
        early = next((step for step, words in STAGE_STEPS if any(word in name.lower() for word in words)), after)
        step = after if name in filters else early
        spent[step].insert(0, (visible(name), float(stage.get("seconds") or 0)))
    for row in rows:
        times = spent[row["key"]]
        row |= {
            "share": percent(row["seconds"], rows[0]["seconds"]),
            "compute": sum(t for _, t in times) if times else None,
            "stages": ", ".join(name for name, _ in times),
        }
    return rows


def recording_ends(outcome: Outcome) -> dict[str, Any]:
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
    return {
        "counts": [
            {
                "state": visible(state),
                "stage": visible(stage),
                "reason": visible(reason),
                "count": len(rows),
                "seconds": total(lengths[rows]),
                "share": percent(len(rows), table.num_rows),
            }
            for (state, stage, reason), rows in counted
        ],
        "lost": [
            {name: visible(row.get(name) or "") for name in ("path", "state", "stage", "reason", "detail")}
            | {
                "value": number(row.get("value")),
                "threshold": number(row.get("threshold")),
                "duration": amount(row.get("duration")),
            }
            for row in listed
        ],
        "unlisted": len(lost) - len(listed),
        "num_kept": states.count("kept"),
    }


def stage_costs(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    stages = run.get("stages") or []
    seconds = [float(stage.get("seconds") or 0) for stage in stages]
    slowest = max(seconds, default=0.0)
    return [
        {
            "name": visible(stage.get("name")),
            "seconds": spent,
            "share": percent(spent, sum(seconds)),
            "bar": percent(spent, slowest),
            "audio": stage.get("audio_seconds"),
            "calls": number(stage.get("calls")),
            "slowest": spent == slowest > 0,
            "speed": number(float(stage.get("audio_seconds") or 0) / spent if spent > 0 else None),
        }
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
        config=yaml.safe_dump(run.get("config") or {}, sort_keys=False, allow_unicode=True),
        versions=sorted((run.get("versions") or {}).items()),
    )
    target = out / "report.html"
    partial = target.with_suffix(".html.partial")
    # backslashreplace: a lone surrogate from a broken file name must not cost the whole report.
    partial.write_bytes(page.encode("utf-8", "backslashreplace"))
    os.replace(partial, target)
    return target
