"""Words follow numbers, relative to gender and language, and a corpus moves them only as its speakers grow."""

from dataclasses import replace

import numpy as np
import pytest

from annotation.descriptions.facts import LEVELS, FactsConfig, Norms, describe_clip, fact_table, level
from voxmill.data.records import Fact, Prosody

CONFIG = FactsConfig()
NORMS = Norms(CONFIG)
PLAIN = Prosody(
    f0_median_hz=200.0,
    f0_std_semitones=3.0,
    f0_range_semitones=10.0,
    voiced_share=0.8,
    energy_std_db=7.0,
    energy_range_db=21.0,
    rate=5.8,
    articulation_rate=6.19,
    rate_unit="syllables",
    pauses=1,
    pause_share=0.08,
    longest_pause=0.3,
    hnr_db=12.5,
    spectral_tilt_db=16.0,
    jitter=0.03,
    shimmer=0.15,
)
NOTHING = Prosody(
    f0_median_hz=None,
    f0_std_semitones=None,
    f0_range_semitones=None,
    voiced_share=0.0,
    energy_std_db=None,
    energy_range_db=None,
    rate=None,
    articulation_rate=None,
    pause_share=0.0,
    longest_pause=0.0,
    hnr_db=None,
    spectral_tilt_db=None,
    jitter=None,
    shimmer=None,
    pauses=0,
    rate_unit="syllables",
)
WOMAN, MAN = ("female", 0.97), ("male", 0.97)


def words(prosody: Prosody, language: str = "en", **known: tuple[str, float]) -> dict[str, str]:
    return fact_table(describe_clip(prosody, NORMS, language, **known))  # type: ignore[arg-type]


def test_the_middle_of_every_scale_is_medium() -> None:
    words_of = words(PLAIN, gender=WOMAN)
    assert words_of == {
        "gender": "female",
        "register": "medium",
        "pitch": "medium",
        "intonation": "moderate",
        "rate": "moderate",
        "energy": "moderate",
        "pauses": "some",
    }


def test_the_same_pitch_is_high_for_a_man_and_medium_for_a_woman() -> None:
    assert words(PLAIN, gender=WOMAN)["pitch"] == "medium"
    assert words(PLAIN, gender=MAN)["pitch"] == "very high"
    assert words(PLAIN)["pitch"] in ("medium", "high")


def test_the_same_rate_is_fast_in_chinese_and_slow_in_spanish() -> None:
    assert words(PLAIN, "zh")["rate"] == "fast" and words(PLAIN, "zh-yue")["rate"] == "fast"
    assert words(PLAIN, "es")["rate"] == "slow"


@pytest.mark.parametrize(
    ("scale", "field", "values"),
    [
        ("pitch", "f0_median_hz", [130, 165, 200, 245, 320]),
        ("intonation", "f0_std_semitones", [1.0, 2.1, 3.0, 3.9, 5.5]),
        ("rate", "articulation_rate", [4.0, 5.2, 6.2, 7.4, 9.5]),
        ("energy", "spectral_tilt_db", [24, 19.5, 16, 12.5, 5]),
    ],
)
def test_words_rise_with_their_numbers(scale: str, field: str, values: list[float]) -> None:
    words_of = [words(replace(PLAIN, **{field: value}), gender=WOMAN)[scale] for value in values]  # type: ignore[arg-type]
    assert tuple(words_of) == LEVELS[scale]


def test_numbers_stay_beside_the_words() -> None:
    pitch = next(fact for fact in describe_clip(PLAIN, NORMS, "en", gender=WOMAN) if fact.attribute == "pitch")
    assert pitch == Fact("pitch", "style", "medium", value=200.0, unit="Hz", z=0.0, relative_to="female voices, en")
    gender = describe_clip(PLAIN, NORMS, "en", gender=WOMAN)[0]
    assert gender.axis == "design" and gender.probability == 0.97 and gender.value is None


def test_a_value_on_a_border_names_its_neighbour() -> None:
    def pitch(semitones: float) -> Fact:
        clip = replace(PLAIN, f0_median_hz=200 * 2 ** (semitones / 12))
        return next(fact for fact in describe_clip(clip, NORMS, "en", gender=WOMAN) if fact.attribute == "pitch")

    assert (pitch(0.5 * 2.7 + 0.1).word, pitch(0.5 * 2.7 + 0.1).also) == ("high", "medium")
    assert (pitch(0.5 * 2.7 - 0.1).word, pitch(0.5 * 2.7 - 0.1).also) == ("medium", "high")
    assert pitch(2.7).also == ""


def test_what_is_not_measured_is_no_fact() -> None:
    assert describe_clip(NOTHING, NORMS, "en") == []
    whisper = replace(NOTHING, rate=5.0, articulation_rate=6.0)
    assert set(words(whisper)) == {"rate", "pauses"}
    assert words(NOTHING, emotion=("sad", 0.8), age=("young", 0.7)) == {"age": "young", "emotion": "sad"}


def test_texture_is_named_only_where_it_stands_out() -> None:
    assert "texture" not in words(PLAIN, gender=WOMAN)
    assert words(replace(PLAIN, hnr_db=18.0), gender=WOMAN)["texture"] == "clear"
    assert words(replace(PLAIN, hnr_db=8.0, jitter=0.08), gender=WOMAN)["texture"] == "rough"
    assert words(replace(PLAIN, hnr_db=8.0, jitter=0.03), gender=WOMAN)["texture"] == "breathy"
    assert "texture" not in words(replace(PLAIN, hnr_db=8.0, jitter=0.055), gender=WOMAN)


def test_pauses_by_their_share_of_time() -> None:
    assert [words(replace(PLAIN, pause_share=share))["pauses"] for share in (0.0, 0.1, 0.4)] == ["few", "some", "many"]


def test_one_speaker_of_ten_thousand_clips_moves_little_and_many_speakers_move_the_middle() -> None:
    clip = replace(PLAIN, f0_median_hz=300.0)

    def middle(num_speakers: int, num_clips: int) -> float:
        names = [f"s{i}" for i in range(num_speakers) for _ in range(num_clips)]
        num = len(names)
        norms = Norms.fit(CONFIG, [clip] * num, names, ["female"] * num, ["en"] * num)
        return float(2 ** (norms.of("pitch", "female", "en")[0] / 12))

    assert middle(1, 10_000) == pytest.approx(middle(1, 1)) and middle(1, 1) < 210
    assert middle(200, 1) > 290


def test_norms_are_of_their_group_alone_and_survive_as_plain_data() -> None:
    rng = np.random.default_rng(0)
    clips = [replace(PLAIN, f0_median_hz=float(hz)) for hz in rng.normal(240, 20, 300)]
    names = [f"s{i % 100}" for i in range(300)]
    norms = Norms.fit(CONFIG, clips, names, ["female"] * 300, ["fr"] * 300)
    assert norms.of("pitch", "male", "fr") == NORMS.of("pitch", "male", "fr")
    assert norms.of("pitch", "female", "en") == NORMS.of("pitch", "female", "en")
    assert norms.of("pitch", "female", "fr")[0] > NORMS.of("pitch", "female", "fr")[0] + 2
    again = Norms(CONFIG, {key: tuple(value) for key, value in norms.corpus.items()})  # type: ignore[misc]
    assert again.of("pitch", "female", "fr") == norms.of("pitch", "female", "fr")
    assert Norms.fit(CONFIG, clips, [""] * 300, ["female"] * 300, ["fr"] * 300).corpus == {}


def test_a_corpus_of_copies_keeps_a_width() -> None:
    names = [f"s{i}" for i in range(500)]
    norms = Norms.fit(CONFIG, [PLAIN] * 500, names, [None] * 500, ["en"] * 500)
    assert norms.of("intonation", None, "en")[1] > 0.1


def test_levels_are_symmetric() -> None:
    assert [level(z) for z in (-9, -1.6, -1.4, -0.4, 0, 0.4, 1.4, 1.6, 9)] == [-2, -2, -1, 0, 0, 0, 1, 2, 2]
