"""Selection: thresholds from the configuration applied to labels that are already there. No model, no audio."""

from dataclasses import dataclass
from typing import Any

from pipelines.config import SelectConfig
from voxmill.core.languages import base_language


@dataclass(frozen=True)
class Verdict:
    """Why a clip was dropped: the stage that measured, the rule's code, the value and the threshold."""

    stage: str
    reason: str
    value: float | None
    threshold: float | None


# rule key -> (stage, where the value is, field); `min_` and `max_` in the key say which side is kept.
_RULES: dict[str, tuple[str, str, str]] = {
    "min_seconds": ("segmentation", "", "duration"),
    "max_seconds": ("segmentation", "", "duration"),
    "max_dc_offset": ("quality", "quality", "dc_offset"),
    "max_clipping": ("quality", "quality", "clipping"),
    "min_snr_db": ("quality", "quality", "snr_db"),
    "min_bandwidth_hz": ("quality", "quality", "bandwidth_hz"),
    "min_dnsmos_ovr": ("quality", "quality", "dnsmos_ovr"),
    "max_no_speech_probability": ("transcription", "transcript", "no_speech_probability"),
    "min_mean_log_probability": ("transcription", "transcript", "mean_log_probability"),
    "max_compression_ratio": ("transcription", "transcript", "compression_ratio"),
    "max_repeated_ngram": ("transcription", "transcript", "repeated_ngram"),
    "min_characters_per_second": ("transcription", "transcript", "characters_per_second"),
    "max_characters_per_second": ("transcription", "transcript", "characters_per_second"),
    "min_language_probability": ("language", "", "language_probability"),
    "max_given_wer": ("transcription", "transcript", "given_wer"),
}


def judge(clip: dict[str, Any], config: SelectConfig) -> Verdict | None:
    """The first rule that drops a clip, or None for a clip that is kept. Rules in a fixed order, cheapest cause first."""
    if clip["cut"] == "forced" and not config.allow_forced_cuts:
        return Verdict("segmentation", "no_pause_to_cut", clip["duration"], None)
    if not clip["text"].strip():
        return Verdict("transcription", "empty_transcript", 0.0, None)
    for key, (stage, group, name) in _RULES.items():
        threshold = getattr(config, key)
        value = (clip[group] if group else clip)[name]
        if threshold is None or value is None:
            continue
        size = abs(value) if key == "max_dc_offset" else value
        if (size < threshold) if key.startswith("min_") else (size > threshold):
            return Verdict(stage, key.replace("min_", "low_", 1).replace("max_", "high_", 1), value, threshold)
    limit = config.text_language_must_agree_above
    transcript = clip["transcript"]
    if (
        limit is not None
        and transcript["text_language_probability"] > limit
        and transcript["text_language"] != base_language(clip["language"])
    ):
        return Verdict("language", "text_in_another_language", transcript["text_language_probability"], limit)
    return None
