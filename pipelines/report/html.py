"""Turns what an annotation run left on disk into one self-contained HTML page with playable examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipelines.report.bucket_summary import (
    DNSMOS,
    GRIDS,
    BucketSummary,
    ClipExample,
    DroppedSummary,
    NamedRecording,
)
from pipelines.report.correct.page import correcting
from pipelines.report.formatting import amount, number, percent, visible
from pipelines.report.funnel import funnel
from pipelines.report.gallery import controllability, listeners
from pipelines.report.grids import rough_median
from pipelines.report.histograms import histograms
from pipelines.report.previews import EXAMPLE_SECONDS, listenable, nearest_values
from pipelines.report.run_record import Run
from pipelines.report.tables import Outcome, languages, load_outcome, spoken_kinds
from pipelines.report.trust import trust
from voxmill.core.files import write_atomically
from voxmill.data.records import KEPT_STATES

KEPT_EXAMPLES = 6
# 15 s of 32 kbit/s Opus is about 80 kB in base64, so the page stays near 10 MB even with forty drop reasons.
MAX_EXAMPLES = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A clip to listen to. `cut`: longer than what is played here; `facts`: (name, value) of a few measures."""

    note: str
    audio: str | None
    cut: bool
    text: str
    clip: str
    path: str
    start: str
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
class LostRow:
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
class NotedRow:
    """A warning, or why windows were lost: how often, and (path, detail) of the first recordings."""

    what: str
    count: int
    seconds: float | None
    named: list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingEnds:
    """How recordings ended: counted, and the first of those that were lost; `unlisted` more were lost.

    warned: recordings that were kept with a warning.
    """

    counts: list[EndCount]
    lost: list[LostRow]
    unlisted: int
    num_kept: int
    warned: int
    warnings: list[NotedRow]
    ended_windows: list[NotedRow]


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


def example(outcome: Outcome, clip: ClipExample, note: str) -> Example:
    """One clip as the page shows it."""
    facts = [
        ("DNSMOS", number(clip.dnsmos_ovr)),
        ("SNR", number(clip.snr_db) + " dB"),
        ("chars/s", number(clip.characters_per_second)),
        ("predicted WER", number(clip.predicted_wer)),
    ]
    return Example(
        note=note,
        audio=listenable(outcome.out, clip.shard, clip.offset, clip.size),
        cut=clip.duration is not None and clip.duration > EXAMPLE_SECONDS,
        text=visible(clip.text),
        clip=visible(clip.clip_id),
        path=visible(clip.path),
        start=number(clip.start),
        language=visible(clip.language or "?"),
        duration=amount(clip.duration),
        origin=visible(clip.origin),
        value=number(clip.value),
        threshold=number(clip.threshold),
        facts=[fact for fact in facts if not fact[1].startswith("–")],
    )


def kept_examples(outcome: Outcome) -> list[Example]:
    """Kept clips evenly spread from the lowest to the highest DNSMOS."""
    summary = outcome.summary
    counts = summary.measure(DNSMOS).kept
    targets = [GRIDS[DNSMOS].quantile(counts, i / (KEPT_EXAMPLES - 1)) for i in range(KEPT_EXAMPLES)]
    shown = [summary.examples[i] for i in nearest_values([clip.dnsmos_ovr for clip in summary.examples], targets)]
    notes = [""] * len(shown)
    if len(shown) > 1 and counts.total:
        notes[0], notes[-1] = "lowest DNSMOS", "highest DNSMOS"
    return [example(outcome, clip, note) for clip, note in zip(shown, notes, strict=True)]


def drop_reasons(outcome: Outcome, budget: int) -> list[DropReason]:
    """One entry per (stage, reason), most frequent first, with a borderline, a drawn and an extreme example."""
    dropped = sorted(outcome.summary.dropped, key=lambda row: -row.clips.count)
    most = max((row.clips.count for row in dropped), default=0)
    entries = []
    for row in dropped:
        chosen = _examples_of(row)[:budget]
        budget -= len(chosen)
        middle = rough_median(dict(row.values))
        if middle is not None and row.min_value is not None and row.max_value is not None:
            middle = min(max(middle, row.min_value), row.max_value)
        if row.min_threshold == row.max_threshold:
            shown = number(row.min_threshold)
        else:
            shown = f"{number(row.min_threshold)} to {number(row.max_threshold)}"
        entries.append(
            DropReason(
                stage=visible(row.stage),
                reason=visible(row.reason),
                count=row.clips.count,
                share=percent(row.clips.count, most),
                seconds=row.clips.seconds,
                value=number(middle),
                threshold=shown,
                examples=[example(outcome, clip, note) for clip, note in chosen],
            )
        )
    return entries


def _examples_of(row: DroppedSummary) -> list[tuple[ClipExample, str]]:
    """Examples of a reason with their notes; drawn ones alone where no distance to a threshold ranks them."""
    nearest, farthest = row.nearest, row.farthest
    if nearest is None or farthest is None or nearest.distance == farthest.distance:
        return [(clip, "") for clip in row.drawn]
    between = next((clip for clip in row.drawn if clip not in (nearest, farthest)), None)
    if between is None:
        return [(nearest, "nearest"), (farthest, "farthest")]
    return [(nearest, "borderline"), (between, "at random"), (farthest, "extreme")]


def recording_ends(outcome: Outcome) -> RecordingEnds:
    """How every recording ended: counts by state and reason, and the first ones that were not kept."""
    summary = outcome.summary
    rank = {"kept": 0, "kept_in_part": 1, "rejected": 2, "duplicate": 3, "unreadable": 4}
    counted = sorted(summary.ends, key=lambda row: (rank.get(row.state, 9), -row.recordings.count))
    return RecordingEnds(
        counts=[
            EndCount(
                state=visible(row.state),
                stage=visible(row.stage),
                reason=visible(row.reason),
                count=row.recordings.count,
                seconds=row.recordings.seconds,
                share=percent(row.recordings.count, summary.recordings.count),
            )
            for row in counted
        ],
        lost=[
            LostRow(
                path=visible(row.path),
                state=visible(row.state),
                stage=visible(row.stage),
                reason=visible(row.reason),
                detail=visible(row.detail),
                value=number(row.value),
                threshold=number(row.threshold),
                duration=amount(row.duration),
            )
            for row in summary.lost
        ],
        unlisted=summary.num_lost - len(summary.lost),
        num_kept=summary.num_in_state(*KEPT_STATES),
        warned=summary.warned,
        warnings=[
            NotedRow(what=visible(row.kind), count=row.recordings, seconds=None, named=_named(row.named))
            for row in sorted(summary.warnings, key=lambda row: -row.recordings)
        ],
        ended_windows=[
            NotedRow(
                what=f"{visible(row.reason)} in {visible(row.stage)}",
                count=row.windows.count,
                seconds=row.windows.seconds,
                named=_named(row.named),
            )
            for row in sorted(summary.ended_windows, key=lambda row: -row.windows.microseconds)
        ],
    )


def _named(rows: Sequence[NamedRecording]) -> list[tuple[str, str]]:
    return [(visible(row.path), visible(row.detail)) for row in rows]


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


def _voices(run: Run, num_speakers: int) -> int | None:
    """Voices across sessions, where speakers have names of sessions of which not all are different voices."""
    found = (run.get("corpus_labels") or {}).get("speakers")
    if not found or found.get("sampled_clusters") != found["clusters"] or found["sampled_voices"] >= num_speakers:
        return None
    return found["sampled_voices"]


def write_report(out: Path, summary: BucketSummary | None = None) -> Path:
    """Writes OUT/report.html and returns its path.

    Args:
        summary: of all buckets; made from the indexes where it is not given.

    Raises:
        UserError: an index is not there or cannot be read, or `run.json` is of an older voxmill.
    """
    outcome = load_outcome(out, summary)
    run, summary = outcome.run, outcome.summary
    kept, in_seconds = summary.kept, summary.recordings.seconds
    dropped_seconds = summary.rejected.seconds
    shown, control = kept_examples(outcome), controllability(outcome)
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
        kept_seconds=kept.seconds,
        in_seconds=in_seconds,
        dropped_seconds=dropped_seconds,
        kept_share=percent(kept.seconds, in_seconds),
        dropped_share=percent(dropped_seconds, max(in_seconds, kept.seconds + dropped_seconds)),
        outside_seconds=max(0.0, in_seconds - kept.seconds - dropped_seconds),
        num_kept=kept.count,
        num_dropped=summary.rejected.count,
        num_recordings=summary.recordings.count,
        num_speakers=summary.num_speakers,
        num_voices=_voices(run, summary.num_speakers),
        median_ovr=number(GRIDS[DNSMOS].quantile(summary.measure(DNSMOS).kept, 0.5)),
        origins=[
            (visible(row.name or "unknown"), row.clips.count)
            for row in sorted(summary.origins, key=lambda row: -row.clips.count)
        ],
        funnel=funnel(outcome),
        ends=recording_ends(outcome),
        other_files=run.get("other_files") or {"count": 0, "examples": []},
        languages=languages(outcome),
        kinds=spoken_kinds(outcome),
        reasons=drop_reasons(outcome, MAX_EXAMPLES - len(shown)),
        kept_examples=shown,
        histograms=histograms(outcome),
        separation=run.get("separation") or {},
        twice=run.get("second_decodings") or {},
        trust=trust(run),
        correct=correcting(outcome),
        control=control,
        listeners=listeners(outcome) if control is not None else None,
        stages=stage_costs(run),
        models=run.get("models") or [],
        config=yaml.safe_dump(dict(run.get("config") or {}), sort_keys=False, allow_unicode=True),
        versions=sorted((run.get("versions") or {}).items()),
    )
    target = out / "report.html"
    # backslashreplace: a lone surrogate from a broken file name must not cost the whole report.
    write_atomically(target, page.encode("utf-8", "backslashreplace"))
    return target
