"""Claims that are read in a text: what is looked for as a string first is found as if every pattern were tried."""

import random
import re

import pytest

from annotation.descriptions.claims import _beginning, _wordings, read_claims
from annotation.descriptions.lexicons import LEXICON_LANGUAGES, lexicon


@pytest.mark.parametrize(
    ("expression", "beginning"),
    [
        ("deadpan", "deadpan"),
        ("wom[ae]n", "wom"),
        ("girls?", "girl"),
        ("low(?:er)?[- ]pitch", "low"),
        ("(?:very|quite) low", ""),
        ("slow|fast", ""),
        ("slow(?:ly)?|fast", ""),
        ("a?b", ""),
        (r"\w+ voice", ""),
        ("so(?:me(?:what)?)? deep", ""),
    ],
)
def test_the_beginning_is_in_every_match(expression: str, beginning: str) -> None:
    assert _beginning(expression) == beginning


@pytest.mark.parametrize("language", sorted(LEXICON_LANGUAGES))
def test_no_wording_is_passed_over(language: str) -> None:
    choice, wordings = random.Random(0), _wordings(language)
    expressions = [e for by_word in lexicon(language).also.values() for some in by_word.values() for e in some]
    tables = (lexicon(language).design, lexicon(language).clauses, lexicon(language).tags)
    known = [wording for table in tables for by_word in table.values() for some in by_word.values() for wording in some]
    words = [word for text in (*expressions, *known) for word in re.findall(r"[^\W\d_]+", text)]
    for _ in range(300):
        text = " ".join(choice.choice(words) for _ in range(12)).lower()
        for wording in wordings:
            assert wording.literal in text or wording.pattern.search(text) is None, (wording, text)


def test_a_negation_reaches_three_words() -> None:
    assert [claim.negated for claim in read_claims("She does not speak slowly.", "en") if claim.word == "slow"] == [
        True
    ]
    assert [claim.negated for claim in read_claims("Not loud, she speaks slowly.", "en") if claim.word == "slow"] == [
        False
    ]
