"""Languages of clips from probabilities: other clips and manifests make one likelier, and are no verdict."""

import dataclasses

import numpy as np
import pytest

from annotation.speech.spoken_languages import LanguageText, choose, decide, of_family

LANGUAGES = ("en", "es", "it", "no", "nn")


def heard(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def test_a_clip_in_another_language_than_its_recording_keeps_its_own() -> None:
    english, spanish = (0.97, 0.01, 0.01, 0.005, 0.005), (0.001, 0.985, 0.012, 0.001, 0.001)
    choices = choose(heard(*[english] * 5, spanish), [3.0] * 6)
    assert all(choice.places[0] == 0 for choice in choices[:5])
    assert {*choices[5].places} >= {0, 1}
    translated, said = (
        LanguageText(log_probability=-0.44, agreement=0.8),
        LanguageText(log_probability=-0.1, agreement=0.8),
    )
    texts = {0: translated, 1: said}
    verdict = decide(choices[5], [texts.get(place, translated) for place in choices[5].places])
    assert choices[5].places[verdict.number] == 1 and verdict.confidence > 0.9


def test_other_clips_decide_where_a_clip_alone_does_not_and_near_languages_are_both_tried() -> None:
    spanish, unsure = (0.01, 0.95, 0.02, 0.01, 0.01), (0.01, 0.35, 0.60, 0.02, 0.02)
    alone = choose(heard(unsure), [2.0])[0]
    assert alone.places[:2] == (2, 1)
    among = choose(heard(*[spanish] * 4, unsure), [3.0] * 5)[4]
    assert among.places[0] == 1
    certain = (0.001, 0.006, 0.99, 0.002, 0.001)
    near = choose(heard(*[spanish] * 4, certain), [3.0] * 5)[4]
    assert {1, 2} <= set(near.places)
    near = dataclasses.replace(near, places=near.places[:2], scores=near.scores[:2])
    # The text that the recogniser is surer of decides.
    texts = {1: LanguageText(log_probability=-0.9, agreement=0.9), 2: LanguageText(log_probability=-0.2, agreement=0.9)}
    verdict = decide(near, [texts[place] for place in near.places])
    assert near.places[verdict.number] == 2 and 0.9 < verdict.confidence <= 1
    # The same words in both: what they read as decides.
    written = {
        1: LanguageText(log_probability=-0.2, agreement=0.9),
        2: LanguageText(log_probability=-0.2, agreement=-0.9),
    }
    assert near.places[decide(near, [written[place] for place in near.places]).number] == 1


def test_a_given_language_holds_unless_the_sound_and_the_text_are_against_it() -> None:
    spanish = (0.001, 0.985, 0.012, 0.001, 0.001)
    assert choose(heard((0.7, 0.1, 0.1, 0.05, 0.05)), [3.0], given=0)[0].places == (0,)
    (conflict,) = choose(heard(spanish), [3.0], given=0)
    assert {*conflict.places} >= {0, 1}


def test_languages_that_text_does_not_tell_apart_count_as_one() -> None:
    probability, second, other = of_family(heard((0.1, 0.05, 0.05, 0.5, 0.3))[0], LANGUAGES, 4)
    assert probability == pytest.approx(0.8) and LANGUAGES[second] == "en" and other == pytest.approx(0.1)
    assert of_family(np.ones(1), ("en",), 0) == (1.0, 0, 0.0)
