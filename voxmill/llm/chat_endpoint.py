"""Any OpenAI-compatible chat endpoint (vLLM, Step-Audio, Qwen-Omni, Gemini's own), with all that goes wrong on a wire.

The `openai` SDK sends the requests and tries again what may pass, with growing waits or as long as the server asks.
Requests keep to a rate, each attempt has one deadline for the whole answer (a server that drips bytes cannot hold a
worker), and every attempt, token and cent is counted. An endpoint that fails for `give_up_after` requests in a row is
down: the job ends with one line instead of failing clip by clip.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import Field

from voxmill.core.config import Config
from voxmill.core.errors import UserError
from voxmill.core.http import UNSENT_KEY, EndpointMeter, Failure, Usage, is_address, missing_sdk, unreadable
from voxmill.llm.reply_cache import Scalar

if TYPE_CHECKING:
    from openai.types.chat import (
        ChatCompletionContentPartInputAudioParam,
        ChatCompletionMessageParam,
        ChatCompletionUserMessageParam,
    )

_MAX_BYTES = 4_000_000


class EndpointConfig(Config):
    """Where and how often is asked. The waits between attempts are the SDK's: half a second, doubled up to 8 s, or what
    the server asks for, up to two minutes.
    """

    renamed: ClassVar[dict[str, str]] = {"first_wait_seconds": "retries", "max_wait_seconds": "retries"}

    url: str = "http://127.0.0.1:8000/v1"
    """Base URL of an OpenAI-compatible server, before `/chat/completions`."""
    model: str = ""
    """The server's name for the model."""
    api_key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key, which never stands in a recipe."""
    temperature: float = 0.7
    """Sampling temperature."""
    max_tokens: int = 800
    """Tokens of a reply at most."""
    json_mode: bool = True
    """Ask the server for replies in JSON."""
    timeout_seconds: float = Field(60.0, gt=0)
    """Seconds until an attempt without a whole reply counts as failed."""
    retries: int = Field(4, ge=0)
    """How often a failed request is sent again."""
    requests_per_minute: float = Field(600.0, gt=0)
    """Requests a minute at most."""
    give_up_after: int = Field(5, ge=1)
    """After this many failed requests in a row no more are sent."""
    input_price: float = Field(0.0, ge=0)
    """Price of a million prompt tokens, in any currency; 0 counts no cost."""
    output_price: float = Field(0.0, ge=0)
    """Price of a million reply tokens, in the same currency; 0 counts no cost."""
    max_cost: float | None = None
    """The job ends when requests have cost this much; null for no limit."""


class ChatEndpoint:
    """Asks one endpoint; may be shared by threads.

    Raises:
        UserError: the URL is not http(s), no model is named, or the SDK is not installed.
    """

    _meter_class: ClassVar[type[EndpointMeter]] = EndpointMeter
    _key_header: ClassVar[tuple[str, str]] = ("Authorization", "Bearer ")

    def __init__(self, config: EndpointConfig):
        if not is_address(config.url):
            raise UserError(f"endpoint.url={config.url!r}: write an address such as http://host:8000/v1")
        if not config.model:
            raise UserError("endpoint.model is empty; name the model that the endpoint serves")
        self._import_sdk()
        self.config = config
        self.name = f"{config.model} at {config.url}"
        self._meter = self._meter_class(
            self.name,
            check=self._check,
            key_variable=config.api_key_variable,
            key_header=self._key_header,
            timeout_seconds=config.timeout_seconds,
            give_up_after=config.give_up_after,
            max_bytes=_MAX_BYTES,
            requests_per_minute=config.requests_per_minute,
            max_cost=config.max_cost,
        )
        self._connect()

    @property
    def usage(self) -> Usage:
        """What was asked so far."""
        return self._meter.usage

    @property
    def identity(self) -> dict[str, Scalar]:
        """What an answer depends on besides the prompt; a part of the cache's key."""
        config = self.config
        return {
            "model": config.model,
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            "json_mode": config.json_mode,
        }

    def ask(self, messages: Sequence[ChatCompletionMessageParam], seed: int = 0) -> str:
        """The assistant's text; another `seed` asks for another answer, where the endpoint knows seeds.

        Raises:
            NoAnswerError: every attempt of this request failed.
            JobError: the endpoint refuses the key or the model, is down, or the budget is spent.
        """
        text = self._meter.ask(lambda: self._request(messages, seed), self._sdk_errors())
        # Half a surrogate pair can be neither stored nor sent again.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _import_sdk(self) -> None:
        try:
            import openai  # noqa: F401
        except ImportError:
            raise missing_sdk("openai") from None

    def _connect(self) -> None:
        import openai

        self._client = openai.OpenAI(
            api_key=UNSENT_KEY,
            base_url=self.config.url,
            http_client=self._meter.client,
            max_retries=self.config.retries,
        )

    def _sdk_errors(self) -> tuple[type[Exception], ...]:
        import openai

        return (openai.OpenAIError,)

    def _request(self, messages: Sequence[ChatCompletionMessageParam], seed: int) -> str:
        import openai

        completion = self._client.chat.completions.create(
            model=self.config.model,
            messages=messages,
            temperature=self.config.temperature,
            max_tokens=self.config.max_tokens,
            seed=seed,
            response_format={"type": "json_object"} if self.config.json_mode else openai.omit,
        )
        return str(completion.choices[0].message.content)

    def _check(self, body: bytes) -> Failure | None:
        try:
            reply = json.loads(body)
            choice = reply["choices"][0]
            text = choice["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return unreadable(body, "not_a_chat_reply")
        usage = reply.get("usage")
        tokens = usage if isinstance(usage, dict) else {}
        self._add_tokens(tokens.get("prompt_tokens"), tokens.get("completion_tokens"))
        if not isinstance(text, str):
            if choice["message"].get("refusal") or choice.get("finish_reason") == "content_filter":
                # Asked again it is refused again; the next clip may be fine.
                return Failure("refused_content", "refused the content", ends="request")
            return Failure("no_text", f"answered without a text (finish_reason: {choice.get('finish_reason')})")
        return None

    def _add_tokens(self, read: object, written: object) -> None:
        self._meter.add_tokens(read, written, self.config.input_price, self.config.output_price)


def user_message(text: str, audio: bytes | None = None, audio_format: str = "wav") -> ChatCompletionUserMessageParam:
    """A request in words, and with a recording (a whole file's bytes) where there is one; "" asks by the recording."""
    if audio is None:
        return {"role": "user", "content": text}
    # OpenAI itself takes wav and mp3; other servers, and Gemini, take more.
    known_format = cast(Literal["wav", "mp3"], audio_format)
    data = base64.b64encode(audio).decode()
    sound: ChatCompletionContentPartInputAudioParam = {
        "type": "input_audio",
        "input_audio": {"data": data, "format": known_format},
    }
    return {"role": "user", "content": [{"type": "text", "text": text}, sound] if text else [sound]}
