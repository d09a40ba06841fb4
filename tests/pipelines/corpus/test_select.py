"""Every threshold rejects clips beyond it, names itself and can be switched off."""

import dataclasses
from typing import Any

import pytest

from pipelines.config import SelectConfig, TranscriptThresholds
from pipelines.corpus.clips import index_row
from pipelines.corpus.select import apply_thresholds
from tests.pipelines.corpus.made_clips import made_clip
from voxmill.data.records import Label, StageName, TextDifference, VoiceLabels

BEYOND: dict[str, dict[str, Any]] = {
    "min_seconds": {"seconds": 1.0},
    "max_seconds": {"seconds": 400.0},
    "max_dc_offset": {"dc_offset": -0.3},
    "max_clipping": {"clipping": 0.2},
    "min_snr_db": {"snr_db": 1.0},
    "min_bandwidth_hz": {"bandwidth_hz": 2000.0},
    "min_dnsmos_ovr": {"dnsmos_ovr": 1.2},
    "min_given_agreement": {"text_source": "given", "given_agreement": 0.4},
    "min_language_confidence": {"language_confidence": 0.6},
}
OF_TRANSCRIPTS: dict[str, dict[str, Any]] = {
    "max_no_speech_probability": {"no_speech_probability": 0.95},
    "min_mean_log_probability": {"mean_log_probability": -2.0},
    "max_compression_ratio": {"compression_ratio": 5.0},
    "max_repeated_ngram": {"repeated_ngram": 0.9},
    "min_characters_per_second": {"characters_per_second": 0.5},
    "max_characters_per_second": {"characters_per_second": 80.0},
    "min_language_probability": {"language_probability": 0.1},
}


def test_every_number_in_the_recipe_is_a_rule_of_this_test() -> None:
    numbers = {key for key, value in SelectConfig() if isinstance(value, float)}
    assert numbers == {*BEYOND, "text_language_must_agree_above", "max_predicted_wer"}
    assert {key for key, value in TranscriptThresholds() if isinstance(value, float)} == {*OF_TRANSCRIPTS}


@pytest.mark.parametrize("rule", BEYOND)
def test_a_rule_rejects_names_itself_and_can_be_switched_off(rule: str) -> None:
    bad = made_clip(**BEYOND[rule])
    ending = apply_thresholds(bad, SelectConfig())
    assert ending is not None and ending.threshold == getattr(SelectConfig(), rule)
    assert ending.reason == rule.replace("min_", "low_").replace("max_", "high_")
    assert apply_thresholds(bad, SelectConfig.model_validate({rule: None})) is None


def test_a_second_opinion_on_quality_counts_only_on_demand_and_where_there_is_one() -> None:
    bad, unscored = (made_clip(voice=VoiceLabels(mos=mos)) for mos in (Label(value=1.5), Label(reason="too_short")))
    assert apply_thresholds(bad, SelectConfig()) is None
    asked = SelectConfig(min_distillmos=2.5)
    ending = apply_thresholds(bad, asked)
    assert ending is not None and (ending.stage, ending.reason, ending.value) == (StageName.MOS, "low_distillmos", 1.5)
    assert apply_thresholds(unscored, asked) is None and apply_thresholds(made_clip(), asked) is None
    assert index_row(bad).distillmos == 1.5 and index_row(unscored).distillmos is None


@pytest.mark.parametrize("rule", OF_TRANSCRIPTS)
def test_single_measures_of_a_transcript_count_where_no_error_rate_is_predicted_or_on_demand(rule: str) -> None:
    bad = made_clip(**OF_TRANSCRIPTS[rule])
    ending = apply_thresholds(bad, SelectConfig())
    threshold = getattr(TranscriptThresholds(), rule)
    assert ending is not None and ending.threshold == threshold
    assert ending.reason == rule.replace("min_", "low_").replace("max_", "high_")
    assert apply_thresholds(bad, SelectConfig.model_validate({"without_fit": {rule: None}})) is None
    predicted = dataclasses.replace(bad, predicted_wer=0.1)
    assert apply_thresholds(predicted, SelectConfig()) is None
    assert apply_thresholds(predicted, SelectConfig.model_validate({rule: threshold})) == ending


@pytest.mark.parametrize("text, fastest, slowest", [("你好吗", 11.6, 0.7), ("ねえ", 17.4, 1.1), ("네네네", 13.9, 0.9)])
def test_characters_of_other_scripts_have_their_own_limits(text: str, fastest: float, slowest: float) -> None:
    for pace, reason in ((fastest, ""), (fastest + 0.2, "high_"), (slowest, ""), (slowest - 0.15, "low_")):
        ending = apply_thresholds(made_clip(text=text, characters_per_second=pace), SelectConfig())
        assert ("" if ending is None else ending.reason) == (reason and f"{reason}characters_per_second")


def test_a_predicted_error_rate_decides_alone() -> None:
    clip = dataclasses.replace(made_clip(), predicted_wer=0.6)
    ending = apply_thresholds(clip, SelectConfig())
    assert ending is not None and (ending.reason, ending.value) == ("high_predicted_wer", 0.6)
    assert ending.threshold == SelectConfig().max_predicted_wer
    assert apply_thresholds(clip, SelectConfig(max_predicted_wer=0.7)) is None
    assert apply_thresholds(clip, SelectConfig(max_predicted_wer=None)) is None


def test_known_inventions_are_rejected_unless_they_are_wanted() -> None:
    clip = made_clip(text="Untertitel der Amara.org-Community")
    ending = apply_thresholds(clip, SelectConfig())
    assert ending is not None and ending.reason == "hallucinated_phrase"
    assert apply_thresholds(clip, SelectConfig(allow_hallucinations=True)) is None


def test_a_good_clip_is_kept_and_a_missing_value_rejects_nothing() -> None:
    assert apply_thresholds(made_clip(), SelectConfig()) is None
    assert apply_thresholds(made_clip(snr_db=None), SelectConfig()) is None


def test_text_of_another_language_no_text_and_forced_cuts_are_rejected() -> None:
    changes: tuple[dict[str, Any], ...] = ({"text_language": "it"}, {"text": "  "}, {"cut": "forced"})
    endings = [apply_thresholds(made_clip(**change), SelectConfig()) for change in changes]
    assert [ending and (ending.stage, ending.reason) for ending in endings] == [
        (StageName.TRANSCRIPTION, "text_in_another_language"),
        (StageName.TRANSCRIPTION, "empty_transcript"),
        (StageName.SEGMENTATION, "no_pause_to_cut"),
    ]
    assert apply_thresholds(made_clip(cut="forced"), SelectConfig(allow_forced_cuts=True)) is None


def test_a_given_text_is_not_measured_by_what_was_recognised() -> None:
    """Its own rules count; the language is that of the sound."""
    bad = {name: value for change in OF_TRANSCRIPTS.values() for name, value in change.items()}
    doubtful = made_clip(text_source="given", given_agreement=0.9, text_language="fr", **bad)
    assert apply_thresholds(doubtful, SelectConfig()) is None
    part = TextDifference(kind="added", given="", recognised="never", start=0.0, end=0.4, similarity=0.0, likely=True)
    misheard = dataclasses.replace(part, likely=False)
    clip = made_clip(text_source="given", given_agreement=0.9, text_differences=(misheard, part))
    ending = apply_thresholds(clip, SelectConfig())
    assert ending is not None and (ending.reason, ending.value) == ("high_text_differences", 1)
    assert apply_thresholds(clip, SelectConfig(max_text_differences=1)) is None
    ending = apply_thresholds(made_clip(text_source="given", given_agreement=0.0, text=""), SelectConfig())
    assert ending is not None and ending.reason == "not_in_given_text"
