"""Descriptions by grammar state exactly their facts, in every language and granularity, and read back as them."""

import itertools

import pytest

from annotation.descriptions.claims import read_claims
from annotation.descriptions.cleaning import clean
from annotation.descriptions.facts import AXES
from annotation.descriptions.grammar import write
from annotation.descriptions.lexicons import LEXICON_LANGUAGES, WORDS, lexicon
from annotation.descriptions.selection import GRANULARITIES
from voxmill.core.errors import UserError
from voxmill.data.records import DESCRIPTION_AXES, Axis, Granularity

FULL = {
    "gender": "female",
    "age": "young",
    "register": "low",
    "texture": "breathy",
    "pitch": "very high",
    "intonation": "lively",
    "rate": "slow",
    "energy": "very soft",
    "pauses": "many",
    "emotion": "sad",
    "dynamics": "wide",
    "ending": "rising",
    "phonation": "shouted",
    "channel": "telephone",
    "laughter": "laughing",
}


def claimed(text: str, language: str) -> set[tuple[str, str]]:
    claims = read_claims(text, language)
    assert not any(claim.negated for claim in claims), text
    return {(claim.attribute, claim.word) for claim in claims}


@pytest.mark.parametrize("language", LEXICON_LANGUAGES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("axis", DESCRIPTION_AXES)
def test_a_description_states_all_its_facts_and_nothing_else(
    language: str, granularity: Granularity, axis: Axis
) -> None:
    for seed in "abcdef":
        text = write(FULL, axis, granularity, language, seed)
        stated = {item for item in FULL.items() if axis in ("both", AXES[item[0]])}
        assert claimed(text, language) == stated, text
        assert clean(text).text == text


@pytest.mark.parametrize("language", LEXICON_LANGUAGES)
def test_every_word_reads_back_as_itself(language: str) -> None:
    for attribute, words in WORDS.items():
        for word, granularity, seed in itertools.product(words, GRANULARITIES, "abc"):
            text = write({attribute: word}, AXES[attribute], granularity, language, seed)
            assert claimed(text, language) == {(attribute, word)}, text


@pytest.mark.parametrize("language", LEXICON_LANGUAGES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_an_emphasised_word_is_quoted_and_claims_nothing_itself(language: str, granularity: Granularity) -> None:
    # Every word that would be a claim of its own outside of the quotation marks.
    for attribute, word in (("rate", "slow"), ("energy", "very soft"), ("emotion", "sad")):
        said = lexicon(language).tags[attribute][word][0]
        for seed in "abc":
            text = write({"emphasis": said, "pauses": "many"}, "style", granularity, language, seed)
            assert claimed(text, language) == {("emphasis", "stated"), ("pauses", "many")}, text
            assert said in text and clean(text).text == text


def test_a_corpuss_own_words_are_said_in_english() -> None:
    facts = {"gender": "female", "accent": "Indian English", "rate": "slow", "style": "news"}
    for granularity in GRANULARITIES:
        for seed in "abcde":
            text = write(facts, "both", granularity, "en", seed)
            assert "Indian English accent" in text and "news style" in text and "a Indian" not in text, text
            assert "Indian English accent" in write(facts, "design", granularity, "en", seed)
            # No other language has a place for them, nor English one for other letters.
            assert "Indian" not in write(facts, "both", granularity, "fr", seed)
            assert "広東" not in write({**facts, "accent": "広東"}, "both", granularity, "en", seed)


def test_sentences_are_sentences() -> None:
    assert write(FULL, "design", "sentence", "en", "1") == "A young lady with a breathy and low-pitched voice."
    style = write({"pitch": "low", "rate": "fast"}, "style", "sentence", "en", "1")
    assert style[0].isupper() and style.endswith(".") and " and " in style
    paragraph = write(FULL, "style", "paragraph", "en", "1")
    assert paragraph.count(".") == 2 and "  " not in paragraph and ". " in paragraph
    assert write(FULL, "style", "paragraph", "zh", "1").count("。") == 2


def test_without_facts_there_is_no_text() -> None:
    assert write({}, "style", "sentence", "en", "1") == ""
    assert write({"gender": "male"}, "style", "tags", "en", "1") == ""
    # A word of a model that the lexicon lacks is left out, not invented.
    assert write({"emotion": "nostalgic"}, "style", "tags", "en", "1") == ""


def test_wordings_differ_between_clips_and_not_between_runs() -> None:
    texts = {write(FULL, "style", "sentence", "en", f"clip{i}") for i in range(30)}
    assert len(texts) > 10
    assert write(FULL, "style", "sentence", "en", "clip1") == write(FULL, "style", "sentence", "en", "clip1")


def test_a_dialect_has_its_languages_words_and_a_missing_language_is_named() -> None:
    assert lexicon("zh-yue").name == "Chinese"
    said = write(
        {"gender": "female", "dialect": "Sichuanese", "texture": "rough"}, "design", "sentence", "zh-sichuan", "1"
    )
    assert said == "嗓音沙哑的一名女子，说四川话。"
    assert "speaking Sichuanese" in write({"dialect": "Sichuanese"}, "design", "phrase", "en", "1")
    assert write({"style": "song"}, "style", "tags", "ru", "1") == "песня"
    with pytest.raises(UserError, match="'sw'.*there are"):
        lexicon("sw")
