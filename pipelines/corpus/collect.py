"""From the finished units of a bucket to clips: collect, give texts, correct, select, number.

Runs no model, is always repeatable.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.config import AnnotateConfig, TextsConfig
from pipelines.corpus.clips import CorpusClip, index_row
from pipelines.corpus.corrections.csv_file import in_force
from pipelines.corpus.corrections.on_clips import correct
from pipelines.corpus.given import give_labels, give_texts
from pipelines.corpus.select import LongClips, apply_thresholds
from pipelines.corpus.trust import fits, wer_fit
from pipelines.units.label_store import LabelStore
from pipelines.units.plan_files import read_given
from pipelines.units.store import read_unit, unit_path
from voxmill.data.languages import base_language
from voxmill.data.records import (
    Cost,
    Ending,
    RecordingWarning,
    ShardPlace,
    StageName,
    VoiceLabels,
    WindowResult,
    WorkUnit,
)
from voxmill.data.scripts import in_script, words_in_script


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
    corrected: dict[str, int] = field(default_factory=dict)
    """Clips by what was corrected of them."""

    def reject(self, clip: CorpusClip, ending: Ending) -> None:
        """Adds a clip to the rejected ones."""
        clip.ending = ending
        self.rejected.append(clip)


def collect(units: list[WorkUnit], out: Path, config: AnnotateConfig) -> CollectedClips:
    """Reads every unit's labels, gives texts and labels that exist, corrects, predicts error rates, applies selection.

    Clips that were met before are dropped (same audio, same bounds).

    Raises:
        JobError: a unit's file or its labels are damaged. UserError: `select.wer_fit` is none, or the corrections in
            force are damaged.
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
                    singing_share=result.singing_share(candidate),
                    separated_by=result.separators(candidate),
                    place=ShardPlace(shard=shard, offset=offset, size=size, sha256=None),
                    voice=voices.get(candidate.clip_id, VoiceLabels()),
                    speaker=result.window.source.speaker,
                )
                clips.append(clip)
    long_clips = LongClips(clips)
    for bucket in sorted({unit.bucket for unit in units}):
        given = read_given(out, bucket)
        give_labels(clips, given)
        collected.text_warnings |= give_texts(long_clips.parts, given)
    for clip in clips:
        respell(clip, config.texts)
    collected.corrected = correct(clips, in_force(out), config.voice_attributes.prosody)
    if fit is not None:
        recognised: dict[str, list[CorpusClip]] = {}
        for clip in long_clips.parts:
            if clip.text_source == "recognised" and clip.candidate.text.strip() and fits(fit, clip.candidate):
                recognised.setdefault(clip.window.recording_id, []).append(clip)
        for together in recognised.values():
            rates = fit.predict([(clip.candidate, clip.duration) for clip in together])
            for clip, rate in zip(together, rates, strict=True):
                clip.predicted_wer = rate

    def rejection(clip: CorpusClip) -> Ending | None:
        ending = apply_thresholds(clip, config.select)
        if ending is None and condition is not None and not condition(index_row(clip)):
            ending = Ending(stage=StageName.SELECTION, reason="where")
        return ending

    seen: set[str] = set()
    for clip in long_clips.chosen(config.select, rejection):
        ending = rejection(clip)
        if ending is None and clip.clip_id in seen:
            ending = Ending(stage=StageName.SELECTION, reason="duplicate_clip")
        if ending is None:
            seen.add(clip.clip_id)
            collected.kept.append(clip)
        else:
            collected.reject(clip, ending)
    return collected


def respell(clip: CorpusClip, config: TextsConfig) -> None:
    """Writes a Chinese text in the script that is wanted, before it is corrected: people see it so."""
    is_own = clip.text_source == "recognised" or config.given_too
    before = clip.candidate
    if config.chinese is None or not is_own or base_language(before.language) != "zh":
        return
    words = words_in_script([word.word for word in before.words], before.text, config.chinese)
    clip.candidate = dataclasses.replace(
        before,
        text=in_script(before.text, config.chinese),
        words=tuple(dataclasses.replace(word, word=own) for word, own in zip(before.words, words, strict=True)),
    )
    clip.respelt = clip.candidate != before


def number(collected: CollectedClips) -> None:
    """Sorts the kept clips by session and time and gives each its position in the session."""
    collected.kept.sort(key=lambda clip: clip.order)
    position: dict[str, int] = {}
    for clip in collected.kept:
        clip.position = position.get(clip.session, 0)
        position[clip.session] = clip.position + 1
