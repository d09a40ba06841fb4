"""Descriptions of a clip in words: written, cleaned, verified, once repaired, or dropped. Report section 3.6.

Two axes (design: the voice; style: this delivery) and both together, four granularities, several wordings, in English
and in the clip's language. Three kinds of writers: the grammar, which is true by construction; the embedded model,
which puts the grammar's sentences in other words; an endpoint or a batch of engines, which write from facts or, where
they are sent the audio, from the clip. The longer a text of the grammar, the more facts it states. Every text is
verified against the clip's evidence; where no usable one comes the grammar writes it, and that is counted. A clip is
never lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from annotation.descriptions.claims import Claim, unread_words
from annotation.descriptions.cleaning import clean
from annotation.descriptions.facts import AXES, fact_table
from annotation.descriptions.grammar import sayable, write
from annotation.descriptions.lexicons import LEXICON_LANGUAGES
from annotation.descriptions.prose import LANGUAGE as PROSE_LANGUAGE
from annotation.descriptions.prose import read_prose
from annotation.descriptions.questions import PARAPHRASE as PARAPHRASE
from annotation.descriptions.questions import PROMPTS as PROMPTS
from annotation.descriptions.questions import (
    Question,
    ask_for_prose,
    ask_for_repair,
    ask_for_texts,
    ask_to_read_back,
)
from annotation.descriptions.reply_schema import (
    AxisTexts,
    BadReplyError,
    DescriptionReply,
    ReadBackReply,
    RepairReply,
    parse_reply,
)
from annotation.descriptions.selection import GRANULARITIES, choose_facts
from annotation.descriptions.spoken_words import repeats_words
from annotation.descriptions.verification import Checked, Evidence, VerificationConfig, check_claim, recall, verify
from annotation.speech.text_checks import text_language
from voxmill.core.audio import RATE_16K, encode_wav
from voxmill.core.config import Config
from voxmill.core.hashing import sha256_text
from voxmill.core.http import NoAnswerError
from voxmill.data.languages import base_language
from voxmill.data.records import DESCRIPTION_AXES, Axis, Description, Fact, FactWord, Granularity
from voxmill.llm.batch_chat import BatchLlmConfig
from voxmill.llm.chat_endpoint import EndpointConfig, user_message
from voxmill.llm.embedded_llm import EmbeddedLlmConfig
from voxmill.llm.reply_cache import ReplyCache, Scalar, reply_key

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

Reply = TypeVar("Reply", DescriptionReply, RepairReply, ReadBackReply)

READ_BACK_IN = "en"
"""The language in which claims of texts are read that have no lexicon of their own."""


class DescriptionsConfig(Config):
    """Who writes descriptions, which, and how they are verified."""

    renamed: ClassVar[dict[str, str]] = {"hears": "send_audio"}

    writer: Literal["template", "embedded", "endpoint", "processor"] = "template"
    """Who words the facts: the built-in grammar, an embedded LLM, a chat endpoint, or Ray Data's LLM processor."""
    granularities: tuple[Granularity, ...] = GRANULARITIES
    """Lengths in which each axis is described: tags, phrase, sentence, paragraph; a longer one states more facts."""
    wordings: int = Field(2, ge=1)
    """Texts of each axis, granularity and language; equal ones are kept once."""
    clip_language: bool = True
    """Describe also in the clip's own language, where the lexicon has it."""
    read_back: bool = False
    """Describe also in languages without a lexicon: an endpoint writes, and translates its texts into English, without
    the facts before it; there their claims are read. One more request for each of its answers."""
    send_audio: bool = False
    """The model understands audio and is sent the clip beside its facts."""
    protocol: Literal["openai", "gemini"] = "openai"
    """What the endpoint speaks: openai for OpenAI-compatible servers, gemini for Google's own protocol."""
    reply: Literal["json", "prose"] = "json"
    """prose: a captioner that is sent the recording alone and answers in English sentences, which are read."""
    with_transcript: bool = False
    """Send the words that are spoken, too, and keep descriptions that repeat them; they would leak into the style."""
    attempts: int = 2
    """How often an unusable reply is asked for again."""
    language_from: float = 0.7
    """Below this probability (0..1) the detected language of a text is not trusted."""
    endpoint: EndpointConfig = EndpointConfig()
    processor: BatchLlmConfig = BatchLlmConfig()
    embedded: EmbeddedLlmConfig = EmbeddedLlmConfig()
    verification: VerificationConfig = VerificationConfig()

    @model_validator(mode="after")
    def _asks_a_model_that_can(self) -> Self:
        if self.reply == "prose" and not (self.send_audio and self.writer in ("endpoint", "processor")):
            raise ValueError("reply=prose is of a captioner: set send_audio=true and writer=endpoint or processor")
        if self.read_back and (self.writer not in ("endpoint", "processor") or self.reply == "prose"):
            raise ValueError("read_back=true asks a model that writes: set writer=endpoint or processor and reply=json")
        return self


@dataclass(frozen=True, slots=True)
class DescribedClip:
    """A clip to describe: `clip_id` names the content. `audio`: float32 [T] at 16 kHz, for writers that are sent it.

    text: what is said in it.
    """

    clip_id: str
    language: str
    evidence: Evidence
    audio: NDArray[np.float32] | None = None
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A text that was given up, in its last wording. The grammar's replaces it, unless that one failed as well."""

    axis: Axis
    granularity: Granularity
    language: str
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Descriptions:
    """All descriptions of one clip and what was dropped."""

    kept: tuple[Description, ...] = ()
    dropped: tuple[Dropped, ...] = ()


class Chat(Protocol):
    """A model behind an endpoint (`ChatEndpoint`)."""

    name: str

    @property
    def identity(self) -> dict[str, Scalar]:
        """What an answer depends on besides the messages."""

    def ask(self, messages: Sequence[ChatCompletionMessageParam], seed: int = 0) -> str:
        """The answer's text."""


class Rewriter(Protocol):
    """A model that puts a sentence in other words (`EmbeddedLlm`)."""

    name: str

    @property
    def identity(self) -> dict[str, Scalar]:
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
    facts: Sequence[Fact]
    checked: Checked | None = None
    problem: str = ""
    english: str = ""
    """What the model says that the text means, of a language without a lexicon."""

    def as_dropped(self) -> Dropped:
        return Dropped(
            axis=self.axis, granularity=self.granularity, language=self.language, text=self.text, reason=self.problem
        )


class Describer:
    """Describes clips one after another; may be interrupted and called again with the same cache.

    For many requests at once give each thread a describer of its own with the same chat and cache.

    Args:
        chat: for `writer: endpoint`; rewriter: for `writer: embedded`.
        cache: of replies, None to keep none.

    `counts` by event: `without_facts`, `no_words_for_language`, `not_read_back`, `asked`, `cached`, `reply_*` (unusable
    replies by defect; stored ones: `reply_damaged`), `no_answer_*`, `removed_*`, `refused_*`, `written`, `failed`,
    `repaired`, `dropped`, `same_wording`, `by_template`.
    """

    def __init__(
        self,
        config: DescriptionsConfig,
        chat: Chat | None = None,
        rewriter: Rewriter | None = None,
        cache: ReplyCache | None = None,
    ):
        asks = config.writer in ("endpoint", "processor")
        assert (chat is not None) == asks, "a writer that asks needs a chat"
        assert (rewriter is not None) == (config.writer == "embedded"), "the embedded writer needs a rewriter"
        self.config, self._chat, self._rewriter = config, chat, rewriter
        self._cache = ReplyCache(None) if cache is None else cache
        self.counts: Counter[str] = Counter()
        # A writer that is sent the audio may know what is not among the facts; the others cannot.
        self._verification = config.verification.model_copy(update={"only_facts": not config.send_audio})

    def __call__(self, clip: DescribedClip) -> Descriptions:
        """Describes one clip.

        Raises:
            JobError: the endpoint is down, refuses the key, or the budget is spent.
        """
        if not clip.evidence.facts and not self.config.send_audio:
            self.counts["without_facts"] += 1
            return Descriptions()
        languages = ["en"]
        own = base_language(clip.language)
        if self.config.clip_language and own != "en":
            if own in LEXICON_LANGUAGES or self.config.read_back:
                languages.append(own)
            else:
                self.counts["no_words_for_language"] += 1
        kept: list[Description] = []
        dropped: list[Dropped] = []
        for language in languages:
            for wording in range(self.config.wordings):
                for draft in self._drafts(clip, language, wording):
                    self._finish(clip, draft, kept, dropped)
        return Descriptions(tuple(kept), tuple(dropped))

    def _drafts(self, clip: DescribedClip, language: str, wording: int) -> list[_Draft]:
        """Texts of every axis and granularity; those of the grammar where no model writes them."""
        written: list[_Draft] = []
        reply = None if self._chat is None else self._ask_for_texts(clip, language, wording)
        for axis in DESCRIPTION_AXES:
            texts: AxisTexts | None = getattr(reply, axis, None)
            if texts is not None:
                all_facts = _facts(clip, axis)
                drafts = [
                    _Draft(axis, granularity, language, wording, str(getattr(texts, granularity)), all_facts)
                    for granularity in self.config.granularities
                ]
                for draft in drafts if self.config.reply == "prose" else ():
                    # What a captioner did not say is not asked for again.
                    draft.problem = "" if draft.text else "no_reply"
                written += [draft for draft in drafts if draft.text.strip() or all_facts]
            else:
                written += self._templates(clip, axis, language, wording, "" if self._chat is None else "no_reply")
        if language not in LEXICON_LANGUAGES:
            self._read_back(clip, [draft for draft in written if draft.text.strip()])
        return written

    def _read_back(self, clip: DescribedClip, drafts: Sequence[_Draft]) -> None:
        """Sets what the drafts mean in English; those of a model that does not say it cannot be verified."""
        if drafts:
            reply = self._ask(
                ask_to_read_back([draft.text for draft in drafts]),
                clip,
                lambda answer: parse_reply(answer, ReadBackReply),
                drafts[0].wording,
            )
            if reply is not None and len(reply.texts) == len(drafts):
                for draft, english in zip(drafts, reply.texts, strict=True):
                    draft.english = english
            else:
                self.counts["not_read_back"] += len(drafts)

    def _templates(self, clip: DescribedClip, axis: Axis, language: str, wording: int, problem: str) -> list[_Draft]:
        if language not in LEXICON_LANGUAGES:
            return []
        facts = sayable(clip.evidence.facts, language)
        chosen = choose_facts(facts, axis, self.config.granularities, _seed_of(clip, wording))
        return [
            _Draft(axis, granularity, language, wording, "", some, problem=problem)
            for granularity, some in chosen.items()
        ]

    def _finish(self, clip: DescribedClip, draft: _Draft, kept: list[Description], dropped: list[Dropped]) -> None:
        if (
            draft.problem
            or self.config.writer == "template"
            or (self._rewriter is not None and not _may_rewrite(draft))
        ):
            self._keep_template(clip, draft, kept, dropped)
            return
        assert self._chat is not None or self._rewriter is not None
        generator = self._chat.name if self._chat else self._rewriter.name if self._rewriter else ""
        source, repaired = self._template(clip, draft) if self._rewriter else "", False
        if self._rewriter is not None:
            draft.text = self._rewritten(source, clip, seed=2 * draft.wording)
        self._check(clip, draft, word_by_word=self._rewriter is not None)
        self.counts["written"] += 1
        if draft.problem:
            self.counts["failed"] += 1
            repaired = True
            again = (
                self._rewritten(source, clip, seed=2 * draft.wording + 1)
                if self._rewriter
                else self._repaired(clip, draft)
            )
            if again is not None:
                draft.text, draft.problem, draft.english = again, "", ""
                if draft.language not in LEXICON_LANGUAGES:
                    self._read_back(clip, [draft])
                self._check(clip, draft, word_by_word=self._rewriter is not None)
        if draft.problem:
            self.counts["dropped"] += 1
            dropped.append(draft.as_dropped())
            self._keep_template(clip, draft, kept, dropped)
            return
        self.counts["repaired"] += repaired
        self._keep(self._description(draft, generator, repaired), kept)

    def _keep(self, description: Description, kept: list[Description]) -> None:
        # Of any granularity: a longer text says more, or it is none.
        same = (d for d in kept if (d.axis, d.language) == (description.axis, description.language))
        if any(d.text == description.text for d in same):
            self.counts["same_wording"] += 1
        else:
            kept.append(description)

    def _keep_template(
        self, clip: DescribedClip, draft: _Draft, kept: list[Description], dropped: list[Dropped]
    ) -> None:
        """Keeps the grammar's text in a draft's place, where it has one that says enough for its granularity."""
        if draft.language not in LEXICON_LANGUAGES:
            return
        facts: Sequence[Fact] = draft.facts
        if self._chat is not None and draft.problem != "no_reply":
            seed, known = _seed_of(clip, draft.wording), sayable(clip.evidence.facts, draft.language)
            facts = choose_facts(known, draft.axis, self.config.granularities, seed).get(draft.granularity, ())
        own = _Draft(draft.axis, draft.granularity, draft.language, draft.wording, "", facts)
        own.text = self._template(clip, own)
        if not own.text:
            return
        self._check_facts(clip, own)
        if own.problem:
            # The evidence contradicts the facts: a class that its own classifier gives little.
            dropped.append(own.as_dropped())
            self.counts["dropped"] += 1
            return
        self.counts["by_template"] += 1
        self._keep(self._description(own, "template", False), kept)

    def _description(self, draft: _Draft, generator: str, repaired: bool) -> Description:
        assert draft.checked is not None
        facts = fact_table(draft.facts)
        return Description(
            axis=draft.axis,
            granularity=draft.granularity,
            language=draft.language,
            text=draft.text,
            facts=tuple(FactWord(attribute, word) for attribute, word in facts.items()),
            generator=generator,
            verdicts=draft.checked.verdicts,
            recall=recall(draft.checked.verdicts, facts, draft.axis),
            repaired=repaired,
            unread=draft.checked.unread,
        )

    def _check_facts(self, clip: DescribedClip, draft: _Draft) -> None:
        """Holds a text of the grammar against the evidence, by the facts that it states."""
        claims = [Claim(fact.attribute, fact.word) for fact in draft.facts]
        draft.checked = Checked(
            tuple(check_claim(claim, clip.evidence, self._verification) for claim in claims), off_axis=()
        )
        if draft.checked.failed:
            draft.problem = "; ".join(f"{verdict.attribute}: {verdict.claimed}" for verdict in draft.checked.failed)

    def _check(self, clip: DescribedClip, draft: _Draft, word_by_word: bool = False) -> None:
        """Cleans and verifies `draft.text`; sets `draft.problem` where it may not be kept."""
        cleaned = clean(draft.text)
        for kind in cleaned.removed:
            self.counts[f"removed_{kind}"] += 1
        if cleaned.refused:
            self.counts[f"refused_{cleaned.refused}"] += 1
            draft.problem = cleaned.refused
            return
        draft.text = cleaned.text
        # Tags and phrases are too short to tell languages apart.
        if draft.granularity in ("sentence", "paragraph"):
            language, probability = text_language(draft.text)
            if probability >= self.config.language_from and language != draft.language:
                self.counts["refused_language"] += 1
                draft.problem = f"another language: {language}"
                return
        if not self.config.with_transcript and repeats_words(draft.text, clip.text):
            self.counts["refused_spoken"] += 1
            draft.problem = "repeats the words that are spoken"
            return
        if draft.language in LEXICON_LANGUAGES:
            draft.checked = verify(draft.text, draft.language, draft.axis, clip.evidence, self._verification)
        else:
            draft.checked = verify(draft.english, READ_BACK_IN, draft.axis, clip.evidence, self._verification)
        if not draft.checked.passed:
            wrong = [f"{verdict.attribute}: {verdict.claimed}" for verdict in draft.checked.failed]
            draft.problem = "; ".join(wrong) or "no claim could be confirmed"
        elif word_by_word:
            self._check_small_model(clip, draft)

    def _check_small_model(self, clip: DescribedClip, draft: _Draft) -> None:
        """A small model must state every fact, and nothing that the lexicon cannot read."""
        assert draft.checked is not None
        stated = recall(draft.checked.verdicts, fact_table(draft.facts), draft.axis)
        unread = unread_words(draft.text, draft.language)
        if draft.checked.off_axis or unread or stated != 1.0:
            draft.problem = f"unread words: {' '.join(unread)}" if unread else "facts left out or of the other axis"

    def _template(self, clip: DescribedClip, draft: _Draft) -> str:
        facts, seed = fact_table(draft.facts), _seed_of(clip, draft.wording)
        return clean(write(facts, draft.axis, draft.granularity, draft.language, seed)).text

    def _rewritten(self, sentence: str, clip: DescribedClip, seed: int) -> str:
        assert self._rewriter is not None
        key = reply_key(model=self._rewriter.identity, text=sentence, content=clip.clip_id, seed=seed)
        known = self._cache.get(key, self.counts)
        self.counts["asked" if known is None else "cached"] += 1
        if known is None:
            known = self._rewriter.rewrite(sentence, seed)
            self._cache.put(key, known, {"model": self._rewriter.name})
        return known

    def _ask_for_texts(self, clip: DescribedClip, language: str, wording: int) -> DescriptionReply | None:
        if self.config.reply == "prose":
            if language != PROSE_LANGUAGE:
                return None

            def is_false(sentence: str) -> bool:
                checked = verify(sentence, PROSE_LANGUAGE, "style", clip.evidence, self._verification)
                return bool(checked.failed)

            spoken = "" if self.config.with_transcript else clip.text
            return self._ask(
                ask_for_prose(), clip, lambda answer: read_prose(answer, spoken, is_false, self.counts), wording
            )
        design, style = (fact_table(_facts(clip, axis)) for axis in ("design", "style"))
        spoken = clip.text if self.config.with_transcript else ""
        question = ask_for_texts(language, design, style, self.config.send_audio, spoken)
        return self._ask(question, clip, lambda answer: parse_reply(answer, DescriptionReply), wording)

    def _repaired(self, clip: DescribedClip, draft: _Draft) -> str | None:
        if self.config.reply == "prose":
            return None
        facts = fact_table(_facts(clip, draft.axis))
        question = ask_for_repair(draft.language, draft.text, draft.problem, facts)
        reply = self._ask(question, clip, lambda answer: parse_reply(answer, RepairReply), draft.wording)
        return None if reply is None else reply.text

    def _ask(self, question: Question, clip: DescribedClip, read: Callable[[str], Reply], wording: int) -> Reply | None:
        """A checked reply from the cache or the model; None where no usable one came."""
        assert self._chat is not None
        first = wording * self.config.attempts
        for seed in range(first, first + self.config.attempts):
            key = reply_key(
                model=self._chat.identity,
                prompt=question.prompt.sha256,
                text=question.text,
                content=clip.clip_id,
                # The key's old name, with which replies were stored that are still good.
                hears=question.with_audio,
                seed=seed,
            )
            known = self._cache.get(key, self.counts)
            try:
                # Clips with the same facts ask the same: the clip is in the seed, or all would get the same words.
                if known is None:
                    message = user_message(question.text, _wav(clip) if question.with_audio else None)
                    answer = self._chat.ask([message], _seed(clip.clip_id) + seed)
                else:
                    answer = known
                self.counts["asked" if known is None else "cached"] += 1
            except NoAnswerError as error:
                self.counts[f"no_answer_{error.kind}"] += 1
                return None
            try:
                reply = read(answer)
            except BadReplyError as error:
                self.counts[f"reply_{error.defect}"] += 1
                continue
            finally:
                # Bad replies, too: to ask for them again would cost as much as a new question.
                if known is None:
                    self._cache.put(key, answer, {"model": self._chat.name, "prompt": question.prompt.name})
            return reply
        return None


def _seed(clip_id: str) -> int:
    return int(sha256_text(clip_id)[:6], 16)


def _seed_of(clip: DescribedClip, wording: int) -> str:
    return f"{clip.clip_id}/{wording}" if wording else clip.clip_id


def _facts(clip: DescribedClip, axis: Axis) -> list[Fact]:
    return [fact for fact in clip.evidence.facts if axis in ("both", AXES[fact.attribute])]


def _may_rewrite(draft: _Draft) -> bool:
    """The small model knows English sentences; lists, paragraphs and other languages stay the grammar's."""
    return draft.language == "en" and draft.granularity in ("phrase", "sentence")


def _wav(clip: DescribedClip) -> bytes:
    assert clip.audio is not None, "a writer that gets audio needs the clip's"
    return encode_wav(clip.audio, RATE_16K)
