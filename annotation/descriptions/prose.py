"""Captions of models that answer in prose, such as Qwen3-Omni-Captioner, which take a recording and no instruction.

Their sentences are read by the parser of claims. One that claims nothing of a voice (that there is an audio clip, what
is said in it) or that is false is left out; the others become the texts of the axes that they are of.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence

from annotation.descriptions.claims import read_claims
from annotation.descriptions.cleaning import MAX_CHARACTERS
from annotation.descriptions.facts import AXES
from annotation.descriptions.reply_schema import AxisTexts, DescriptionReply, answered
from annotation.descriptions.spoken_words import repeats_words

LANGUAGE = "en"
"""In which captioners answer, whatever is spoken."""
_PRONOUNS = re.compile(r"(?i)\b(?:he|she|him|her|his|hers)\b")
_BACKGROUND = re.compile(
    r"(?i)\b(?:(?:faint|low|soft|quiet|loud|high|deep|gentle|slight|constant|steady|slow|fast|electronic|electrical|ambient"
    r"|background|distant|low-frequency|high-pitched|muffled)[ -])*"
    r"(?:hum(?:ming)?|hiss(?:ing)?|noises?|music|static|background|ambience|beeps?|clicks?|buzz(?:ing)?|rumble|chatter)\b"
)
"""What is heard beside the voice, whose 'low' or 'faint' claims nothing of it."""
_QUOTED = re.compile(r"[\"“”„«»「」『』]|(?<!\w)['‘][^'’]{8,}['’](?!\w)")


def read_prose(answer: str, transcript: str, is_false: Callable[[str], bool], counts: Counter[str]) -> DescriptionReply:
    """The texts of a caption; empty where it has none.

    Args:
        transcript: sentences that repeat it are left out; "" to leave out none for that.
        is_false: whether a sentence claims what the evidence denies.
        counts: `prose_spoken`, `prose_unread`, `prose_false` and `prose_kept` sentences are counted there.

    Raises:
        BadReplyError: nothing was answered, or HTML.
    """
    design: list[str] = []
    style: list[str] = []
    both: list[str] = []
    whole: list[str] = []
    for sentence in _sentences(answered(answer)):
        # A pronoun says who speaks, and is no description of the voice.
        of_the_voice = _BACKGROUND.sub("it", _PRONOUNS.sub("they", sentence))
        axes = {AXES[claim.attribute] for claim in read_claims(of_the_voice, LANGUAGE)}
        if transcript and (_QUOTED.search(sentence) or repeats_words(sentence, transcript)):
            counts["prose_spoken"] += 1
        elif not axes:
            counts["prose_unread"] += 1
        elif is_false(sentence):
            counts["prose_false"] += 1
        else:
            counts["prose_kept"] += 1
            whole.append(sentence)
            (both if len(axes) > 1 else design if "design" in axes else style).append(sentence)
    # A paragraph of both has to speak of both, in one sentence or in several.
    mixed = whole if both or (design and style) else []
    return DescriptionReply(design=_texts(design), style=_texts(style), both=_texts(mixed, both))


def _texts(sentences: Sequence[str], single: Sequence[str] | None = None) -> AxisTexts:
    """The sentence that claims most, and all of them as a paragraph where there are several."""
    one = max(single if single is not None else sentences, key=_num_claims, default="")
    kept: list[str] = []
    for sentence in sentences:
        if sum(map(len, kept)) + len(kept) + len(sentence) <= MAX_CHARACTERS:
            kept.append(sentence)
    return AxisTexts(tags="", phrase="", sentence=one, paragraph=" ".join(kept) if len(kept) > 1 else "")


def _num_claims(sentence: str) -> int:
    return len(read_claims(sentence, LANGUAGE))


def _sentences(answer: str) -> list[str]:
    """Sentences on one line each, without marks of headings and lists; nothing longer than a description may be."""
    plain = re.sub(r"(?m)^\s*(?:[#>*•-]+|\d+[.)])\s+|[*_`]{1,3}", "", answer)
    parts = re.split(r"(?<=[.!?])[\"”’]?\s+|\n+", plain)
    sentences = (" ".join(part.split()) for part in parts)
    return [sentence for sentence in sentences if sentence and len(sentence) <= MAX_CHARACTERS]
