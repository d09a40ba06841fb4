"""What a language model is asked about a clip: filled-in prompts. Text of data is quoted, so that it stays data."""

from collections.abc import Sequence
from dataclasses import dataclass

from annotation.descriptions.facts import FREE_WORDS
from voxmill.data.languages import language_name
from voxmill.llm.prompt_files import Prompt, quoted, read_prompt

PROMPTS, PARAPHRASE = "annotation.descriptions.prompts", "paraphrase_small.v1"
_NO_PROMPT = Prompt(name="recording alone", template="", sha256="")


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt, how it is filled in, and whether the clip's sound goes with it."""

    prompt: Prompt
    text: str
    with_audio: bool


def ask_for_texts(
    language: str, design: dict[str, str], style: dict[str, str], with_audio: bool, spoken: str
) -> Question:
    """For all texts in a language.

    Args:
        design, style: facts, word by attribute.
        spoken: the transcript; "" keeps it from the model.
    """
    prompt = read_prompt(PROMPTS, "describe_audio.v2" if with_audio else "describe_facts.v2")
    said = f"The words that are spoken: {quoted(spoken)}\n" if spoken else ""
    text = prompt.fill(language=language_name(language), design=listed(design), style=listed(style), spoken=said)
    return Question(prompt, text, with_audio)


def ask_for_prose() -> Question:
    """The recording alone: captioners take no instruction."""
    return Question(_NO_PROMPT, "", with_audio=True)


def ask_for_repair(language: str, text: str, wrong: str, facts: dict[str, str]) -> Question:
    """For a text whose claims are wrong once more."""
    prompt = read_prompt(PROMPTS, "repair_facts.v2")
    filled = prompt.fill(language=language_name(language), text=quoted(text), wrong=quoted(wrong), facts=listed(facts))
    return Question(prompt, filled, with_audio=False)


def ask_to_read_back(texts: Sequence[str]) -> Question:
    """For texts in English, so that their claims can be read; the facts stay unsaid."""
    prompt = read_prompt(PROMPTS, "read_back.v1")
    return Question(prompt, prompt.fill(texts="\n".join(quoted(text) for text in texts)), with_audio=False)


def listed(facts: dict[str, str]) -> str:
    """Facts in one line; words that are a corpus's own in quotation marks."""
    words = {name: quoted(word) if name in FREE_WORDS else word for name, word in facts.items()}
    return "; ".join(f"{name}: {word}" for name, word in words.items()) or "none"
