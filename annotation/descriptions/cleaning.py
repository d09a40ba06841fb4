"""A description as it enters training: `"(" + description + ")" + text`, so neither may break the parentheses.

Writers answer with brackets, newlines, code fences and quotation marks. `clean` takes them out and says what it mended,
so that a report can count it; what cannot be mended is refused with a reason.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

Refusal = Literal["empty", "too_long", "too_short"]
Mend = Literal["control", "brackets", "fence", "quotes", "markup"]

MAX_CHARACTERS = 600
_BRACKETS = "()（）[]［］{}｛｝【】〔〕<>＜＞⟨⟩❨❩﹙﹚⁽⁾₍₎"
_QUOTES = "\"'“”„«»‘’「」『』"


@dataclass(frozen=True)
class Cleaned:
    """`text` on one line without any bracket; '' with a `refused`. `mended` says what had to be done."""

    text: str
    mended: tuple[Mend, ...]
    refused: Refusal | None = None


def clean(text: str, max_characters: int = MAX_CHARACTERS) -> Cleaned:
    """Makes a writer's answer fit for the prefix."""
    mended: list[Mend] = []
    now = unicodedata.normalize("NFC", text)

    def mend(name: Mend, after: str) -> None:
        nonlocal now
        if after != now:
            mended.append(name)
            now = after

    mend("fence", re.sub(r"```\w*", " ", now))
    # Controls, private use, surrogates and the separators of lines; invisible joiners, too, that would hide a bracket.
    mend("control", "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp") else c for c in now))
    mend("brackets", now.translate({ord(c): " " for c in _BRACKETS}))
    mend("markup", re.sub(r"^\s*[-*#•]+\s+|[*_`]{1,3}", "", now))
    now = re.sub(r"\s+", " ", now).strip()
    now = re.sub(r" +([,.;:!?，。；：！？、])", r"\1", now)
    if len(now) > 1 and now[0] in _QUOTES and now[-1] in _QUOTES:
        mend("quotes", now[1:-1].strip())
    refused: Refusal | None = None
    if not any(c.isalpha() for c in now):
        refused = "empty"
    elif len(now) > max_characters:
        refused = "too_long"
    elif sum(c.isalpha() for c in now) < 2:
        refused = "too_short"
    return Cleaned("" if refused else now, tuple(mended), refused)


def prefixed(description: str, text: str) -> str:
    """The training text of a described clip: half-width parentheses and no space after them.

    Parentheses in the transcript are taken out: at its start they would read as a second description.

    Raises:
        ValueError: the description has a bracket or more than one line; `clean` it first.
    """
    if not description or clean(description, len(description)).text != description:
        raise ValueError(f"not a clean description: {description!r}")
    return f"({description}){plain_text(text)}"


def plain_text(text: str) -> str:
    """A transcript without round brackets and on one line."""
    return re.sub(r"\s+", " ", text.translate({ord(c): " " for c in "()（）﹙﹚"})).strip()
