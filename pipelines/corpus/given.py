"""Gives the clips of a bucket the texts and labels that exist for their recordings, and for parts of these."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

from annotation.speech.given_text import ClipText, GivenAlignment, align_given
from annotation.speech.given_words import RecognisedClip
from pipelines.corpus.clips import CorpusClip
from pipelines.inputs.transcripts import OUTSIDE_SECONDS, has_words
from pipelines.units.plan_files import GivenRecording
from voxmill.data.records import (
    Candidate,
    GivenLabels,
    GivenPart,
    RecordingWarning,
    Seconds,
    TextDifference,
)
from voxmill.data.scripts import one_line

OTHER_TEXT = 0.5
"""Agreement over a recording below which the text is taken to be another one's; that of two unrelated texts of one
language is 0.2 to 0.3."""
READ_SHARE = 0.5
"""Where less of a text than this is read, its recording says so."""
_FIELDS = tuple(field.name for field in dataclasses.fields(GivenLabels))


class _OwnParts:
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


# ---- labels


def give_labels(clips: Iterable[CorpusClip], given: Mapping[str, GivenRecording]) -> None:
    """Gives clips their labels and speakers; where a clip is from several parts, what all of them say."""
    parts: dict[tuple[str, int | None], _OwnParts] = {}
    for clip in clips:
        known = given.get(clip.recording_id)
        if known is None:
            continue
        key = clip.recording_id, clip.window.channel
        if key not in parts:
            parts[key] = _OwnParts([part for part in known.parts if part.is_on(clip.window.channel)])
        own = parts[key].around(clip)
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


# ---- texts


def give_texts(
    clips: Iterable[CorpusClip], given: Mapping[str, GivenRecording]
) -> dict[str, tuple[RecordingWarning, ...]]:
    """Gives clips their texts; returns what is wrong with the texts, by recording."""
    channels: dict[tuple[str, int | None], list[CorpusClip]] = {}
    told = {name for name, known in given.items() if any(has_words(part.text) for part in known.parts)}
    for clip in clips:
        if clip.recording_id in told:
            channels.setdefault((clip.recording_id, clip.window.channel), []).append(clip)
    alignments: dict[str, list[GivenAlignment]] = {}
    for (recording_id, channel), own in channels.items():
        own.sort(key=lambda clip: (clip.candidate.start_sample, clip.candidate.end_sample))
        parts = [part for part in given[recording_id].parts if part.is_on(channel)]
        found = alignments.setdefault(recording_id, [])
        # On a channel of which no text is known what was recognised counts.
        if any(has_words(part.text) for part in parts):
            found.append(_give(own, parts))
    return {recording_id: _warnings(found) for recording_id, found in alignments.items()}


def _give(clips: Sequence[CorpusClip], parts: Sequence[GivenPart]) -> GivenAlignment:
    if clips[0].window.clips:
        alignment = _apart(clips, _OwnParts(parts))
    else:
        worded = [part for part in parts if has_words(part.text)]
        alignment = align_given(worded, [_recognised(clip) for clip in clips])
    for clip, text in zip(clips, alignment.clips, strict=True):
        if text is not None:
            clip.recognised_text = clip.candidate.text
            clip.text_source = "given"
            clip.given_agreement = text.agreement
            clip.text_differences = text.differences
            clip.candidate = dataclasses.replace(clip.candidate, text=text.text, words=text.words)
    return alignment


def _recognised(clip: CorpusClip) -> RecognisedClip:
    candidate = clip.candidate
    return RecognisedClip(start=clip.start, end=clip.end, words=candidate.words, language=candidate.language)


def _apart(clips: Sequence[CorpusClip], parts: _OwnParts) -> GivenAlignment:
    """Clips that the corpus has cut, each with the whole text that is given for it."""
    texts: list[ClipText | None] = []
    weighed, total = 0.0, 0
    for clip in clips:
        part = parts.of(clip)
        text = _whole(part, clip) if part is not None and has_words(part.text) else None
        texts.append(text)
        if text is not None:
            weighed += text.agreement * len(text.text)
            total += len(text.text)
    return GivenAlignment(clips=tuple(texts), agreement=weighed / total if total else 0.0, placed=1.0)


def _whole(part: GivenPart, clip: CorpusClip) -> ClipText:
    """The text of a clip, also where a part of it was not recognised: such a part is a difference."""
    alignment = align_given([GivenPart(text=part.text)], [_recognised(clip)])
    placed, whole = alignment.clips[0], one_line(part.text)
    assert placed is not None
    before, _, after = whole.partition(placed.text) if placed.text else (whole, "", "")
    first = placed.words[0].start if placed.words else clip.duration
    last = placed.words[-1].end if placed.words else clip.duration
    return dataclasses.replace(
        placed,
        text=whole,
        agreement=placed.agreement * len(placed.text) / len(whole),
        differences=(*_unread(before, 0.0, first), *placed.differences, *_unread(after, last, clip.duration)),
    )


def _unread(text: str, start: Seconds, end: Seconds) -> Iterator[TextDifference]:
    if has_words(text):
        yield TextDifference(
            kind="missing",
            given=text.strip().lower(),
            recognised="",
            start=round(start, 3),
            end=round(max(start, end), 3),
            similarity=0.0,
            likely=True,
        )


def _warnings(alignments: Sequence[GivenAlignment]) -> tuple[RecordingWarning, ...]:
    """What is wrong with the text of a recording, one alignment a channel."""
    if all(text is None for alignment in alignments for text in alignment.clips):
        return (RecordingWarning(kind="text_not_read", detail="its segments lie where no clip is"),)
    agreement = max(alignment.agreement for alignment in alignments)
    placed = sum(alignment.placed for alignment in alignments)
    if agreement < OTHER_TEXT:
        detail = f"{agreement:.0%} of the characters agree with what is said"
        return (RecordingWarning(kind="text_of_another_recording", detail=detail),)
    if placed < READ_SHARE:
        return (RecordingWarning(kind="text_not_read", detail=f"{placed:.0%} of its words are in clips"),)
    return ()
