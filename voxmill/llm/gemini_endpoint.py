"""Gemini's own protocol (`models/MODEL:generateContent`), for what its OpenAI-compatible address lacks: a schema of the
answer that the server keeps to, and every kind of audio. Rate, deadline and counts are `ChatEndpoint`'s, the protocol
and the retries are those of the `google-genai` SDK.

Tested against a server of our tests alone: no real Gemini has been asked, so how it reports a wrong key, a blocked
request and its thoughts is still to be seen.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import JsonValue

from voxmill.core.http import RETRIED_STATUSES, UNSENT_KEY, EndpointMeter, Failure, missing_sdk, unreadable
from voxmill.llm.chat_endpoint import ChatEndpoint, EndpointConfig

if TYPE_CHECKING:
    import httpx
    from google.genai import types
    from openai.types.chat import ChatCompletionMessageParam

URL = "https://generativelanguage.googleapis.com/v1beta"
KEY_VARIABLE = "GEMINI_API_KEY"
_BLOCKED = ("SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII")
"""Reasons to end an answer that the same request has again."""
_MIME = {"wav": "audio/wav", "mp3": "audio/mp3", "flac": "audio/flac", "ogg": "audio/ogg", "aiff": "audio/aiff"}


class _GeminiMeter(EndpointMeter):
    def failure_of_status(self, response: httpx.Response, body: bytes) -> Failure:
        # A wrong key is a 400 here, as is a request that is at fault itself; the body tells them apart.
        if response.status_code == 400 and b"API_KEY_INVALID" in body:
            detail = f"answered 400, the key is not valid; set {self.key_variable} to a valid key"
            return Failure("refused", detail, ends="job")
        return super().failure_of_status(response, body)


class GeminiEndpoint(ChatEndpoint):
    """Asks one Gemini model; may be shared by threads.

    Args:
        config: `url` ends before `/models`; it and `api_key_variable` are Gemini's where they are not set. The key is
            sent as a header, so that no log of addresses has it.
        schema: what an answer must look like, as Gemini's `responseSchema` has it; None: any text.

    Raises:
        UserError: the URL is not http(s), no model is named, or the SDK is not installed.
    """

    _meter_class: ClassVar[type[EndpointMeter]] = _GeminiMeter
    _key_header: ClassVar[tuple[str, str]] = ("x-goog-api-key", "")

    def __init__(self, config: EndpointConfig, schema: Mapping[str, JsonValue] | None = None):
        own = {"url": URL, "api_key_variable": KEY_VARIABLE}
        unset = {key: value for key, value in own.items() if key not in config.model_fields_set}
        self._schema = schema
        super().__init__(config.model_copy(update=unset))

    def _import_sdk(self) -> None:
        try:
            import google.genai  # noqa: F401
        except ImportError:
            raise missing_sdk("google-genai") from None

    def _connect(self) -> None:
        from google import genai
        from google.genai import types

        # The SDK wants the version apart from the rest of the address.
        host, _, version = self.config.url.rstrip("/").rpartition("/")
        if host.endswith("/"):
            host, version = self.config.url, ""
        retries = types.HttpRetryOptions(
            attempts=self.config.retries + 1,
            # As the `openai` SDK waits.
            initial_delay=0.5,
            max_delay=8.0,
            jitter=0.25,
            http_status_codes=list(RETRIED_STATUSES),
        )
        options = types.HttpOptions(
            base_url=host,
            api_version=version,
            httpx_client=self._meter.client,
            retry_options=retries,
        )
        self._gemini = genai.Client(vertexai=False, api_key=UNSENT_KEY, http_options=options)

    def _sdk_errors(self) -> tuple[type[Exception], ...]:
        import httpx
        from google.genai import errors

        # The last three: what its models raise over a field of another type.
        return (errors.APIError, httpx.HTTPError, ValueError, TypeError, AttributeError)

    def _request(self, messages: Sequence[ChatCompletionMessageParam], seed: int) -> str:
        from google.genai import types

        system: types.Content | None = None
        contents: list[types.Content] = []
        for message in messages:
            parts = _parts(message)
            if message["role"] == "system":
                system = types.Content(parts=parts)
            else:
                contents.append(types.Content(role="model" if message["role"] == "assistant" else "user", parts=parts))
        is_json = self._schema is not None or self.config.json_mode
        answer = self._gemini.models.generate_content(
            model=self.config.model,
            contents=contents,
            config=types.GenerateContentConfig(
                system_instruction=system,
                temperature=self.config.temperature,
                max_output_tokens=self.config.max_tokens,
                seed=seed,
                response_mime_type="application/json" if is_json else None,
                response_schema=None if self._schema is None else types.Schema.model_validate(self._schema),
            ),
        )
        assert answer.candidates
        content = answer.candidates[0].content
        answered = (content.parts if content else None) or []
        return "".join(part.text for part in answered if part.text and not part.thought)

    def _check(self, body: bytes) -> Failure | None:
        try:
            reply = json.loads(body)
            usage = reply.get("usageMetadata") or {}
            written = [usage.get(key) or 0 for key in ("candidatesTokenCount", "thoughtsTokenCount")]
            self._add_tokens(usage.get("promptTokenCount"), sum(written))
            blocked = (reply.get("promptFeedback") or {}).get("blockReason")
            if blocked:
                # Asked again it is blocked again; the next clip may be fine.
                return Failure("blocked", f"blocked the request ({blocked})", ends="request")
            candidate = reply["candidates"][0]
            parts = (candidate.get("content") or {}).get("parts") or []
            text = "".join(part["text"] for part in parts if "text" in part and not part.get("thought"))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return unreadable(body, "not_a_gemini_reply")
        if not text:
            reason = candidate.get("finishReason", "no reason given")
            if reason in _BLOCKED:
                return Failure("blocked", f"blocked its answer ({reason})", ends="request")
            return Failure("no_text", f"answered without a text ({reason})")
        return None


def _parts(message: ChatCompletionMessageParam) -> list[types.Part]:
    """Gemini's parts of a message in OpenAI's form: a text, or a list of texts and audio."""
    from google.genai import types

    content = message.get("content") or ""
    if isinstance(content, str):
        return [types.Part(text=content)]
    parts: list[types.Part] = []
    for piece in content:
        if piece["type"] == "text":
            parts.append(types.Part(text=piece["text"]))
        elif piece["type"] == "input_audio":
            audio = piece["input_audio"]
            kind = _MIME.get(audio["format"], f"audio/{audio['format']}")
            parts.append(types.Part.from_bytes(data=base64.b64decode(audio["data"]), mime_type=kind))
    return parts
