"""A clip while the steps over the whole corpus label it, from what its unit stores to a row of the indexes."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from annotation.corpus.speaker_traits import SpeakerTraits
from annotation.voice.given_labels import SONG, SONG_SHARE, given_classes, given_dialect
from pipelines.corpus.corrections.csv_file import Correction
from voxmill.data.languages import DIALECTS, base_language
from voxmill.data.records import (
    Age,
    Candidate,
    ClassColumn,
    Clip,
    ClipId,
    Description,
    Dialect,
    Eligibility,
    Emotion,
    Ending,
    Fact,
    Gender,
    GivenLabels,
    Label,
    Origin,
    Reference,
    RejectedClip,
    Seconds,
    ShardMetadata,
    ShardPlace,
    StageModes,
    TextDifference,
    TextSource,
    VoiceLabels,
    Window,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(slots=True, kw_only=True)
class CorpusClip:
    """One candidate clip; what follows `voice` is filled in by the steps over the corpus.

    place: of its FLAC; in the unit's file until shards are written. singing_share: of its seconds, 0..1.
    speaker: the name that the manifest gives, else that of its cluster. traits: what is decided of the speaker.
    text_source: where the candidate's text and words are from. recognised_text: with another one, what was recognised.
    given: what the corpus says of it. predicted_wer: of a recognised text; None where no fit predicts it. correction:
    what a person says of it. respelt: whether its text is in another script than it was recognised or given in.
    expressiveness, percentile: None where it could not be scored. references: None before they are looked for.
    ending: why the clip was rejected; None while it is kept.
    """

    candidate: Candidate
    window: Window
    origin: Origin
    place: ShardPlace
    singing_share: float | None = None
    separated_by: str | None = None
    voice: VoiceLabels = field(default_factory=VoiceLabels)
    text_source: TextSource = "recognised"
    given_agreement: float | None = None
    recognised_text: str | None = None
    text_differences: tuple[TextDifference, ...] = ()
    given: GivenLabels | None = None
    predicted_wer: float | None = None
    correction: Correction | None = None
    respelt: bool = False
    position: int | None = None
    speaker: str | None = None
    cluster: str | None = None
    traits: SpeakerTraits | None = None
    expressiveness: float | None = None
    percentile: float | None = None
    facts: Sequence[Fact] = ()
    descriptions: Sequence[Description] = ()
    references: tuple[Reference, ...] | None = None
    no_reference: str | None = None
    eligibility: Eligibility | None = None
    ending: Ending | None = None

    @property
    def clip_id(self) -> ClipId:
        return self.candidate.clip_id

    @property
    def recording_id(self) -> str:
        return self.window.recording_id

    @property
    def session(self) -> str:
        return self.window.source.session

    @property
    def order(self) -> tuple[str, str, int, int]:
        """By session, recording, time and channel."""
        return self.session, self.window.name, self.candidate.start_sample, self.window.channel or 0

    @property
    def start(self) -> Seconds:
        return self.candidate.start_sample / self.window.sample_rate

    @property
    def end(self) -> Seconds:
        return self.candidate.end_sample / self.window.sample_rate

    @property
    def duration(self) -> Seconds:
        return (self.candidate.end_sample - self.candidate.start_sample) / self.window.sample_rate

    @property
    def distillmos(self) -> float | None:
        """Its score by DistillMOS; None where it has none."""
        return None if self.voice.mos is None else self.voice.mos.value

    @property
    def likely_differences(self) -> int | None:
        """Places in which the recording and a given text probably part; None without one."""
        if self.text_source != "given":
            return None
        return sum(difference.likely for difference in self.text_differences)

    @property
    def dnsmos(self) -> float | None:
        """DNSMOS overall, 1..5."""
        return None if self.candidate.quality is None else self.candidate.quality.dnsmos_ovr

    @property
    def known_speaker(self) -> str | None:
        """The name that a person gives, in a correction or else in the manifest."""
        corrected = None if self.correction is None else self.correction.speaker
        return corrected or self.window.source.speaker

    @property
    def has_other_metadata(self) -> bool:
        """Whether its `.json` in a shard does not follow from its unit's file alone."""
        correction = self.correction
        is_corrected = correction is not None and (correction.speaker is not None or correction.language is not None)
        return self.text_source != "recognised" or is_corrected or self.respelt

    def metadata(self, speaker: str | None) -> ShardMetadata:
        """What its audio was cut with; `speaker` is the name to be written."""
        candidate, window = self.candidate, self.window
        assert candidate.quality is not None and candidate.transcript is not None
        return ShardMetadata(
            clip_id=candidate.clip_id,
            recording_id=window.recording_id,
            session=self.session,
            position=self.position,
            start_sample=candidate.start_sample,
            end_sample=candidate.end_sample,
            channel=window.channel,
            sample_rate=window.sample_rate,
            duration=self.duration,
            text=candidate.text,
            words=candidate.words,
            text_source=self.text_source,
            given_agreement=self.given_agreement,
            language=candidate.language,
            language_probability=candidate.language_probability,
            speaker=speaker,
            turn=candidate.turn,
            origin=self.origin,
            separated_by=self.separated_by,
            cut=candidate.cut,
            quality=candidate.quality,
            transcript=candidate.transcript,
            licence=window.source.licence,
        )


def dialect_of(clip: CorpusClip) -> ClassColumn | None:
    """The dialect of a clip by its code: as a person or the corpus says, else the recogniser, else a classifier.

    None where it is not in Chinese. Where nobody knows, the reason says why.
    """
    language, given, label = clip.candidate.language, given_dialect(clip.given), clip.voice.dialect
    if base_language(language) != "zh":
        return None
    measured = None if label is None else label.measured

    def known(code: str, reason: str) -> ClassColumn:
        probability = None if measured is None else measured.probabilities.get(code, 0.0)
        return ClassColumn(label=code, probability=probability, reason=reason)

    corrected = None if clip.correction is None else clip.correction.language
    if language in DIALECTS and language in (corrected, clip.window.source.language):
        return known(language, "given")
    if given is not None and corrected is None:
        return known(given, "given")
    if language in DIALECTS:
        return known(language, "recognised")
    if label is None:
        return ClassColumn(label=None, probability=None, reason="no_model")
    return _class_column(label)


def style_of(clip: CorpusClip) -> ClassColumn | None:
    """The style of a clip: the corpus's own word, or `song` where at least `SONG_SHARE` of it is sung."""
    given = given_classes(clip.given).get("style")
    if given is not None:
        return ClassColumn(label=given, probability=None, reason="given")
    is_song = clip.singing_share is not None and clip.singing_share >= SONG_SHARE
    return ClassColumn(label=SONG, probability=None, reason="") if is_song else None


def gender_of_speaker(clip: CorpusClip) -> ClassColumn | None:
    """What is decided over all clips of the speaker, or why nothing is; None where no classifier has voted."""
    traits = clip.traits
    if traits is None or traits.gender_reason == "no_votes":
        return None
    reason = traits.gender_reason or "speaker"
    return ClassColumn(label=traits.gender, probability=traits.gender_probability, reason=reason)


def index_row(clip: CorpusClip) -> Clip:
    """A clip as a row of `clips.parquet`."""
    voice, eligibility, given = clip.voice, clip.eligibility, given_classes(clip.given)
    return Clip(
        **_fields(clip.metadata(clip.speaker)),
        **_fields(clip.place),
        path=clip.window.name,
        recognised_text=clip.recognised_text,
        text_differences=clip.text_differences,
        given=clip.given,
        predicted_wer=clip.predicted_wer,
        cluster=clip.cluster,
        distillmos=clip.distillmos,
        prosody=None if voice.prosody is None else voice.prosody.value,
        expressiveness=clip.expressiveness,
        expressiveness_percentile=clip.percentile,
        gender=_given_column(given.get("gender"), voice.gender)
        or gender_of_speaker(clip)
        or _gender_column(voice.gender),
        emotion=_given_column(given.get("emotion"), voice.emotion) or _class_column(voice.emotion),
        age=_given_column(given.get("age"), voice.age) or _class_column(voice.age),
        dialect=dialect_of(clip),
        singing_share=clip.singing_share,
        style=style_of(clip),
        facts=tuple(clip.facts),
        descriptions=tuple(clip.descriptions),
        references=clip.references,
        no_reference=clip.no_reference,
        modes=None if eligibility is None else eligibility.modes,
        stages=None if eligibility is None else tuple(eligibility.by_stage),
        stage_modes=None
        if eligibility is None
        else tuple(StageModes(stage=stage, modes=modes) for stage, modes in eligibility.by_stage.items()),
    )


def rejected_row(clip: CorpusClip) -> RejectedClip:
    """A rejected clip as a row of `rejected.parquet`."""
    assert clip.ending is not None
    ending = _fields(clip.ending)
    del ending["detail"]
    return RejectedClip(**_fields(index_row(clip)), **ending)


def _fields(record: "DataclassInstance") -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def _given_column(given: str | None, label: Label[Gender] | Label[Emotion] | Label[Age] | None) -> ClassColumn | None:
    """What the corpus says, with what the classifier gives it; None where the corpus says nothing."""
    if given is None:
        return None
    measured = None if label is None else label.measured
    probability = None if measured is None else measured.probabilities.get(given, 0.0)
    return ClassColumn(label=given, probability=probability, reason="given")


def _gender_column(label: Label[Gender] | None) -> ClassColumn:
    if label is None or label.error:
        return ClassColumn(label=None, probability=None, reason=None)
    value = label.value
    return ClassColumn(
        label=None if value is None else value.label,
        probability=None if value is None else value.probability,
        reason=label.reason,
    )


def _class_column(label: Label[Emotion] | Label[Age] | Label[Dialect] | None) -> ClassColumn | None:
    if label is None:
        return None
    if label.error:
        return ClassColumn(label=None, probability=None, reason=None)
    measured = label.measured
    return ClassColumn(
        label=None if label.value is None else label.value.label,
        probability=None if measured is None else measured.probability,
        reason=label.reason,
    )
