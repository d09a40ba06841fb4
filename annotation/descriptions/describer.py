"""Descriptions of a clip in words: written, cleaned, verified, once repaired, or dropped. Report section 3.6.

Two axes (design: the voice; style: this delivery) and both together, four granularities, several wordings, in English
and in the clip's language. Three kinds of writers: the grammar, which is true by construction; the embedded model,
which puts the grammar's sentences in other words; an endpoint or a batch of engines, which write from facts or, where
they are sent the audio, from the clip. The longer a text of the grammar, the more facts it states. Every text is
verified against the clip's evidence; where no usable one comes the grammar writes it, and that is counted. A clip is
never lost.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from annotation.descriptions.asking import READ_BACK_IN, Asker, Chat
from annotation.descriptions.claims import Claim, unread_words
from annotation.descriptions.cleaning import clean
from annotation.descriptions.config import DescriptionsConfig
from annotation.descriptions.described import DescribedClip, Descriptions, Dropped, facts_of
from annotation.descriptions.facts import fact_table
from annotation.descriptions.grammar import sayable, write
from annotation.descriptions.lexicons import LEXICON_LANGUAGES
from annotation.descriptions.reply_schema import AxisTexts
from annotation.descriptions.selection import choose_facts
from annotation.descriptions.spoken_words import repeats_words
from annotation.descriptions.verification import Checked, check_claim, recall, verify
from annotation.speech.text_checks import text_language
from voxmill.data.languages import base_language
from voxmill.data.records import DESCRIPTION_AXES, Axis, Description, Fact, FactWord, Granularity
from voxmill.llm.reply_cache import ReplyCache, Scalar, reply_key


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
        self.config, self._rewriter = config, rewriter
        self._cache = ReplyCache(None) if cache is None else cache
        self.counts: Counter[str] = Counter()
        # A writer that is sent the audio may know what is not among the facts; the others cannot.
        self._verification = config.verification.model_copy(update={"only_facts": not config.send_audio})
        self._asker = None if chat is None else Asker(config, chat, self._cache, self._verification, self.counts)

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
        reply = None if self._asker is None else self._asker.texts(clip, language, wording)
        for axis in DESCRIPTION_AXES:
            texts: AxisTexts | None = getattr(reply, axis, None)
            if texts is not None:
                all_facts = facts_of(clip, axis)
                drafts = [
                    _Draft(axis, granularity, language, wording, str(getattr(texts, granularity)), all_facts)
                    for granularity in self.config.granularities
                ]
                for draft in drafts if self.config.reply == "prose" else ():
                    # What a captioner did not say is not asked for again.
                    draft.problem = "" if draft.text else "no_reply"
                written += [draft for draft in drafts if draft.text.strip() or all_facts]
            else:
                written += self._templates(clip, axis, language, wording, "" if self._asker is None else "no_reply")
        if language not in LEXICON_LANGUAGES:
            self._read_back(clip, [draft for draft in written if draft.text.strip()])
        return written

    def _read_back(self, clip: DescribedClip, drafts: Sequence[_Draft]) -> None:
        """Sets what the drafts mean in English; those of a model that does not say it cannot be verified."""
        if drafts and self._asker is not None:
            english = self._asker.read_back(clip, [draft.text for draft in drafts], drafts[0].wording)
            if english is None:
                self.counts["not_read_back"] += len(drafts)
            for draft, meaning in zip(drafts, english or (), strict=False):
                draft.english = meaning

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
        assert self._asker is not None or self._rewriter is not None
        generator = self._asker.chat.name if self._asker else self._rewriter.name if self._rewriter else ""
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
        if self._asker is not None and draft.problem != "no_reply":
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

    def _repaired(self, clip: DescribedClip, draft: _Draft) -> str | None:
        assert self._asker is not None
        return self._asker.repaired(clip, draft.axis, draft.language, draft.text, draft.problem, draft.wording)

    def _rewritten(self, sentence: str, clip: DescribedClip, seed: int) -> str:
        assert self._rewriter is not None
        key = reply_key(model=self._rewriter.identity, text=sentence, content=clip.clip_id, seed=seed)
        known = self._cache.get(key, self.counts)
        self.counts["asked" if known is None else "cached"] += 1
        if known is None:
            known = self._rewriter.rewrite(sentence, seed)
            self._cache.put(key, known, {"model": self._rewriter.name})
        return known


def _seed_of(clip: DescribedClip, wording: int) -> str:
    return f"{clip.clip_id}/{wording}" if wording else clip.clip_id


def _may_rewrite(draft: _Draft) -> bool:
    """The small model knows English sentences; lists, paragraphs and other languages stay the grammar's."""
    return draft.language == "en" and draft.granularity in ("phrase", "sentence")
