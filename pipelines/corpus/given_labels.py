"""Gives the clips of a bucket what their corpus says of their recording, and of the parts that they are from."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from pipelines.corpus.clips import CorpusClip
from pipelines.inputs.transcripts import OUTSIDE_SECONDS
from pipelines.units.plan_files import GivenRecording
from voxmill.data.records import Candidate, GivenLabels, GivenPart

_FIELDS = tuple(field.name for field in dataclasses.fields(GivenLabels))


class OwnParts:
    """Parts of a recording by the clips that they are, or lie in."""

    def __init__(self, parts: Sequence[GivenPart]) -> None:
        self._timed = [part for part in parts if part.start is not None]
        self._whole = next((part for part in parts if part.start is None), None)
        self._by_start: dict[int, list[GivenPart]] = {}
        self._rate = 0

    def of(self, clip: CorpusClip) -> GivenPart | None:
        """The part that a clip is, which was kept as it is."""
        if not self._timed:
            return self._whole
        candidate = clip.candidate
        if self._rate != clip.window.sample_rate:
            self._rate, self._by_start = clip.window.sample_rate, {}
            for part in self._timed:
                self._by_start.setdefault(round((part.start or 0.0) * self._rate), []).append(part)
        own = self._by_start.get(candidate.start_sample, [])
        nearest = min(own, key=lambda part: self._past(part, candidate), default=None)
        # A clip ends with its recording where its part goes on for a moment.
        is_own = nearest is not None and self._past(nearest, candidate) <= OUTSIDE_SECONDS * self._rate
        return nearest if is_own else None

    def _past(self, part: GivenPart, candidate: Candidate) -> float:
        """Samples between the ends of a part and of a clip."""
        return abs((part.end or 0.0) * self._rate - candidate.end_sample)

    def around(self, clip: CorpusClip) -> list[GivenPart]:
        """The parts that a clip was cut from: they share half of the shorter of both."""
        if clip.window.clips:
            own = self.of(clip)
            return [] if own is None else [own]
        return [part for part in self._timed if _is_of(part, clip)]


def _is_of(part: GivenPart, clip: CorpusClip) -> bool:
    assert part.start is not None and part.end is not None
    shared = min(part.end, clip.end) - max(part.start, clip.start)
    return shared > 0.5 * min(part.end - part.start, clip.duration)


def give_labels(clips: Iterable[CorpusClip], given: Mapping[str, GivenRecording]) -> None:
    """Gives clips their labels and speakers; where a clip is from several parts, what all of them say."""
    parts: dict[str, OwnParts] = {}
    for clip in clips:
        known = given.get(clip.recording_id)
        if known is None:
            continue
        if clip.recording_id not in parts:
            parts[clip.recording_id] = OwnParts(known.parts)
        own = parts[clip.recording_id].around(clip)
        clip.given = _merged(known.labels, [part.labels for part in own])
        speakers = {part.speaker for part in own}
        if len(speakers) == 1 and None not in speakers and not clip.window.levels:
            clip.speaker = speakers.pop()


def _merged(of_recording: GivenLabels | None, of_parts: Sequence[GivenLabels | None]) -> GivenLabels | None:
    """What all parts say, else what is said of the recording."""
    values: dict[str, str | None] = {}
    for name in _FIELDS:
        found = {None if labels is None else getattr(labels, name) for labels in of_parts}
        only = found.pop() if len(found) == 1 else None
        values[name] = only or (None if of_recording is None else getattr(of_recording, name))
    merged = GivenLabels(**values)
    return None if merged == GivenLabels() else merged
