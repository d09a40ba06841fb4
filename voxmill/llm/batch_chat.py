"""A chat model that answers many requests at once, as engines on a cluster do: asked in rounds, answered in between.

A describer asks as if an answer came at once. A question without a stored answer is noted and ends that request as
`pending`; the owner of the engine answers all that are noted, and the clips are described again from the answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import Field, JsonValue

from voxmill.core.config import Config
from voxmill.core.errors import UserError
from voxmill.core.http import NoAnswerError
from voxmill.llm.reply_cache import ReplyCache, Scalar, reply_key

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam


class BatchLlmConfig(Config):
    """A model that Ray Data's LLM processors run over all clips.

    Without `url` the processor starts `replicas` vLLM engines on the cluster's GPUs: `model` is a hub id or a path,
    `engine` holds vLLM's engine arguments, `accelerator` Ray's name of the GPU type. With `url`, which ends before
    `/chat/completions`, the workers ask that server instead; its key is read from `api_key_variable`.
    `clips_a_round` bounds the clips that are held in memory between two rounds.
    """

    model: str = ""
    """Hub id or path of the LLM that vLLM loads, or the server's name for it."""
    url: str | None = None
    """Base URL of a server (before `/chat/completions`); null starts vLLM on the cluster's GPUs."""
    api_key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the server's key."""
    temperature: float = 0.7
    """Sampling temperature."""
    max_tokens: int = 800
    """Tokens of a reply at most."""
    engine: dict[str, JsonValue] = Field(default_factory=dict)
    """vLLM's engine arguments."""
    accelerator: str | None = None
    """Ray's name of the GPU type, such as H100; null takes any."""
    replicas: int = Field(1, ge=1)
    """vLLM engines, or workers that send requests."""
    batch_size: int = Field(64, ge=1)
    """Prompts handed over at a time."""
    requests_per_second: int = Field(50, ge=1)
    """Requests to a server a second at most, of each worker."""
    retries: int = Field(4, ge=0)
    """How often a failed request is sent again."""
    clips_a_round: int = Field(4096, ge=1)
    """Clips held in memory between two rounds at most."""


@dataclass
class BatchUsage:
    """What was asked of a processor so far; `failures` are requests without an answer, `kinds` the same by kind."""

    rounds: int = 0
    requests: int = 0
    failures: int = 0
    kinds: dict[str, int] = field(default_factory=dict)


class BatchChat:
    """Answers from `cache`; notes the questions without an answer in `pending` (key to messages and seed).

    Args:
        counts: `ReplyCache.get` counts there.

    Raises:
        UserError: no model is named.
    """

    def __init__(self, config: BatchLlmConfig, cache: ReplyCache, counts: Counter[str]):
        if not config.model:
            raise UserError("descriptions.processor.model is empty; name the model that describes")
        self.config = config
        self.name = config.model
        self.pending: dict[str, tuple[list[ChatCompletionMessageParam], int]] = {}
        self.failed: dict[str, str] = {}
        self._cache, self._counts = cache, counts

    @property
    def identity(self) -> dict[str, Scalar]:
        """What an answer depends on besides the messages."""
        return {
            "model": self.config.model,
            "temperature": self.config.temperature,
            "max_tokens": self.config.max_tokens,
        }

    def ask(self, messages: Sequence[ChatCompletionMessageParam], seed: int = 0) -> str:
        """The answer's text.

        Raises:
            NoAnswerError: `pending`, where it is not known yet; `engine`, where the engine failed over this request.
        """
        key = reply_key(model=self.identity, messages=list(messages), seed=seed)
        if key in self.failed:
            raise NoAnswerError("engine", self.failed[key])
        text = None if key in self.pending else self._cache.get(key, self._counts)
        if text is None:
            self.pending[key] = (list(messages), seed)
            raise NoAnswerError("pending", "to be asked in the next round")
        return text
