"""Selection: thresholds from the configuration applied to labels that are already there. No model, no audio.

Of a long clip and its parts either it or they are selected: it where each of its parts could be and it could itself.
Otherwise, whatever the reason, the parts stand in for it, and only the bad one is lost.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter

from annotation.audio.long_clips import joined_words, num_words
from annotation.speech.hallucinations import is_hallucination
from annotation.speech.text_checks import normalise
from pipelines.config import SelectConfig
from pipelines.corpus.clips import CorpusClip
from voxmill.data.languages import same_family
from voxmill.data.records import ClipId, Ending, StageName, TextDifference
from voxmill.data.scripts import letters_a_character

# Threshold -> (the stage that measured, where the clip has the measure); `min_` and `max_` name the side that is kept.
_RULES: dict[str, tuple[StageName, str]] = {
    "min_seconds": (StageName.SEGMENTATION, "duration"),
    "max_seconds": (StageName.SEGMENTATION, "duration"),
    "max_dc_offset": (StageName.QUALITY, "candidate.quality.dc_offset"),
    "max_clipping": (StageName.QUALITY, "candidate.quality.clipping"),
    "min_snr_db": (StageName.QUALITY, "candidate.quality.snr_db"),
    "min_bandwidth_hz": (StageName.QUALITY, "candidate.quality.bandwidth_hz"),
    "min_dnsmos_ovr": (StageName.QUALITY, "candidate.quality.dnsmos_ovr"),
    "max_singing_share": (StageName.EVENTS, "singing_share"),
    "min_distillmos": (StageName.MOS, "distillmos"),
    "max_predicted_wer": (StageName.TRANSCRIPTION, "predicted_wer"),
    "max_no_speech_probability": (StageName.TRANSCRIPTION, "candidate.transcript.no_speech_probability"),
    "min_mean_log_probability": (StageName.TRANSCRIPTION, "candidate.transcript.mean_log_probability"),
    "max_compression_ratio": (StageName.TRANSCRIPTION, "candidate.transcript.compression_ratio"),
    "max_repeated_ngram": (StageName.TRANSCRIPTION, "candidate.transcript.repeated_ngram"),
    "min_characters_per_second": (StageName.TRANSCRIPTION, "candidate.transcript.characters_per_second"),
    "max_characters_per_second": (StageName.TRANSCRIPTION, "candidate.transcript.characters_per_second"),
    "min_language_probability": (StageName.TRANSCRIPTION, "candidate.language_probability"),
    "min_language_confidence": (StageName.TRANSCRIPTION, "candidate.transcript.language_confidence"),
    "min_given_agreement": (StageName.TRANSCRIPTION, "given_agreement"),
    "max_text_differences": (StageName.TRANSCRIPTION, "likely_differences"),
}
SHORT_SECONDS = 5.0
"""A shorter part of a long clip counts in the mean of the predicted word error rates alone: it is high for any."""
_OF_RECOGNISED = frozenset(
    (
        "max_predicted_wer",
        "max_no_speech_probability",
        "min_mean_log_probability",
        "max_compression_ratio",
        "max_repeated_ngram",
        "min_characters_per_second",
        "max_characters_per_second",
    )
)
"""Rules that a given text is not measured by: what counts is how well it agrees. Nor is a corrected one, by any."""
_OF_LETTERS = frozenset(("min_characters_per_second", "max_characters_per_second"))
"""Rules for letters of an alphabet: characters of other scripts stand for several, so their limits are lower."""
_OF_LANGUAGE = frozenset(("min_language_probability", "min_language_confidence"))
"""Rules that a corrected language is not measured by."""


def apply_thresholds(clip: CorpusClip, config: SelectConfig, *, of_any_length: bool = False) -> Ending | None:
    """The first rule that rejects a clip, in a fixed order, cheapest cause first; None for a clip that is kept.

    of_any_length: leaves out the rules on its length.
    """
    candidate, correction = clip.candidate, clip.correction
    if correction is not None and correction.drop:
        return Ending(stage=StageName.SELECTION, reason="dropped_by_hand")
    if candidate.cut == "forced" and not config.allow_forced_cuts:
        return Ending(stage=StageName.SEGMENTATION, reason="no_pause_to_cut", value=clip.duration)
    is_recognised = clip.text_source == "recognised"
    if not candidate.text.strip():
        reason = "empty_transcript" if is_recognised else "not_in_given_text"
        return Ending(stage=StageName.TRANSCRIPTION, reason=reason, value=0.0)
    if is_recognised and not config.allow_hallucinations and is_hallucination(candidate.text):
        return Ending(stage=StageName.TRANSCRIPTION, reason="hallucinated_phrase")
    is_sure_of_language = correction is not None and correction.language is not None
    for key, (stage, measure) in _RULES.items():
        if (key in _OF_RECOGNISED and not is_recognised) or (key in _OF_LANGUAGE and is_sure_of_language):
            continue
        if of_any_length and measure == "duration":
            continue
        threshold: float | None = getattr(config, key)
        if threshold is None and clip.predicted_wer is None and is_recognised:
            threshold = getattr(config.without_fit, key, None)
        value: float | None = attrgetter(measure)(clip)
        if threshold is None or value is None:
            continue
        if key in _OF_LETTERS:
            threshold = round(threshold / letters_a_character(normalise(candidate.text)), 2)
        size = abs(value) if key == "max_dc_offset" else value
        if (size < threshold) if key.startswith("min_") else (size > threshold):
            reason = key.replace("min_", "low_", 1).replace("max_", "high_", 1)
            return Ending(stage=stage, reason=reason, value=value, threshold=threshold)
    transcript, limit = candidate.transcript, config.text_language_must_agree_above
    if (
        limit is not None
        and is_recognised
        and transcript is not None
        and transcript.text_language_probability > limit
        and not same_family(transcript.text_language, candidate.language)
    ):
        return Ending(
            stage=StageName.TRANSCRIPTION,
            reason="text_in_another_language",
            value=transcript.text_language_probability,
            threshold=limit,
        )
    return None


class LongClips:
    """The clips of a bucket, long ones apart from the others.

    parts: all that were transcribed by themselves, whether part of a long one or not, in order.
    """

    def __init__(self, clips: Sequence[CorpusClip]) -> None:
        self._clips = clips
        # By their names: a recording may have been worked on twice.
        self._parts: dict[ClipId, dict[ClipId, CorpusClip]] = {}
        for clip in clips:
            if clip.candidate.part_of:
                self._parts.setdefault(clip.candidate.part_of, {})[clip.clip_id] = clip
        self.parts = [clip for clip in clips if clip.clip_id not in self._parts]

    def chosen(self, config: SelectConfig, rejection: Callable[[CorpusClip], Ending | None]) -> Iterator[CorpusClip]:
        """The clips in order, of each long one and its parts either it, with their texts, or them.

        Args:
            rejection: what keeps a clip from the dataset.
        """
        whole: set[ClipId] = set()
        for clip in self._clips:
            parts = self._parts.get(clip.clip_id)
            if parts is None:
                if clip.candidate.part_of not in whole:
                    yield clip
            else:
                long = _whole(clip, [*parts.values()], config)
                if long is not None and (long.correction is not None or rejection(long) is None):
                    whole.add(clip.clip_id)
                    yield long


def _is_good(part: CorpusClip, config: SelectConfig) -> bool:
    """Whether a part may be in a long clip."""
    if part.duration < SHORT_SECONDS:
        config = config.model_copy(update={"max_predicted_wer": None})
    return apply_thresholds(part, config, of_any_length=True) is None


def _whole(clip: CorpusClip, parts: Sequence[CorpusClip], config: SelectConfig) -> CorpusClip | None:
    """A long clip as its parts and a person have it; None where they are to stand for it."""
    if any(part.correction is not None for part in parts):
        # What a person has looked at stays what was looked at.
        return None
    if clip.correction is not None and (clip.correction.drop or clip.text_source == "corrected"):
        return clip
    return _with_texts(clip, parts) if all(_is_good(part, config) for part in parts) else None


def _with_texts(clip: CorpusClip, parts: Sequence[CorpusClip]) -> CorpusClip | None:
    """A long clip with what was found out on its parts' texts; None where some texts are given and others are not, or
    several speakers are."""
    if len({(part.text_source, part.speaker) for part in parts}) > 1:
        return None
    weights = [num_words(part.candidate) for part in parts]

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        return round(sum(value * weight for value, weight in zip(known, weights, strict=True)) / sum(weights), 4)

    long = dataclasses.replace(clip, predicted_wer=mean([part.predicted_wer for part in parts]))
    if parts[0].text_source == "recognised":
        return long
    text, words = joined_words([part.candidate for part in parts], clip.window.sample_rate)
    return dataclasses.replace(
        long,
        candidate=dataclasses.replace(clip.candidate, text=text, words=words),
        text_source=parts[0].text_source,
        recognised_text=clip.candidate.text,
        given_agreement=mean([part.given_agreement for part in parts]),
        text_differences=tuple(
            _moved(difference, part.start - clip.start) for part in parts for difference in part.text_differences
        ),
    )


def _moved(difference: TextDifference, seconds: float) -> TextDifference:
    return dataclasses.replace(
        difference, start=round(difference.start + seconds, 3), end=round(difference.end + seconds, 3)
    )
