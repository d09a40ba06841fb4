"""Gives the clips of a bucket the texts that exist for their recordings."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from annotation.speech.given_text import GivenAlignment, align_given
from annotation.speech.given_words import RecognisedClip
from pipelines.corpus.clips import CorpusClip
from voxmill.data.records import GivenPart, RecordingWarning

OTHER_TEXT = 0.5
"""Agreement over a recording below which the text is taken to be another one's; that of two unrelated texts of one
language is 0.2 to 0.3."""
READ_SHARE = 0.5
"""Where less of a text than this is read, its recording says so."""


def give_texts(
    clips: Iterable[CorpusClip], texts: Mapping[str, Sequence[GivenPart]]
) -> dict[str, tuple[RecordingWarning, ...]]:
    """Gives clips their texts; returns what is wrong with the texts, by recording."""
    channels: dict[tuple[str, int | None], list[CorpusClip]] = {}
    for clip in clips:
        if clip.recording_id in texts:
            channels.setdefault((clip.recording_id, clip.window.channel), []).append(clip)
    alignments: dict[str, list[GivenAlignment]] = {}
    for (recording_id, _), own in channels.items():
        own.sort(key=lambda clip: (clip.candidate.start_sample, clip.candidate.end_sample))
        alignments.setdefault(recording_id, []).append(_give(own, texts[recording_id]))
    return {recording_id: _warnings(found) for recording_id, found in alignments.items()}


def _give(clips: Sequence[CorpusClip], parts: Sequence[GivenPart]) -> GivenAlignment:
    alignment = align_given(
        parts,
        [
            RecognisedClip(start=clip.start, end=clip.end, words=clip.candidate.words, language=clip.candidate.language)
            for clip in clips
        ],
    )
    for clip, text in zip(clips, alignment.clips, strict=True):
        if text is not None:
            clip.recognised_text = clip.candidate.text
            clip.text_source = "given"
            clip.given_agreement = text.agreement
            clip.text_differences = text.differences
            clip.candidate = dataclasses.replace(clip.candidate, text=text.text, words=text.words)
    return alignment


def _warnings(alignments: Sequence[GivenAlignment]) -> tuple[RecordingWarning, ...]:
    """What is wrong with the text of a recording, one alignment a channel."""
    agreement = max(alignment.agreement for alignment in alignments)
    placed = sum(alignment.placed for alignment in alignments)
    if all(text is None for alignment in alignments for text in alignment.clips):
        return (RecordingWarning(kind="text_not_read", detail="its segments lie where no clip is"),)
    if agreement < OTHER_TEXT:
        detail = f"{agreement:.0%} of the characters agree with what is said"
        return (RecordingWarning(kind="text_of_another_recording", detail=detail),)
    if placed < READ_SHARE:
        return (RecordingWarning(kind="text_not_read", detail=f"{placed:.0%} of its words are in clips"),)
    return ()
