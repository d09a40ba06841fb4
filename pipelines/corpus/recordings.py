"""How every input of a bucket ended."""

import dataclasses
from collections import Counter
from dataclasses import replace

from pipelines.corpus.collect import CollectedClips
from voxmill.data.records import EndedWindow, Ending, Recording, StageName, WindowResult


def finished_recordings(planned: list[Recording], collected: CollectedClips) -> list[Recording]:
    """One row an input with its one terminal state; files that are no recordings have none."""
    kept = Counter(clip.recording_id for clip in collected.kept)
    rejected: dict[str, list[Ending]] = {}
    for clip in collected.rejected:
        assert clip.ending is not None
        rejected.setdefault(clip.recording_id, []).append(clip.ending)
    return [
        row if row.state != "planned" else _finished(row, collected, kept, rejected.get(row.recording_id or "", []))
        for row in planned
        if row.state != "other"
    ]


def _ended(windows: list[WindowResult]) -> tuple[EndedWindow, ...]:
    """Windows that ended before clips were cut."""
    return tuple(
        EndedWindow(
            start=result.window.start_sample / result.window.sample_rate,
            end=result.window.end_sample / result.window.sample_rate,
            channel=result.window.channel,
            **dataclasses.asdict(result.ending),
        )
        for result in windows
        if result.ending is not None
    )


def _finished(row: Recording, collected: CollectedClips, kept: Counter[str], rejected: list[Ending]) -> Recording:
    assert row.recording_id is not None
    windows = collected.windows[row.recording_id]
    ended = _ended(windows)
    # Where nobody speaks, nothing is lost.
    lost = sum(window.end - window.start for window in ended if window.reason != "no_speech")
    separations = [window.separation for window in windows if window.separation is not None]
    row = replace(
        row,
        num_clips=kept[row.recording_id] + len(rejected),
        num_kept=kept[row.recording_id],
        separated=any(separation.used for separation in separations),
        separation=separations[0].why if separations else None,
        seconds_lost=lost,
        warnings=row.warnings + collected.text_warnings.get(row.recording_id, ()),
        ended_windows=ended,
    )
    if row.num_kept:
        return replace(row, state="kept_in_part" if lost else "kept", stage=StageName.WRITE, reason="kept")
    row = replace(row, state="rejected")
    endings = [window.ending for window in windows if window.ending is not None]
    if len(endings) == len(windows):
        detail = "; ".join(filter(None, [row.detail, endings[0].detail]))
        return replace(_with_ending(row, endings[0]), detail=detail)
    counts = Counter(ending.reason for ending in rejected)
    worst = max(rejected, key=lambda ending: (counts[ending.reason], ending.reason))
    return replace(_with_ending(row, worst), detail=f"all {len(rejected)} clips dropped")


def _with_ending(row: Recording, ending: Ending) -> Recording:
    return replace(row, stage=ending.stage, reason=ending.reason, value=ending.value, threshold=ending.threshold)
