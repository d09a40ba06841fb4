"""Facts that are said only where a measure is far from ordinary, and nothing in between."""

from dataclasses import replace

import pyarrow as pa
import pytest

from annotation.descriptions.facts import FactsConfig, Norms, describe_clip, fact_table
from annotation.descriptions.voice_facts import VoiceFactsConfig, is_creaky, voice_facts
from tests.annotation.descriptions.test_facts import NOTHING, PLAIN
from voxmill.data.records import Prosody, StressedWord, from_json_text, to_json_text
from voxmill.data.schemas import from_table, to_table

CONFIG = VoiceFactsConfig()
WHISPER = replace(NOTHING, voiced_share=0.02, tilt_db=-6.0, creak_share=0.01, energy_std_db=10.0)


def words(prosody: Prosody) -> dict[str, str]:
    return fact_table(voice_facts(prosody, CONFIG))


@pytest.mark.parametrize(
    ("measure", "values", "expected"),
    [
        ("loudness_std_db", (0.5, 1.3, 2.3, 3.7, 7.0), ("flat", "", "moderate", "", "wide")),
        ("f0_end_semitones", (-6.0, -1.5, 0.0, 1.5, 6.0), ("falling", "", "", "", "rising")),
        ("decay_db_per_s", (120.0, 250.0, 500.0), ("distant", "", "")),
    ],
)
def test_words_leave_a_gap_between_each_other(
    measure: str, values: tuple[float, ...], expected: tuple[str, ...]
) -> None:
    said = [next(iter(words(replace(PLAIN, **{measure: value})).values()), "") for value in values]  # type: ignore[arg-type]
    assert tuple(said) == expected


def test_old_clips_without_the_measures_have_none_of_these_facts() -> None:
    assert words(PLAIN) == {} and words(NOTHING) == {} and not is_creaky(PLAIN, CONFIG)


def test_a_line_is_narrow_on_both_sides() -> None:
    assert words(replace(PLAIN, low_band_db=-5.0, high_band_db=-90.0)) == {"channel": "telephone"}
    assert words(replace(PLAIN, low_band_db=10.0, high_band_db=-90.0)) == {}
    assert words(replace(PLAIN, low_band_db=-5.0, high_band_db=-25.0)) == {}


def test_whispers_falsetto_and_shouts_are_told_from_hoarse_voices_and_from_children() -> None:
    assert words(WHISPER) == {"phonation": "whispered"}
    assert words(replace(WHISPER, creak_share=0.4)) == {} and words(replace(WHISPER, tilt_db=4.0)) == {}
    assert words(replace(WHISPER, tilt_db=None)) == {} and words(replace(WHISPER, energy_std_db=0.5)) == {}
    assert words(replace(PLAIN, f0_median_hz=510.0, hnr_db=14.0)) == {"phonation": "falsetto"}
    assert words(replace(PLAIN, f0_median_hz=320.0, hnr_db=14.0)) == {}
    assert words(replace(PLAIN, f0_median_hz=400.0, spectral_tilt_db=2.0)) == {"phonation": "shouted"}
    # A few frames of a high pitch in a voice that otherwise has none are errors of the tracker.
    assert words(replace(PLAIN, f0_median_hz=550.0, spectral_tilt_db=-2.0, voiced_share=0.13)) == {}


def test_emphasised_words_are_the_fact_without_their_punctuation() -> None:
    def stressed(word: str, score: float) -> StressedWord:
        return StressedWord(word=word, start=0.0, end=0.3, score=score)

    some = (stressed("«Never!»", 2.0), stressed("mind", 1.0), stressed("again.", 1.6))
    assert words(replace(PLAIN, emphasis=some)) == {"emphasis": "Never, again"}
    assert words(replace(PLAIN, emphasis=(stressed("mind", 1.0), stressed("…", 3.0)))) == {}
    # What a transcript may hold besides words does not get among facts.
    odd = (stressed("“fast”, shouts", 2.0), stressed("{facts}", 2.0), stressed("don’t", 2.0))
    assert words(replace(PLAIN, emphasis=odd)) == {"emphasis": "fast, facts, don’t"}


def test_a_clear_voice_has_a_cepstral_peak_and_a_creaky_one_is_neither_rough_nor_breathy() -> None:
    def texture(**changes: float) -> str | None:
        facts = describe_clip(replace(PLAIN, **changes), Norms(FactsConfig()), "en", gender=("female", 0.97))  # type: ignore[arg-type]
        return fact_table(facts).get("texture")

    assert texture(hnr_db=18.0, cpp_db=20.0) == "clear" and texture(hnr_db=18.0, cpp_db=15.0) is None
    assert texture(hnr_db=8.0, jitter=0.08, creak_share=0.1) == "rough"
    assert texture(hnr_db=8.0, jitter=0.08, creak_share=0.5) == "creaky"


def test_under_noise_that_hides_the_pitch_nothing_is_said_of_it() -> None:
    hidden = replace(PLAIN, voiced_share=0.14, f0_end_semitones=6.0, hnr_db=3.0, jitter=0.09)
    facts = fact_table(describe_clip(hidden, Norms(FactsConfig()), "en"))
    assert "ending" not in facts and "texture" not in facts


def test_what_a_corpus_gives_counts() -> None:
    facts = describe_clip(WHISPER, Norms(FactsConfig()), "en", given={"phonation": "shouted"})
    assert [fact.word for fact in facts if fact.attribute == "phonation"] == ["shouted"]


def test_measures_of_older_runs_are_read() -> None:
    new = [name for name, field in Prosody.__dataclass_fields__.items() if field.default in (None, ())]
    assert len(new) == 9
    text = to_json_text({name: value for name, value in fields_of(PLAIN).items() if name not in new})
    assert from_json_text(Prosody, text) == PLAIN
    table = to_table([replace(PLAIN, cpp_db=18.0)], Prosody)
    assert from_table(Prosody, table.drop_columns(new)) == [PLAIN]
    assert from_table(Prosody, pa.concat_tables([table])) == [replace(PLAIN, cpp_db=18.0)]


def fields_of(prosody: Prosody) -> dict[str, object]:
    return {name: getattr(prosody, name) for name in Prosody.__dataclass_fields__}
