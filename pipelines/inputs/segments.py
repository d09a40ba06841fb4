"""Clips that a corpus has cut already, as samples of their recording, and windows along them."""

from collections.abc import Sequence

from pipelines.inputs.transcripts import is_outside
from voxmill.data.records import GivenPart, Hertz, RecordingWarning, SampleRange

SHORTEST_SECONDS = 0.1
"""Recognisers and measures have no frame of a shorter clip."""
MAX_GAP_SECONDS = 5.0
"""What lies between clips further apart is not read."""


def clip_range(part: GivenPart, num_samples: int, rate: Hertz) -> SampleRange:
    """The samples of a part; of one without times those of the recording."""
    if part.start is None or part.end is None:
        return SampleRange(start=0, end=num_samples)
    return SampleRange(start=round(part.start * rate), end=min(round(part.end * rate), num_samples))


def clip_ranges(
    parts: Sequence[GivenPart], num_samples: int, rate: Hertz
) -> tuple[list[SampleRange], tuple[RecordingWarning, ...]]:
    """The clips of a recording in order, and what is wrong with them; without parts with times the recording is one.

    Those that lie outside the recording are left out, as are repeated ones and such in which nothing can be said.
    """
    timed = [part for part in parts if part.start is not None]
    if not timed:
        return [SampleRange(start=0, end=num_samples)], ()
    inside = [clip_range(part, num_samples, rate) for part in timed if not is_outside(part, num_samples / rate)]
    long = [one for one in inside if one.end - one.start >= SHORTEST_SECONDS * rate]
    ranges = sorted(set(long), key=lambda one: (one.start, one.end))
    warnings = []
    if len(long) < len(inside):
        detail = f"{len(inside) - len(long)} of {len(timed)} are shorter than {SHORTEST_SECONDS:g} s"
        warnings.append(RecordingWarning(kind="segment_short", detail=detail))
    if len(ranges) < len(long):
        detail = f"{len(long) - len(ranges)} of {len(timed)} have the times of another one, which counts"
        warnings.append(RecordingWarning(kind="segment_repeated", detail=detail))
    return ranges, tuple(warnings)


def windows_along(ranges: Sequence[SampleRange], longest: int, rate: Hertz) -> list[tuple[SampleRange, ...]]:
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
