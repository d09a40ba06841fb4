"""InstructTTSEval's judge: does the speech follow its instruction? (arXiv:2506.16381, report Table 9)

Asked over an OpenAI-compatible chat endpoint that hears audio, or over Gemini's own protocol, which is told the schema of
the answer. The answer must be one JSON object with a boolean; anything else is no verdict. Every raw reply is kept, so that scores can be told again
without asking (`judge.replay`), and what has no verdict is counted and bounds the score from both sides.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from voxmill.core.config import Config
from voxmill.core.errors import JobError
from voxmill.llm.chat_endpoint import ChatEndpoint, EndpointConfig, Message, NoAnswerError
from voxmill.llm.gemini_endpoint import GeminiEndpoint
from voxmill.llm.reply_cache import ReplyCache, reply_key

PROMPT = "judge_instruction.v1"
SCHEMA = {
    "type": "OBJECT",
    "properties": {"consistent": {"type": "BOOLEAN"}, "reason": {"type": "STRING"}},
    "required": ["consistent", "reason"],
    "propertyOrdering": ["consistent", "reason"],
}
"""The answer, as Gemini's `responseSchema` says it."""


class JudgeConfig(Config):
    """The judge's endpoint; without a `endpoint.model` nothing is judged. `replay` asks nothing and reads old replies.

    `protocol`: openai, or gemini for its `generateContent` (key from GEMINI_API_KEY, Google's own address unless a url is
    named). `attempts`: how often a reply that is no verdict is asked for again, with another seed.
    """

    protocol: Literal["openai", "gemini"] = "openai"
    """openai for OpenAI-compatible servers, gemini for Google's own protocol."""
    endpoint: EndpointConfig = EndpointConfig(temperature=0.0, max_tokens=1000)
    attempts: int = Field(2, ge=1)
    """How often a reply that holds no verdict is asked for again, each time with another seed."""
    workers: int = Field(4, ge=1)
    """Requests in progress at once."""
    replay: bool = False
    """Send no request; take verdicts from the stored replies only."""


@dataclass(frozen=True)
class Verdict:
    """`followed` None: no verdict, for `reason`: no_audio, not_asked, garbage, judge_down or what the endpoint said."""

    followed: bool | None
    reason: str = ""


@dataclass(frozen=True)
class _Case:
    instruction: str
    wav: Path


class Judge:
    """Asks, keeps and reads verdicts. `usage` counts requests, tokens and cost."""

    def __init__(self, config: JudgeConfig, folder: Path):
        self.config = config
        self._replies = ReplyCache(folder)
        template = resources.files("evaluation.metrics.prompts").joinpath(f"{PROMPT}.txt").read_bytes()
        self._template, self._template_sha256 = template.decode(), hashlib.sha256(template).hexdigest()
        self._endpoint: ChatEndpoint | None = None
        if not config.replay:
            is_gemini = config.protocol == "gemini"
            self._endpoint = GeminiEndpoint(config.endpoint, SCHEMA) if is_gemini else ChatEndpoint(config.endpoint)
        keys = ("model", "temperature", "max_tokens", "json_mode")
        self._model = {key: getattr(config.endpoint, key) for key in keys}
        if config.protocol != "openai":
            self._model["protocol"] = config.protocol
        self._down = ""

    @property
    def name(self) -> str:
        """The judge's model and prompt."""
        return f"{self.config.endpoint.model}, {PROMPT}"

    @property
    def problem(self) -> str:
        """Why the judge could not go on; empty where it could."""
        return self._down

    def __call__(
        self, cases: Sequence[tuple[str, Path | None]], advance: Callable[[int], None] = lambda count: None
    ) -> list[Verdict]:
        """Verdicts on (instruction, wav or None where there is no speech), in order."""

        def one(case: tuple[str, Path | None]) -> Verdict:
            instruction, wav = case
            verdict = Verdict(None, "no_audio") if wav is None else self._judge(_Case(instruction, wav))
            advance(1)
            return verdict

        with ThreadPoolExecutor(self.config.workers) as pool:
            return list(pool.map(one, cases))

    def _judge(self, case: _Case) -> Verdict:
        try:
            data = case.wav.read_bytes()
        except OSError:
            return Verdict(None, "no_audio")
        audio = hashlib.sha256(data).hexdigest()
        verdict = Verdict(None, "not_asked")
        for attempt in range(self.config.attempts):
            key = reply_key(
                model=self._model, prompt=self._template_sha256, instruction=case.instruction, audio=audio, seed=attempt
            )
            reply = self._replies.get(key)
            if reply is None:
                if self._endpoint is None:
                    return verdict
                if self._down:
                    return Verdict(None, "judge_down")
                try:
                    reply = self._endpoint.ask(self._messages(case, data), seed=attempt)
                except NoAnswerError as error:
                    verdict = Verdict(None, error.kind)
                    continue
                except JobError as error:
                    self._down = str(error)
                    return Verdict(None, "judge_down")
                origin = {"prompt": PROMPT, "model": self._model["model"], "instruction": case.instruction}
                self._replies.put(key, reply, origin)
            verdict = parse(reply)
            if verdict.followed is not None:
                break
        return verdict

    def _messages(self, case: _Case, data: bytes) -> list[Message]:
        kind = case.wav.suffix.lstrip(".").lower() or "wav"
        heard: dict[str, Any] = {"data": base64.b64encode(data).decode(), "format": kind}
        text = self._template.format(instruction=case.instruction)
        return [
            {
                "role": "user",
                "content": [{"type": "text", "text": text}, {"type": "input_audio", "input_audio": heard}],
            }
        ]


def parse(reply: str) -> Verdict:
    """The verdict of a reply: one JSON object whose `consistent` is true or false, and nothing around it."""
    try:
        value = json.loads(reply)
    except ValueError:
        return Verdict(None, "garbage")
    followed = value.get("consistent") if isinstance(value, dict) else None
    if not isinstance(followed, bool):
        return Verdict(None, "garbage")
    return Verdict(followed, str(value.get("reason", ""))[:300])
