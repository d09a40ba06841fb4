"""How true and how varied descriptions are, by writer, on the sample voices.

    python benchmarks/writers.py [--clips 40] [--endpoint URL --model NAME]

Facts are measured on the sample turns. Rows: the grammar; the embedded model's raw rewordings, and those left after
checks, repair and fallback; the same model asked for JSON from facts, through its own OpenAI-compatible endpoint on
loopback (or another endpoint, if one is given). Recall is the share of the axis's facts that the text mentions,
contradiction the share of texts with a claim that fails, unread the share with words that the reader does not know.
Well-formed is a proxy for fluency: a capital, a full stop, three words or more, no word twice in a row; it does not see
nonsense. Distinct-n is different word n-grams over all. The second table is about verification: the grammar's texts
with one fact replaced by the next word of its scale or by a farther one, in every language; the words are the reader's
own, so it measures the judgement, not the reading of free wordings. The last line is one JSON object.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from annotation.descriptions.claims import unread_words  # noqa: E402
from annotation.descriptions.config import DescriptionsConfig  # noqa: E402
from annotation.descriptions.described import DescribedClip  # noqa: E402
from annotation.descriptions.describer import Describer  # noqa: E402
from annotation.descriptions.facts import AXES, LEVELS, FactsConfig, Norms, describe_clip, fact_table  # noqa: E402
from annotation.descriptions.grammar import write  # noqa: E402
from annotation.descriptions.lexicons import LEXICON_LANGUAGES, WORDS  # noqa: E402
from annotation.descriptions.questions import PARAPHRASE, PROMPTS  # noqa: E402
from annotation.descriptions.verification import Evidence, recall, verify  # noqa: E402
from annotation.voice.gender import GenderClassifier, GenderConfig  # noqa: E402
from annotation.voice.prosody import ProsodyConfig, ProsodyMeter  # noqa: E402
from benchmarks.support.tables import table  # noqa: E402
from samples.turns import RATE, sample_turns  # noqa: E402
from voxmill.core.assets import asset_path  # noqa: E402
from voxmill.core.errors import command  # noqa: E402
from voxmill.data.records import Axis, Prosody, Word  # noqa: E402
from voxmill.llm.chat_endpoint import ChatEndpoint, EndpointConfig  # noqa: E402
from voxmill.llm.embedded_llm import EmbeddedLlm, EmbeddedLlmConfig  # noqa: E402
from voxmill.llm.prompt_files import read_prompt  # noqa: E402

BOTH: tuple[Axis, Axis] = ("design", "style")


def sample_clips(limit: int) -> list[DescribedClip]:
    """Sample turns with their evidence, spread over the recordings; norms are those of all turns."""
    turns = sample_turns()
    meter = ProsodyMeter(ProsodyConfig())
    genders = GenderClassifier(GenderConfig(), asset_path("voice2gender"), cnn=asset_path("gender-cnn"))(
        [turn.audio for turn in turns]
    )
    measured: list[Prosody] = []
    for turn in turns:
        # A turn has no word times here: rate is over all of it, and pauses are unknown.
        word = Word(turn.text, 0.0, len(turn.audio) / RATE, 1.0)
        measured.append(meter(turn.audio, [word], turn.text, turn.language))
    labels = [gender.value.label if gender.value else None for gender in genders]
    languages = [turn.language for turn in turns]
    norms = Norms.fit(FactsConfig(), measured, [turn.speaker for turn in turns], labels, languages)
    clips = []
    for i, turn in enumerate(turns):
        gender = genders[i].value
        known = (gender.label, gender.probability) if gender else None
        classes = {"gender": gender.probabilities} if gender else {}
        facts = [f for f in describe_clip(measured[i], norms, turn.language, known) if f.attribute != "pauses"]
        clips.append(DescribedClip(f"{turn.recording}-{i}", turn.language, Evidence(facts, classes)))
    step = max(len(clips) // limit, 1)
    return clips[::step][:limit]


@dataclass
class Tally:
    """Figures of one writer's texts."""

    recalls: list[float] = field(default_factory=list)
    contradicted: int = 0
    unread: int = 0
    well_formed: int = 0
    texts: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, text: str, axis: Axis, clip: DescribedClip) -> None:
        checked = verify(text, "en", axis, clip.evidence)
        share = recall(checked.verdicts, fact_table(clip.evidence.facts), axis)
        self.recalls.append(0.0 if share is None else share)
        self.contradicted += bool(checked.failed)
        self.unread += bool(unread_words(text, "en"))
        self.well_formed += is_well_formed(text)
        self.texts.append(text)

    def cells(self, name: str, asked: int) -> list[str]:
        num = len(self.texts)
        if not num:
            return [name, f"0/{asked}", *["-"] * 7]
        return [
            name,
            f"{num}/{asked}",
            f"{sum(self.recalls) / num:.0%}",
            f"{self.contradicted / num:.0%}",
            f"{self.unread / num:.0%}",
            f"{self.well_formed / num:.0%}",
            f"{distinct(self.texts, 1):.2f}",
            f"{distinct(self.texts, 2):.2f}",
            f"{self.seconds / max(asked, 1):.2f}",
        ]


def is_well_formed(text: str) -> bool:
    """The shape of a sentence."""
    words = text.lower().split()
    repeated = any(a == b for a, b in zip(words[:-1], words[1:], strict=True))
    return bool(re.match(r"[A-Z].*\.$", text)) and len(words) >= 3 and not repeated


def distinct(texts: Sequence[str], n: int) -> float:
    """Different word n-grams over all word n-grams of the texts, 0..1."""
    grams = []
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        grams += [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def has_facts(clip: DescribedClip, axis: Axis) -> bool:
    return any(AXES[fact.attribute] == axis for fact in clip.evidence.facts)


def corrupted_rows(clips: Sequence[DescribedClip]) -> list[list[str]]:
    """How often verification fails a true text, and texts with one wrong fact."""
    rows = []
    for language in LEXICON_LANGUAGES:
        failed: dict[str, list[bool]] = {"true": [], "next": [], "farther": []}
        for clip in clips:
            facts = fact_table(clip.evidence.facts)
            for attribute, true_word in facts.items():
                words = WORDS[attribute]
                for word in words:
                    steps = abs(words.index(word) - words.index(true_word))
                    kind = "true" if not steps else "next" if attribute in LEVELS and steps == 1 else "farther"
                    axis = AXES[attribute]
                    text = write({**facts, attribute: word}, axis, "sentence", language, clip.clip_id)
                    failed[kind].append(bool(verify(text, language, axis, clip.evidence).failed))
        rows.append([language, *[f"{sum(f)}/{len(f)} ({sum(f) / max(len(f), 1):.0%})" for f in failed.values()]])
    return rows


@command("benchmarks/writers.py")
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--endpoint", help="an OpenAI-compatible address, such as http://host:8000/v1")
    parser.add_argument("--model", default="smollm2-135m")
    options = parser.parse_args()
    clips = sample_clips(options.clips)
    asked = [(clip, axis) for clip in clips for axis in BOTH if has_facts(clip, axis)]
    template, raw, kept, endpoint = Tally(), Tally(), Tally(), Tally()
    for clip, axis in asked:
        template.add(write(fact_table(clip.evidence.facts), axis, "sentence", "en", clip.clip_id), axis, clip)
    llm = EmbeddedLlm(EmbeddedLlmConfig(), read_prompt(PROMPTS, PARAPHRASE), asset_path("smollm2-135m"))
    started = time.perf_counter()
    for (clip, axis), sentence in zip(asked, template.texts, strict=True):
        raw.add(llm.rewrite(sentence, 0), axis, clip)
    raw.seconds = time.perf_counter() - started
    only_english = {"granularities": ("sentence",), "clip_language": False}
    rewriting = Describer(DescriptionsConfig.model_validate({"writer": "embedded", **only_english}), rewriter=llm)
    own_words = 0
    started = time.perf_counter()
    for clip in clips:
        for description in rewriting(clip).kept:
            kept.add(description.text, description.axis, clip)
            own_words += description.generator != "template"
    kept.seconds = time.perf_counter() - started
    address = options.endpoint or f"{llm.address}/v1"
    config = EndpointConfig(url=address, model=options.model, max_tokens=500, temperature=0.3, timeout_seconds=120)
    chat = ChatEndpoint(config)
    asking = Describer(DescriptionsConfig.model_validate({"writer": "endpoint", **only_english}), chat=chat)
    started = time.perf_counter()
    from_endpoint = clips if options.endpoint else clips[:10]
    for clip in from_endpoint:
        for description in asking(clip).kept:
            if description.generator != "template":
                endpoint.add(description.text, description.axis, clip)
    endpoint.seconds = time.perf_counter() - started
    wanted = sum(has_facts(clip, axis) for clip in from_endpoint for axis in BOTH)
    headings = ["writer", "texts", "recall", "contradiction", "unread", "well-formed", "dist-1", "dist-2", "s a text"]
    rows = [
        template.cells("grammar", len(asked)),
        raw.cells("embedded, raw", len(asked)),
        kept.cells("embedded, checked", len(asked)),
        endpoint.cells("facts to JSON, kept", wanted),
    ]
    console = Console(width=120)
    console.print(table("English sentences of both axes", headings, rows))
    corrupted = ["language", "failed: true texts", "one fact moved by a word", "moved farther"]
    console.print(table("verification of corrupted texts", corrupted, corrupted_rows(clips)))
    console.print(f"embedded, checked: {own_words} of {len(kept.texts)} in the model's own words, the rest by grammar")
    console.print("embedded counts", dict(rewriting.counts))
    console.print("endpoint counts", dict(asking.counts), chat.usage)
    for text in [text for text in kept.texts if text not in template.texts][:6]:
        console.print("  kept:", text)
    numbers = {"own_words": own_words, "texts": len(kept.texts), "raw_contradicted": raw.contradicted}
    print(json.dumps(numbers))


if __name__ == "__main__":
    sys.exit(main())
