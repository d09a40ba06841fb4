"""Who writes descriptions, which, and how they are verified."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from annotation.descriptions.selection import GRANULARITIES
from annotation.descriptions.verification import VerificationConfig
from voxmill.core.config import Config
from voxmill.data.records import Granularity
from voxmill.llm.batch_chat import BatchLlmConfig
from voxmill.llm.chat_endpoint import EndpointConfig
from voxmill.llm.embedded_llm import EmbeddedLlmConfig


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
    """Describe also in languages without a lexicon: a model writes, and its own English translation is verified."""
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
