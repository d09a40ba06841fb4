"""Selection: thresholds from the configuration applied to labels that are already there. No model, no audio."""

from operator import attrgetter

from annotation.speech.hallucinations import is_hallucination
from pipelines.config import SelectConfig
from pipelines.corpus.clips import CorpusClip
from voxmill.data.languages import same_family
from voxmill.data.records import Ending, StageName

# Threshold -> (the stage that measured, where the clip has the measure); `min_` and `max_` name the side that is kept.
_RULES: dict[str, tuple[StageName, str]] = {
    "min_seconds": (StageName.SEGMENTATION, "duration"),
    "max_seconds": (StageName.SEGMENTATION, "duration"),
    "max_dc_offset": (StageName.QUALITY, "candidate.quality.dc_offset"),
    "max_clipping": (StageName.QUALITY, "candidate.quality.clipping"),
    "min_snr_db": (StageName.QUALITY, "candidate.quality.snr_db"),
    "min_bandwidth_hz": (StageName.QUALITY, "candidate.quality.bandwidth_hz"),
    "min_dnsmos_ovr": (StageName.QUALITY, "candidate.quality.dnsmos_ovr"),
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
"""Rules that a given text is not measured by: what counts is how well it agrees."""


def apply_thresholds(clip: CorpusClip, config: SelectConfig, *, of_any_length: bool = False) -> Ending | None:
    """The first rule that rejects a clip, in a fixed order, cheapest cause first; None for a clip that is kept.

    of_any_length: leaves out the rules on its length.
    """
    candidate = clip.candidate
    if candidate.cut == "forced" and not config.allow_forced_cuts:
        return Ending(stage=StageName.SEGMENTATION, reason="no_pause_to_cut", value=clip.duration)
    is_given = clip.text_source == "given"
    if not candidate.text.strip():
        reason = "not_in_given_text" if is_given else "empty_transcript"
        return Ending(stage=StageName.TRANSCRIPTION, reason=reason, value=0.0)
    if not is_given and not config.allow_hallucinations and is_hallucination(candidate.text):
        return Ending(stage=StageName.TRANSCRIPTION, reason="hallucinated_phrase")
    for key, (stage, measure) in _RULES.items():
        if (is_given and key in _OF_RECOGNISED) or (of_any_length and measure == "duration"):
            continue
        threshold: float | None = getattr(config, key)
        if threshold is None and clip.predicted_wer is None and not is_given:
            threshold = getattr(config.without_fit, key, None)
        value: float | None = attrgetter(measure)(clip)
        if threshold is None or value is None:
            continue
        size = abs(value) if key == "max_dc_offset" else value
        if (size < threshold) if key.startswith("min_") else (size > threshold):
            reason = key.replace("min_", "low_", 1).replace("max_", "high_", 1)
            return Ending(stage=stage, reason=reason, value=value, threshold=threshold)
    transcript, limit = candidate.transcript, config.text_language_must_agree_above
    if (
        limit is not None
        and not is_given
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
