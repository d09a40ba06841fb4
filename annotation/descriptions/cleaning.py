"""A description as it enters training: `"(" + description + ")" + text`, so neither may break the parentheses.

Writers answer with brackets, newlines, code fences and quotation marks. `clean` removes them and names what it removed,
so that a report can count it; a text that is of no use even then is refused with a reason.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from voxmill.data.transcript import plain_text

Refusal = Literal["empty", "too_long", "too_short"]
Removed = Literal["control", "brackets", "fence", "quotes", "markup"]

MAX_CHARACTERS = 600
_BRACKETS = "()（）[]［］{}｛｝【】〔〕<>＜＞⟨⟩❨❩﹙﹚⁽⁾₍₎"
_CONTROLS = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
_BRACKETS_TO_SPACES = dict.fromkeys(map(ord, _BRACKETS), " ")
_QUOTES = "\"'“”„«»‘’「」『』"


@dataclass(frozen=True, slots=True)
class Cleaned:
    """`text` on one line without any bracket; '' with a `refused`. `removed`: what was taken out, in this order."""

    text: str
    removed: tuple[Removed, ...]
    refused: Refusal | None = None


def clean(text: str, max_characters: int = MAX_CHARACTERS) -> Cleaned:
    """Makes a writer's answer fit for the prefix."""
    removed: list[Removed] = []
    now = unicodedata.normalize("NFC", text)

    def remove(kind: Removed, after: str) -> None:
        nonlocal now
        if after != now:
            removed.append(kind)
            now = after

    remove("fence", re.sub(r"```\w*", " ", now))
    # Controls, private use, surrogates and the separators of lines; invisible joiners, too, that would hide a bracket.
    if not now.isascii() or not now.isprintable():
        remove("control", "".join(" " if unicodedata.category(c) in _CONTROLS else c for c in now))
    remove("brackets", now.translate(_BRACKETS_TO_SPACES))
    remove("markup", re.sub(r"^\s*[-*#•]+\s+|[*_`]{1,3}", "", now))
    now = re.sub(r"\s+", " ", now).strip()
    now = re.sub(r" +([,.;:!?，。；：！？、])", r"\1", now)
    if len(now) > 1 and now[0] in _QUOTES and now[-1] in _QUOTES:
        remove("quotes", now[1:-1].strip())
    refused: Refusal | None = None
    letters = sum(map(str.isalpha, now))
    if not letters:
        refused = "empty"
    elif len(now) > max_characters:
        refused = "too_long"
    elif letters < 2:
        refused = "too_short"
    return Cleaned("" if refused else now, tuple(removed), refused)


def prefixed(description: str, text: str) -> str:
    """The training text of a described clip: half-width parentheses and no space after them.

    Parentheses in the transcript are taken out: at its start they would read as a second description.

    Raises:
        ValueError: the description has a bracket or more than one line; `clean` it first.
    """
    if not description or clean(description, len(description)).text != description:
        raise ValueError(f"not a clean description: {description!r}")
    return f"({description}){plain_text(text)}"
