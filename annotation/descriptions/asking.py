"""What models are asked to write, with their answers in a cache: unusable ones are counted and asked for again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from annotation.descriptions.config import DescriptionsConfig
from annotation.descriptions.described import DescribedClip, facts_of
from annotation.descriptions.facts import fact_table
from annotation.descriptions.prose import LANGUAGE as PROSE_LANGUAGE
from annotation.descriptions.prose import read_prose
from annotation.descriptions.questions import (
    Question,
    ask_for_prose,
    ask_for_repair,
    ask_for_texts,
    ask_to_read_back,
)
from annotation.descriptions.reply_schema import (
    BadReplyError,
    DescriptionReply,
    ReadBackReply,
    RepairReply,
    parse_reply,
)
from annotation.descriptions.verification import VerificationConfig, verify
from voxmill.core.audio import RATE_16K, encode_wav
from voxmill.core.hashing import sha256_text
from voxmill.core.http import NoAnswerError
from voxmill.data.records import Axis
from voxmill.llm.chat_endpoint import user_message
from voxmill.llm.reply_cache import ReplyCache, Scalar, reply_key

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

READ_BACK_IN = "en"
"""The language in which claims of texts are read that have no lexicon of their own."""
Reply = TypeVar("Reply", DescriptionReply, RepairReply, ReadBackReply)


class Chat(Protocol):
    """A model behind an endpoint (`ChatEndpoint`)."""

    name: str

    @property
    def identity(self) -> dict[str, Scalar]:
        """What an answer depends on besides the messages."""

    def ask(self, messages: Sequence[ChatCompletionMessageParam], seed: int = 0) -> str:
        """The answer's text."""


class Asker:
    """Asks a chat for the texts of a clip, to mend one, and what texts mean in English.

    Args:
        verification: of the writer; sentences of captioners that it denies are left out.
        counts: of events, added to: `asked`, `cached`, `reply_*`, `no_answer_*` and those of `read_prose`.
    """

    def __init__(
        self,
        config: DescriptionsConfig,
        chat: Chat,
        cache: ReplyCache,
        verification: VerificationConfig,
        counts: Counter[str],
    ):
        self.config, self.chat, self._cache = config, chat, cache
        self._verification, self.counts = verification, counts

    def texts(self, clip: DescribedClip, language: str, wording: int) -> DescriptionReply | None:
        """All texts of a clip in a language; None where no usable answer came."""
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
        design, style = (fact_table(facts_of(clip, axis)) for axis in ("design", "style"))
        spoken = clip.text if self.config.with_transcript else ""
        question = ask_for_texts(language, design, style, self.config.send_audio, spoken)
        return self._ask(question, clip, lambda answer: parse_reply(answer, DescriptionReply), wording)

    def repaired(
        self, clip: DescribedClip, axis: Axis, language: str, text: str, problem: str, wording: int
    ) -> str | None:
        """A text of which `problem` says what is wrong, written again; None where no usable answer came."""
        if self.config.reply == "prose":
            return None
        question = ask_for_repair(language, text, problem, fact_table(facts_of(clip, axis)))
        reply = self._ask(question, clip, lambda answer: parse_reply(answer, RepairReply), wording)
        return None if reply is None else reply.text

    def read_back(self, clip: DescribedClip, texts: Sequence[str], wording: int) -> list[str] | None:
        """What texts mean in English, one each; None where no usable answer came."""
        question = ask_to_read_back(texts)
        reply = self._ask(question, clip, lambda answer: parse_reply(answer, ReadBackReply), wording)
        return reply.texts if reply is not None and len(reply.texts) == len(texts) else None

    def _ask(self, question: Question, clip: DescribedClip, read: Callable[[str], Reply], wording: int) -> Reply | None:
        """A checked reply from the cache or the model; None where no usable one came."""
        first = wording * self.config.attempts
        for seed in range(first, first + self.config.attempts):
            key = reply_key(
                model=self.chat.identity,
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
                    answer = self.chat.ask([message], _seed(clip.clip_id) + seed)
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
                    self._cache.put(key, answer, {"model": self.chat.name, "prompt": question.prompt.name})
            return reply
        return None


def _seed(clip_id: str) -> int:
    return int(sha256_text(clip_id)[:6], 16)


def _wav(clip: DescribedClip) -> bytes:
    assert clip.audio is not None, "a writer that gets audio needs the clip's"
    return encode_wav(clip.audio, RATE_16K)
