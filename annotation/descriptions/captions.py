"""Captions that a corpus brings, as descriptions: verified like others, and dropped like them."""

import re
from collections import Counter

from annotation.descriptions.claims import Reading, read
from annotation.descriptions.cleaning import clean
from annotation.descriptions.facts import AXES
from annotation.descriptions.lexicons import LEXICON_LANGUAGES
from annotation.descriptions.verification import Evidence, VerificationConfig, verify_reading
from annotation.speech.text_checks import text_language
from voxmill.data.languages import base_language
from voxmill.data.records import Axis, Description

GENERATOR = "given"
LANGUAGE_FROM = 0.7
"""Below this probability the detected language of a caption is not trusted: most are in English."""
_ENDS = re.compile(r"[.!?。！？](?=\s|$|[^\s.])")


def given_description(caption: str, evidence: Evidence, config: VerificationConfig) -> tuple[Description | None, str]:
    """A corpus's caption of a clip as a description, or None and why it is none.

    Its axis is that of most of its claims; whoever wrote it may know more than the facts. Parts that cannot be read are
    `unread` on it, the whole of a text in a language without a lexicon.
    """
    cleaned = clean(caption)
    if cleaned.refused:
        return None, cleaned.refused
    code, probability = text_language(cleaned.text)
    language = base_language(code) if probability >= LANGUAGE_FROM else "en"
    # Without words of its language nothing of it can be read: it is kept, and is not verified.
    reading = read(cleaned.text, language) if language in LEXICON_LANGUAGES else Reading((), (cleaned.text,))
    checked = verify_reading(reading, "both", evidence, config.model_copy(update={"only_facts": False}))
    if checked.failed or (language in LEXICON_LANGUAGES and not checked.passed):
        wrong = [f"{verdict.attribute}: {verdict.claimed}" for verdict in checked.failed]
        return None, "; ".join(wrong) or "no claim could be confirmed"
    axes = Counter(AXES[verdict.attribute] for verdict in checked.verdicts)
    axis: Axis = "design" if axes["design"] > axes["style"] else "style"
    description = Description(
        axis=axis,
        granularity="paragraph" if len(_ENDS.findall(cleaned.text)) > 1 else "sentence",
        language=language,
        text=cleaned.text,
        generator=GENERATOR,
        verdicts=checked.verdicts,
        unread=checked.unread,
    )
    return description, ""
