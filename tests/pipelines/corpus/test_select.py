"""Every threshold drops what is beyond it, names itself and can be switched off."""

from typing import Any

import pytest

from pipelines.config import SelectConfig
from pipelines.corpus.select import judge


def clip(**changes: Any) -> dict[str, Any]:
    """A clip that every rule keeps; `quality__snr_db=1` changes a value inside a group."""
    good: dict[str, Any] = {
        "cut": "pause",
        "text": "hello there",
        "duration": 5.0,
        "language": "en",
        "language_probability": 0.99,
        "quality": {"dc_offset": 0.0, "clipping": 0.0, "snr_db": 30.0, "bandwidth_hz": 8000.0, "dnsmos_ovr": 3.5},
        "transcript": {
            "no_speech_probability": 0.01,
            "mean_log_probability": -0.2,
            "compression_ratio": 1.2,
            "repeated_ngram": 0.0,
            "characters_per_second": 12.0,
            "given_wer": None,
            "text_language": "en",
            "text_language_probability": 0.99,
        },
    }
    for key, value in changes.items():
        group, _, name = key.rpartition("__")
        (good[group] if group else good)[name] = value
    return good


BEYOND = {
    "min_seconds": {"duration": 1.0},
    "max_seconds": {"duration": 400.0},
    "max_dc_offset": {"quality__dc_offset": -0.3},
    "max_clipping": {"quality__clipping": 0.2},
    "min_snr_db": {"quality__snr_db": 1.0},
    "min_bandwidth_hz": {"quality__bandwidth_hz": 2000.0},
    "min_dnsmos_ovr": {"quality__dnsmos_ovr": 1.2},
    "max_no_speech_probability": {"transcript__no_speech_probability": 0.95},
    "min_mean_log_probability": {"transcript__mean_log_probability": -2.0},
    "max_compression_ratio": {"transcript__compression_ratio": 5.0},
    "max_repeated_ngram": {"transcript__repeated_ngram": 0.9},
    "min_characters_per_second": {"transcript__characters_per_second": 0.5},
    "max_characters_per_second": {"transcript__characters_per_second": 80.0},
    "min_language_probability": {"language_probability": 0.1},
    "max_given_wer": {"transcript__given_wer": 0.9},
}


def test_every_number_in_the_recipe_is_a_rule_of_this_test() -> None:
    numbers = {key for key, value in SelectConfig() if isinstance(value, float)}
    assert numbers == {*BEYOND, "text_language_must_agree_above"}


@pytest.mark.parametrize("rule", BEYOND)
def test_a_rule_drops_names_itself_and_can_be_switched_off(rule: str) -> None:
    bad = clip(**BEYOND[rule])
    verdict = judge(bad, SelectConfig())
    assert verdict is not None and verdict.threshold == getattr(SelectConfig(), rule)
    assert verdict.reason == rule.replace("min_", "low_").replace("max_", "high_")
    assert judge(bad, SelectConfig(**{rule: None})) is None


def test_a_good_clip_is_kept_and_a_missing_value_judges_nothing() -> None:
    assert judge(clip(), SelectConfig()) is None
    assert judge(clip(quality__snr_db=None), SelectConfig()) is None


def test_text_of_another_language_no_text_and_forced_cuts_are_dropped() -> None:
    reasons = [
        getattr(judge(clip(**change), SelectConfig()), "reason", None)
        for change in ({"transcript__text_language": "it"}, {"text": "  "}, {"cut": "forced"})
    ]
    assert reasons == ["text_in_another_language", "empty_transcript", "no_pause_to_cut"]
    assert judge(clip(cut="forced"), SelectConfig(allow_forced_cuts=True)) is None
