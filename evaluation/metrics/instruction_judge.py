"""InstructTTSEval's judge: does the speech follow its instruction? (arXiv:2506.16381, report Table 9)

A model that understands audio is asked, at an OpenAI-compatible chat endpoint or by Gemini's own protocol, where the
request carries the schema of the answer. The answer must be one JSON object with a boolean; anything else is no
verdict. Every raw reply is kept, so that a benchmark can be scored again without a request (`judge.replay`), and
utterances without a verdict are counted and bound the score from both sides.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue

from voxmill.core.config import Config
from voxmill.core.errors import JobError
from voxmill.core.hashing import sha256_bytes
from voxmill.core.http import NoAnswerError
from voxmill.llm.chat_endpoint import ChatEndpoint, EndpointConfig, user_message
from voxmill.llm.gemini_endpoint import GeminiEndpoint
from voxmill.llm.prompt_files import read_prompt
from voxmill.llm.reply_cache import ReplyCache, Scalar, reply_key

PROMPTS, PROMPT = "evaluation.metrics.prompts", "judge_instruction.v1"
SCHEMA: dict[str, JsonValue] = {
    "type": "OBJECT",
    "properties": {"consistent": {"type": "BOOLEAN"}, "reason": {"type": "STRING"}},
    "required": ["consistent", "reason"],
    "propertyOrdering": ["consistent", "reason"],
}
"""The answer, in the form of Gemini's `responseSchema`."""


class JudgeConfig(Config):
    """The judge's endpoint; without an `endpoint.model` nothing is judged.

    Gemini's own protocol has its own defaults: the key from GEMINI_API_KEY, and Google's address.
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


@dataclass(frozen=True, slots=True)
class InstructionVerdict:
    """`followed` None: no verdict, for `reason`: no_audio, not_asked, garbage, judge_down, or why no answer came."""

    followed: bool | None
    reason: str = ""


class InstructionJudge:
    """Asks for verdicts, keeps and reads the replies."""

    def __init__(self, config: JudgeConfig, folder: Path):
        self.config = config
        self._replies = ReplyCache(folder)
        self._prompt = read_prompt(PROMPTS, PROMPT)
        self._endpoint: ChatEndpoint | None = None
        if not config.replay:
            is_gemini = config.protocol == "gemini"
            self._endpoint = GeminiEndpoint(config.endpoint, SCHEMA) if is_gemini else ChatEndpoint(config.endpoint)
        self._model: dict[str, Scalar] = {
            "model": config.endpoint.model,
            "temperature": config.endpoint.temperature,
            "max_tokens": config.endpoint.max_tokens,
            "json_mode": config.endpoint.json_mode,
        }
        if config.protocol != "openai":
            self._model["protocol"] = config.protocol
        self._problem = ""
        self.counts: Counter[str] = Counter()

    @property
    def name(self) -> str:
        """The judge's model and prompt."""
        return f"{self.config.endpoint.model}, {PROMPT}"

    @property
    def problem(self) -> str:
        """Why no more requests were sent; empty where all were."""
        return self._problem

    def __call__(
        self, cases: Sequence[tuple[str, Path | None]], advance: Callable[[int], None] = lambda count: None
    ) -> list[InstructionVerdict]:
        """Verdicts on (instruction, wav or None where there is no speech), in order."""

        def check(case: tuple[str, Path | None]) -> InstructionVerdict:
            verdict = self._check(*case)
            advance(1)
            return verdict

        with ThreadPoolExecutor(self.config.workers) as pool:
            return list(pool.map(check, cases))

    def _check(self, instruction: str, wav: Path | None) -> InstructionVerdict:
        try:
            content = wav.read_bytes() if wav else None
        except FileNotFoundError:
            content = None
        if wav is None or content is None:
            return InstructionVerdict(None, "no_audio")
        audio = sha256_bytes(content)
        verdict = InstructionVerdict(None, "not_asked")
        for attempt in range(self.config.attempts):
            key = reply_key(
                model=self._model, prompt=self._prompt.sha256, instruction=instruction, audio=audio, seed=attempt
            )
            reply = self._replies.get(key, self.counts)
            if reply is None:
                if self._endpoint is None:
                    return verdict
                if self._problem:
                    return InstructionVerdict(None, "judge_down")
                try:
                    text = self._prompt.fill(instruction=instruction)
                    message = user_message(text, content, wav.suffix.lstrip(".").lower() or "wav")
                    reply = self._endpoint.ask([message], seed=attempt)
                except NoAnswerError as error:
                    verdict = InstructionVerdict(None, error.kind)
                    continue
                except JobError as error:
                    self._problem = str(error)
                    return InstructionVerdict(None, "judge_down")
                origin = {"prompt": PROMPT, "model": self.config.endpoint.model, "instruction": instruction}
                self._replies.put(key, reply, origin)
            verdict = parse(reply)
            if verdict.followed is not None:
                break
        return verdict


def parse(reply: str) -> InstructionVerdict:
    """The verdict of a reply: one JSON object whose `consistent` is true or false, and nothing around it."""
    try:
        value = json.loads(reply)
    except (ValueError, RecursionError):
        return InstructionVerdict(None, "garbage")
    followed = value.get("consistent") if isinstance(value, dict) else None
    if not isinstance(followed, bool):
        return InstructionVerdict(None, "garbage")
    return InstructionVerdict(followed, str(value.get("reason", ""))[:300])
