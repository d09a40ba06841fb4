"""Every threshold rejects clips beyond it, names itself and can be switched off."""

from typing import Any

import pytest

from pipelines.config import SelectConfig
from pipelines.corpus.select import apply_thresholds
from tests.pipelines.corpus.made_clips import made_clip
from voxmill.data.records import StageName

BEYOND: dict[str, dict[str, Any]] = {
    "min_seconds": {"seconds": 1.0},
    "max_seconds": {"seconds": 400.0},
    "max_dc_offset": {"dc_offset": -0.3},
    "max_clipping": {"clipping": 0.2},
    "min_snr_db": {"snr_db": 1.0},
    "min_bandwidth_hz": {"bandwidth_hz": 2000.0},
    "min_dnsmos_ovr": {"dnsmos_ovr": 1.2},
    "max_no_speech_probability": {"no_speech_probability": 0.95},
    "min_mean_log_probability": {"mean_log_probability": -2.0},
    "max_compression_ratio": {"compression_ratio": 5.0},
    "max_repeated_ngram": {"repeated_ngram": 0.9},
    "min_characters_per_second": {"characters_per_second": 0.5},
    "max_characters_per_second": {"characters_per_second": 80.0},
    "min_language_probability": {"language_probability": 0.1},
    "max_given_wer": {"given_wer": 0.9},
}


def test_every_number_in_the_recipe_is_a_rule_of_this_test() -> None:
    numbers = {key for key, value in SelectConfig() if isinstance(value, float)}
    assert numbers == {*BEYOND, "text_language_must_agree_above"}


@pytest.mark.parametrize("rule", BEYOND)
def test_a_rule_rejects_names_itself_and_can_be_switched_off(rule: str) -> None:
    bad = made_clip(**BEYOND[rule])
    ending = apply_thresholds(bad, SelectConfig())
    assert ending is not None and ending.threshold == getattr(SelectConfig(), rule)
    assert ending.reason == rule.replace("min_", "low_").replace("max_", "high_")
    assert apply_thresholds(bad, SelectConfig.model_validate({rule: None})) is None


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
