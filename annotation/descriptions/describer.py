"""Descriptions of a clip in words: written, cleaned, verified, once repaired, or dropped. Report section 3.6.

Two axes (design: the voice; style: this delivery), four granularities, several wordings, in English and in the clip's
language. Three kinds of writers: the grammar, which is true by construction; the embedded model, which puts the
grammar's sentences in other words; an endpoint or a batch of engines, which write from facts or, if they hear, from the
clip. Whatever a writer says is verified against
the clip's evidence, and where nothing usable comes the grammar answers, and that is counted. A clip is never lost.
"""

import base64
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import Field

from annotation.descriptions.claims import unread_words
from annotation.descriptions.cleaning import clean
from annotation.descriptions.facts import AXES, fact_table
from annotation.descriptions.grammar import GRANULARITIES, write
from annotation.descriptions.lexicons import LEXICON_LANGUAGES
from annotation.descriptions.reply_schema import AxisTexts, BadReplyError, DescriptionReply, RepairReply, parse_reply
from annotation.descriptions.verification import Checked, Evidence, VerificationConfig, recall, verify
from annotation.speech.text_checks import text_language
from voxmill.core.config import Config
from voxmill.core.languages import base_language, language_name
from voxmill.data.records import Axis, Description, FactWord, Granularity
from voxmill.llm.batch_chat import BatchLlmConfig
from voxmill.llm.chat_endpoint import EndpointConfig, NoAnswerError
from voxmill.llm.embedded_llm import EmbeddedLlmConfig
from voxmill.llm.prompt_files import prompt
from voxmill.llm.reply_cache import ReplyCache, reply_key

RATE = 16000
BOTH: tuple[Axis, Axis] = ("design", "style")


class DescriptionsConfig(Config):
    """Who writes what. `clip_language`: also in the clip's language, where `annotation/descriptions/lexicon/` has its words.

    `wordings`: how many texts of each axis, granularity and language; equal ones are kept once. `hears`: the model
    understands audio and is sent the clip. `attempts`: how often an unusable reply is asked for again. Below
    `language_from`, the detector's opinion of a text's language is not trusted.
    """

    writer: Literal["template", "embedded", "endpoint", "processor"] = "template"
    """Who words the facts: the built-in grammar, an embedded LLM, a chat endpoint, or Ray Data's LLM processor."""
    granularities: tuple[Granularity, ...] = GRANULARITIES
    """Lengths in which each axis is described: tags, phrase, sentence, paragraph."""
    wordings: int = Field(2, ge=1)
    """Texts of each axis, granularity and language; equal ones are kept once."""
    clip_language: bool = True
    """Describe also in the clip's own language, where the lexicon has it."""
    hears: bool = False
    """The endpoint's model understands audio and is sent the clip."""
    attempts: int = 2
    """How often an unusable reply is asked for again."""
    language_from: float = 0.7
    """Below this probability (0..1) the detected language of a text is not trusted."""
    endpoint: EndpointConfig = EndpointConfig()
    processor: BatchLlmConfig = BatchLlmConfig()
    embedded: EmbeddedLlmConfig = EmbeddedLlmConfig()
    verification: VerificationConfig = VerificationConfig()


@dataclass(frozen=True)
class DescribedClip:
    """What a writer gets: `clip_id` names the content. `audio`: float32 [samples] at 16 kHz, for writers that hear."""

    clip_id: str
    language: str
    evidence: Evidence
    audio: np.ndarray | None = None


@dataclass(frozen=True)
class Dropped:
    """A text that was given up, with its last wording. The grammar's stands in its place, unless that failed, too."""

    axis: Axis
    granularity: Granularity
    language: str
    text: str
    reason: str


@dataclass(frozen=True)
class Descriptions:
    """All descriptions of one clip and what was dropped."""

    kept: list[Description]
    dropped: list[Dropped]


class Chat(Protocol):
    """A model behind an endpoint (`ChatEndpoint`)."""

    name: str

    @property
    def identity(self) -> dict[str, Any]:
        """What an answer depends on besides the messages."""

    def ask(self, messages: Sequence[dict[str, Any]], seed: int = 0) -> str:
        """The answer's text."""


class Rewriter(Protocol):
    """A model that puts a sentence in other words (`EmbeddedLlm`)."""

    name: str

    @property
    def identity(self) -> dict[str, Any]:
        """What an answer depends on besides the sentence."""

    def rewrite(self, sentence: str, seed: int) -> str:
        """The sentence in other words, or anything."""


@dataclass
class _Draft:
    axis: Axis
    granularity: Granularity
    language: str
    wording: int
    text: str
    checked: Checked | None = None
    problem: str = ""


class Describer:
    """Describes clips one after another; may be interrupted and called again with the same cache.

    For many requests at once give each thread a describer of its own with the same chat and cache folder.

    Args:
        chat: for `writer: endpoint`; rewriter: for `writer: embedded`.
        cache: folder of replies, None to keep none.

    `counts` says what happened: `without_facts`, `no_words_for_language`, `asked`, `cached`, `reply_*` (unusable replies
    by defect), `no_answer_*`, `mended_*`, `refused_*`, `written`, `failed`, `repaired`, `dropped`, `by_template`.
    """

    def __init__(
        self,
        config: DescriptionsConfig,
        chat: Chat | None = None,
        rewriter: Rewriter | None = None,
        cache: Path | None = None,
    ):
        asks = config.writer in ("endpoint", "processor")
        assert (chat is not None) == asks, "a writer that asks needs a chat"
        assert (rewriter is not None) == (config.writer == "embedded"), "the embedded writer needs a rewriter"
        self.config, self._chat, self._rewriter, self._cache = config, chat, rewriter, ReplyCache(cache)
        self.counts: Counter[str] = Counter()
        # A writer with ears may know what is not among the facts; the others cannot.
        self._verification = config.verification.model_copy(update={"only_facts": not config.hears})

    def __call__(self, clip: DescribedClip) -> Descriptions:
        """Describes one clip.

        Raises:
            JobError: the endpoint is down, refuses the key, or the budget is spent.
        """
        if not clip.evidence.facts and not self.config.hears:
            self.counts["without_facts"] += 1
            return Descriptions([], [])
        languages = ["en"]
        own = base_language(clip.language)
        if self.config.clip_language and own != "en":
            if own in LEXICON_LANGUAGES:
                languages.append(own)
            else:
                self.counts["no_words_for_language"] += 1
        kept: list[Description] = []
        dropped: list[Dropped] = []
        for language in languages:
            for wording in range(self.config.wordings):
                for draft in self._drafts(clip, language, wording):
                    self._finish(clip, draft, kept, dropped)
        return Descriptions(kept, dropped)

    def _drafts(self, clip: DescribedClip, language: str, wording: int) -> list[_Draft]:
        wanted = [(axis, level, language, wording) for axis in BOTH for level in self.config.granularities]
        if self._chat is not None:
            reply = self._ask_for_texts(clip, language, wording)
            if reply is not None:
                found = [_Draft(*place, _text_of(reply, place[0], place[1])) for place in wanted]
                return [draft for draft in found if draft.text.strip() or _facts(clip, draft.axis)]
            return [_Draft(*place, "", problem="no_reply") for place in wanted]
        return [_Draft(*place, self._template(clip, *place)) for place in wanted]

    def _finish(self, clip: DescribedClip, draft: _Draft, kept: list[Description], dropped: list[Dropped]) -> None:
        if self.config.writer == "template" or (self.config.writer == "embedded" and not _may_rewrite(draft)):
            self._keep_template(clip, draft, kept, dropped)
            return
        assert self._chat is not None or self._rewriter is not None
        generator = self._chat.name if self._chat else self._rewriter.name if self._rewriter else ""
        source, repaired = draft.text, False
        if self._rewriter is not None:
            draft.text = self._rewritten(source, clip, seed=2 * draft.wording)
        if not draft.problem:
            self._check(clip, draft, word_by_word=self._rewriter is not None)
            self.counts["written"] += 1
        if draft.problem and draft.problem != "no_reply":
            self.counts["failed"] += 1
            repaired = True
            again = (
                self._rewritten(source, clip, seed=2 * draft.wording + 1)
                if self._rewriter
                else self._repaired(clip, draft)
            )
            if again is not None:
                draft.text, draft.problem = again, ""
                self._check(clip, draft, word_by_word=self._rewriter is not None)
        if draft.problem:
            if draft.problem != "no_reply":
                self.counts["dropped"] += 1
                dropped.append(Dropped(draft.axis, draft.granularity, draft.language, draft.text, draft.problem))
            self._keep_template(clip, draft, kept, dropped)
            return
        self.counts["repaired"] += repaired
        self._keep(self._description(clip, draft, generator, repaired), kept)

    def _keep(self, description: Description, kept: list[Description]) -> None:
        place = (description.axis, description.granularity, description.language)
        same = (d for d in kept if (d.axis, d.granularity, d.language) == place)
        if any(d.text == description.text for d in same):
            self.counts["same_wording"] += 1
        else:
            kept.append(description)

    def _keep_template(
        self, clip: DescribedClip, draft: _Draft, kept: list[Description], dropped: list[Dropped]
    ) -> None:
        place = (draft.axis, draft.granularity, draft.language, draft.wording)
        text = self._template(clip, *place)
        if not text:
            return
        own = _Draft(*place, text)
        self._check(clip, own)
        if own.problem:
            # The evidence contradicts the facts: a class that its own classifier gives little.
            dropped.append(Dropped(own.axis, own.granularity, own.language, text, own.problem))
            self.counts["dropped"] += 1
            return
        self.counts["by_template"] += 1
        self._keep(self._description(clip, own, "template", False), kept)

    def _description(self, clip: DescribedClip, draft: _Draft, generator: str, repaired: bool) -> Description:
        assert draft.checked is not None
        facts = _facts(clip, draft.axis)
        told = recall(draft.checked.verdicts, facts, draft.axis)
        return Description(
            axis=draft.axis,
            granularity=draft.granularity,
            language=draft.language,
            text=draft.text,
            facts=tuple(FactWord(attribute, word) for attribute, word in facts.items()),
            generator=generator,
            verdicts=tuple(draft.checked.verdicts),
            recall=told,
            repaired=repaired,
        )

    def _check(self, clip: DescribedClip, draft: _Draft, word_by_word: bool = False) -> None:
        """Cleans and verifies `draft.text`; sets `draft.problem` where it may not be kept."""
        cleaned = clean(draft.text)
        for mend in cleaned.mended:
            self.counts[f"mended_{mend}"] += 1
        if cleaned.refused:
            self.counts[f"refused_{cleaned.refused}"] += 1
            draft.problem = cleaned.refused
            return
        draft.text = cleaned.text
        spoken, probability = text_language(draft.text)
        # Tags and phrases are too short to tell languages apart.
        is_whole = draft.granularity in ("sentence", "paragraph")
        if is_whole and probability >= self.config.language_from and spoken != draft.language:
            self.counts["refused_language"] += 1
            draft.problem = f"another language: {spoken}"
            return
        draft.checked = verify(draft.text, draft.language, draft.axis, clip.evidence, self._verification)
        if not draft.checked.passed:
            wrong = [f"{verdict.attribute}: {verdict.claimed}" for verdict in draft.checked.failed]
            draft.problem = "; ".join(wrong) or "no claim could be confirmed"
        elif word_by_word:
            self._check_small_model(clip, draft)

    def _check_small_model(self, clip: DescribedClip, draft: _Draft) -> None:
        """A small model must say every fact and not one word more than the reader can vouch for."""
        assert draft.checked is not None
        told = recall(draft.checked.verdicts, _facts(clip, draft.axis), draft.axis)
        unread = unread_words(draft.text, draft.language)
        if draft.checked.off_axis or unread or told != 1.0:
            draft.problem = f"unread words: {' '.join(unread)}" if unread else "facts left out or of the other axis"

    def _template(self, clip: DescribedClip, axis: Axis, granularity: Granularity, language: str, wording: int) -> str:
        seed = f"{clip.clip_id}/{wording}" if wording else clip.clip_id
        return write(fact_table(clip.evidence.facts), axis, granularity, language, seed)

    def _rewritten(self, sentence: str, clip: DescribedClip, seed: int) -> str:
        assert self._rewriter is not None
        key = reply_key(model=self._rewriter.identity, text=sentence, content=clip.clip_id, seed=seed)
        known = self._cache.get(key)
        self.counts["asked" if known is None else "cached"] += 1
        if known is None:
            known = self._rewriter.rewrite(sentence, seed)
            self._cache.put(key, known, {"model": self._rewriter.name})
        return known

    def _ask_for_texts(self, clip: DescribedClip, language: str, wording: int) -> DescriptionReply | None:
        name = "describe_audio.v1" if self.config.hears else "describe_facts.v1"
        text = prompt(name).fill(
            language=language_name(language),
            design=_listed(_facts(clip, "design")),
            style=_listed(_facts(clip, "style")),
        )
        return self._ask(name, text, clip, DescriptionReply, self.config.hears, wording)

    def _repaired(self, clip: DescribedClip, draft: _Draft) -> str | None:
        name = "repair_facts.v1"
        text = prompt(name).fill(
            language=language_name(draft.language),
            text=draft.text,
            wrong=draft.problem,
            facts=_listed(_facts(clip, draft.axis)),
        )
        reply = self._ask(name, text, clip, RepairReply, False, draft.wording)
        return None if reply is None else reply.text

    def _ask(self, name: str, text: str, clip: DescribedClip, kind: type[Any], hears: bool, wording: int) -> Any:
        """A checked reply from the cache or the model; None where none came that can be used."""
        assert self._chat is not None
        content: Any = [{"type": "text", "text": text}, _heard(clip)] if hears else text
        first = wording * self.config.attempts
        for seed in range(first, first + self.config.attempts):
            key = reply_key(
                model=self._chat.identity,
                prompt=prompt(name).sha256,
                text=text,
                content=clip.clip_id,
                hears=hears,
                seed=seed,
            )
            known = self._cache.get(key)
            try:
                message = {"role": "user", "content": content}
                # Clips with the same facts ask the same: the clip is in the seed, or all would get the same words.
                answer = self._chat.ask([message], _seed(clip.clip_id) + seed) if known is None else known
                self.counts["asked" if known is None else "cached"] += 1
            except NoAnswerError as error:
                self.counts[f"no_answer_{error.kind}"] += 1
                return None
            try:
                reply = parse_reply(answer, kind)
            except BadReplyError as error:
                self.counts[f"reply_{error.defect}"] += 1
                continue
            finally:
                # Bad replies, too: asking again for what is known to be bad would cost as much as asking anew.
                if known is None:
                    self._cache.put(key, answer, {"model": self._chat.name, "prompt": name})
            return reply
        return None


def _seed(clip_id: str) -> int:
    return int.from_bytes(hashlib.sha256(clip_id.encode()).digest()[:3], "big")


def _facts(clip: DescribedClip, axis: Axis) -> dict[str, str]:
    return {name: word for name, word in fact_table(clip.evidence.facts).items() if AXES[name] == axis}


def _listed(facts: dict[str, str]) -> str:
    return "; ".join(f"{name}: {word}" for name, word in facts.items()) or "none"


def _text_of(reply: DescriptionReply, axis: Axis, granularity: Granularity) -> str:
    texts: AxisTexts = getattr(reply, axis)
    return str(getattr(texts, granularity))


def _may_rewrite(draft: _Draft) -> bool:
    """The small model knows English sentences; lists, paragraphs and other languages stay the grammar's."""
    return bool(draft.text) and draft.language == "en" and draft.granularity in ("phrase", "sentence")


def _heard(clip: DescribedClip) -> dict[str, Any]:
    """The clip as WAV in the form of OpenAI's chat API."""
    import soundfile

    assert clip.audio is not None, "a writer that hears needs the clip's audio"
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(clip.audio, -1, 1), RATE, format="WAV", subtype="PCM_16")
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
