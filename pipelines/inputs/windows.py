"""The windows of a recording: cut where it is quiet, or along the clips that its corpus has cut already."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pipelines.config import LabelConfig
from pipelines.inputs.media import ReadChannel, digests_of
from pipelines.inputs.transcripts import is_outside
from voxmill.data.records import (
    GivenPart,
    Hertz,
    Recording,
    RecordingWarning,
    SampleRange,
    SourceInfo,
    StageName,
    Window,
)

if TYPE_CHECKING:
    from pipelines.inputs.bucket_rows import PlanRow

SHORTEST_SECONDS = 0.1
"""Recognisers and measures have no frame of a shorter clip."""
MAX_GAP_SECONDS = 5.0
"""What lies between clips further apart is not read."""


def quiet_windows(row: "PlanRow") -> list[Window]:
    """The windows of a row by channel, cut where it is quiet."""
    return [
        _window(row, one, (start, end), ())
        for one in row.read
        for start, end in zip((0, *one.ends[:-1]), one.ends, strict=True)
    ]


def given_windows(recording: Recording, row: "PlanRow", label: LabelConfig) -> tuple[Recording, list[Window]]:
    """The windows of a row by channel, along the clips that the corpus has; a recording without any ends."""
    assert row.sample_rate is not None and row.num_samples is not None
    ranges, warnings = _clip_ranges(row.parts, row.num_samples, row.sample_rate)
    unread = sum(not any(part.is_on(one.channel) for one in row.read) for part, _ in ranges)
    if unread:
        detail = f"{unread} of {len(ranges)} are on a channel that is not read; see label.channels"
        warnings = (*warnings, RecordingWarning(kind="segment_outside", detail=detail))
    recording = replace(recording, warnings=(*recording.warnings, *warnings))
    longest = round(label.window_seconds * row.sample_rate)
    windows = []
    for one in row.read:
        own = {clip for part, clip in ranges if part.is_on(one.channel)}
        groups = _groups(sorted(own, key=lambda clip: (clip.start, clip.end)), longest, row.sample_rate)
        windows += [_window(row, one, (group[0].start, max(clip.end for clip in group)), group) for group in groups]
    if not windows:
        detail = "none of its segments lies in it"
        return replace(recording, state="rejected", stage=StageName.SCAN, reason="no_segment", detail=detail), []
    return recording, windows


def _window(row: "PlanRow", read: ReadChannel, bounds: tuple[int, int], clips: tuple[SampleRange, ...]) -> Window:
    """A window of a channel; where each channel is a speaker, its name ends in the channel's number."""
    assert row.sample_rate is not None and row.recording_id is not None
    split = len(row.read) > 1
    speaker = f"{row.speaker or row.session or row.name}:channel-{read.channel}" if split else row.speaker
    start, end = bounds
    return Window(
        recording_id=row.recording_id,
        name=row.name,
        path=row.path,
        bytes_offset=row.bytes_offset,
        bytes_size=row.bytes_size,
        row=row.row,
        start_sample=start,
        end_sample=end,
        sample_rate=row.sample_rate,
        channel=read.channel,
        levels=tuple(one.level for one in row.read) if split else (),
        scale=row.scale,
        digests=digests_of(read.digests, start, end),
        clips=clips,
        source=SourceInfo(session=row.session or row.name, speaker=speaker, language=row.language, licence=row.licence),
    )


def _clip_range(part: GivenPart, num_samples: int, rate: Hertz) -> SampleRange:
    """The samples of a part; of one without times those of the recording."""
    if part.start is None or part.end is None:
        return SampleRange(start=0, end=num_samples)
    return SampleRange(start=round(part.start * rate), end=min(round(part.end * rate), num_samples))


def _clip_ranges(
    parts: Sequence[GivenPart], num_samples: int, rate: Hertz
) -> tuple[list[tuple[GivenPart, SampleRange]], tuple[RecordingWarning, ...]]:
    """The clips of a recording, and what is wrong with them; without parts with times the recording is one.

    Those that lie outside the recording are left out, as are repeated ones and such in which nothing can be said.
    """
    timed = [part for part in parts if part.start is not None]
    if not timed:
        whole = SampleRange(start=0, end=num_samples)
        return [(part, whole) for part in parts] or [(GivenPart(text=""), whole)], ()
    inside = [
        (part, _clip_range(part, num_samples, rate)) for part in timed if not is_outside(part, num_samples / rate)
    ]
    long = [(part, clip) for part, clip in inside if clip.end - clip.start >= SHORTEST_SECONDS * rate]
    repeated = len(long) - len({(part.channel, clip) for part, clip in long})
    warnings = []
    if len(long) < len(inside):
        detail = f"{len(inside) - len(long)} of {len(timed)} are shorter than {SHORTEST_SECONDS:g} s"
        warnings.append(RecordingWarning(kind="segment_short", detail=detail))
    if repeated:
        detail = f"{repeated} of {len(timed)} have the times of another one, which counts"
        warnings.append(RecordingWarning(kind="segment_repeated", detail=detail))
    return long, tuple(warnings)


def _groups(ranges: Sequence[SampleRange], longest: int, rate: Hertz) -> list[tuple[SampleRange, ...]]:
    """Clips in groups that a window of at most `longest` samples holds each; a longer clip is alone."""
    groups: list[list[SampleRange]] = []
    end = 0
    for one in ranges:
        own = groups[-1] if groups else []
        fits = own and max(end, one.end) - own[0].start <= longest and one.start - end <= MAX_GAP_SECONDS * rate
        if fits:
            own.append(one)
        else:
            groups.append([one])
            end = 0
        end = max(end, one.end)
    return [tuple(group) for group in groups]
