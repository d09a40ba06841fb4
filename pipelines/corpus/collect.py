"""From the finished units of a bucket to clips: collect, give texts, select, number.

Runs no model, is always repeatable.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from annotation.speech.given_text import GivenAlignment, align_given
from annotation.speech.given_words import RecognisedClip
from pipelines.config import AnnotateConfig
from pipelines.corpus.clips import CorpusClip, index_row
from pipelines.corpus.select import apply_thresholds
from pipelines.corpus.trust import wer_fit
from pipelines.units.label_store import LabelStore
from pipelines.units.plan_files import read_texts
from pipelines.units.store import read_unit, unit_path
from voxmill.data.records import (
    Cost,
    Ending,
    GivenPart,
    RecordingWarning,
    ShardPlace,
    StageName,
    VoiceLabels,
    WindowResult,
    WorkUnit,
)

OTHER_TEXT = 0.5
"""Agreement over a recording below which the text is taken to be another one's; that of two unrelated texts of one
language is 0.2 to 0.3."""
READ_SHARE = 0.5
"""Where less of a text than this is read, its recording says so."""


@dataclass
class CollectedClips:
    """What the finished units hold: clips in order, how each window ended, and the compute that each stage took."""

    kept: list[CorpusClip] = field(default_factory=list)
    rejected: list[CorpusClip] = field(default_factory=list)
    windows: dict[str, list[WindowResult]] = field(default_factory=dict)
    """By recording."""
    text_warnings: dict[str, tuple[RecordingWarning, ...]] = field(default_factory=dict)
    """What is wrong with given texts, by recording."""
    costs: dict[StageName, Cost] = field(default_factory=dict)

    def reject(self, clip: CorpusClip, ending: Ending) -> None:
        """Adds a clip to the rejected ones."""
        clip.ending = ending
        self.rejected.append(clip)


def collect(units: list[WorkUnit], out: Path, config: AnnotateConfig) -> CollectedClips:
    """Reads every unit's labels, gives texts that exist, predicts word error rates, applies selection.

    Clips that were met before are dropped (same audio, same bounds).

    Raises:
        JobError: a unit's file or its labels are damaged. UserError: `select.wer_fit` is none.
    """
    collected = CollectedClips()
    fit = wer_fit(config)
    condition = config.select.condition()
    clips: list[CorpusClip] = []
    store = LabelStore(out, config.voice_attributes)
    for planned in units:
        stored = read_unit(unit_path(out, planned.bucket, planned.unit_id))
        voices, costs = store.read(planned.bucket, planned.unit_id)
        unit = stored.unit
        shard = str(unit_path(Path(), planned.bucket, planned.unit_id))
        for name, cost in (unit.costs | costs).items():
            collected.costs[name] = collected.costs.get(name, Cost()) + cost
        for result in unit.results:
            collected.windows.setdefault(result.window.recording_id, []).append(result)
            for candidate in result.clips:
                offset, size = stored.places[candidate.clip_id]
                clip = CorpusClip(
                    candidate=candidate,
                    window=result.window,
                    origin=result.origin(candidate),
                    place=ShardPlace(shard=shard, offset=offset, size=size, sha256=None),
                    voice=voices.get(candidate.clip_id, VoiceLabels()),
                    speaker=result.window.source.speaker,
                )
                clips.append(clip)
    for bucket in sorted({unit.bucket for unit in units}):
        collected.text_warnings |= give_texts(clips, read_texts(out, bucket))
    seen: set[str] = set()
    for clip in clips:
        if fit is not None and clip.text_source == "recognised" and clip.candidate.text.strip():
            clip.predicted_wer = fit.predict(clip.candidate, clip.duration)
        ending = apply_thresholds(clip, config.select)
        if ending is None and condition is not None and not condition(index_row(clip)):
            ending = Ending(stage=StageName.SELECTION, reason="where")
        if ending is None and clip.clip_id in seen:
            ending = Ending(stage=StageName.SELECTION, reason="duplicate_clip")
        if ending is None:
            seen.add(clip.clip_id)
            collected.kept.append(clip)
        else:
            collected.reject(clip, ending)
    return collected


def number(collected: CollectedClips) -> None:
    """Sorts the kept clips by session and time and gives each its position in the session."""
    collected.kept.sort(key=lambda clip: clip.order)
    position: dict[str, int] = {}
    for clip in collected.kept:
        clip.position = position.get(clip.session, 0)
        position[clip.session] = clip.position + 1


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
