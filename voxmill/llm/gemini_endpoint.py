"""Gemini's own protocol (`models/MODEL:generateContent`), for what its OpenAI-compatible address has not: a schema of the
answer that the server keeps to, and every kind of audio. Rate, deadline, retries and counts are `ChatEndpoint`'s.

Follows Google's public REST protocol (ai.google.dev/api/generate-content) as far as it is known here: no real Gemini has
been asked, so how it tells a wrong key, a blocked request and its thoughts is still to be seen.
"""

import json
import os
import time
import urllib.error
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from voxmill.llm.chat_endpoint import AttemptError, ChatEndpoint, EndpointConfig, Message

URL = "https://generativelanguage.googleapis.com/v1beta"
KEY_VARIABLE = "GEMINI_API_KEY"
_MIME = {"wav": "audio/wav", "mp3": "audio/mp3", "flac": "audio/flac", "ogg": "audio/ogg", "aiff": "audio/aiff"}
_REASON_BYTES = 4000


class GeminiEndpoint(ChatEndpoint):
    """Asks one Gemini model; may be shared by threads.

    Args:
        config: `url` ends before `/models`; it and `api_key_variable` are Gemini's where they are not set. The key comes
            from the environment and is sent as a header, so that no log of addresses has it.
        schema: what an answer must look like, in Gemini's form of OpenAPI; None: any text.

    Raises:
        UserError: the URL is not http(s), or no model is named.
    """

    def __init__(
        self,
        config: EndpointConfig,
        schema: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        own = {"url": URL, "api_key_variable": KEY_VARIABLE}
        unset = {key: value for key, value in own.items() if key not in config.model_fields_set}
        super().__init__(config.model_copy(update=unset), clock, sleep)
        self._schema = schema

    def _once(self, messages: Sequence[Message], seed: int) -> str:
        rule: dict[str, Any] = {
            "temperature": self.config.temperature,
            "maxOutputTokens": self.config.max_tokens,
            "seed": seed,
        }
        if self._schema is not None:
            rule |= {"responseMimeType": "application/json", "responseSchema": self._schema}
        elif self.config.json_mode:
            rule["responseMimeType"] = "application/json"
        body: dict[str, Any] = {"contents": [], "generationConfig": rule}
        for message in messages:
            parts = _parts(message["content"])
            if message["role"] == "system":
                body["systemInstruction"] = {"parts": parts}
            else:
                role = "model" if message["role"] == "assistant" else "user"
                body["contents"].append({"role": role, "parts": parts})
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        key = os.environ.get(self.config.api_key_variable, "")
        if key:
            headers["x-goog-api-key"] = key
        model = self.config.model.removeprefix("models/")
        url = f"{self.config.url.rstrip('/')}/models/{model}:generateContent"
        return self._read(self._send(url, json.dumps(body).encode(), headers))

    def _status(self, error: urllib.error.HTTPError) -> AttemptError:
        # A wrong key is a 400 here, as is a request that is at fault itself; the body tells them apart.
        if error.code == 400 and b"API_KEY_INVALID" in error.read(_REASON_BYTES):
            detail = f"answered 400, the key is not valid; set {self.config.api_key_variable} to a valid key"
            return AttemptError("refused", detail, ends="job")
        return super()._status(error)

    def _read(self, raw: bytes) -> str:
        try:
            reply = json.loads(raw)
            usage = reply.get("usageMetadata") or {}
            written = [usage.get(key) or 0 for key in ("candidatesTokenCount", "thoughtsTokenCount")]
            self._count_tokens(usage.get("promptTokenCount"), sum(written))
            blocked = (reply.get("promptFeedback") or {}).get("blockReason")
            if blocked:
                # Asked again it is blocked again; the next clip may be fine.
                raise AttemptError("blocked", f"blocked the request ({blocked})", ends="request")
            candidate = reply["candidates"][0]
            parts = (candidate.get("content") or {}).get("parts") or []
            text = "".join(part["text"] for part in parts if "text" in part and not part.get("thought"))
        except (ValueError, LookupError, TypeError, AttributeError):
            kind = "html" if raw.lstrip()[:1] == b"<" else "not_a_gemini_reply"
            raise AttemptError(kind, f"answered {raw[:60]!r}") from None
        if not text:
            reason = str(candidate.get("finishReason", "no reason given"))
            raise AttemptError("no_text", f"answered without a text ({reason})")
        return text


def _parts(content: Any) -> list[dict[str, Any]]:
    """Gemini's parts of a message's content in OpenAI's form: a text, or a list of texts and audio."""
    if isinstance(content, str):
        return [{"text": content}]
    parts: list[dict[str, Any]] = []
    for piece in content:
        if piece["type"] == "text":
            parts.append({"text": piece["text"]})
        else:
            heard = piece["input_audio"]
            kind = _MIME.get(heard["format"], f"audio/{heard['format']}")
            parts.append({"inlineData": {"mimeType": kind, "data": heard["data"]}})
    return parts
