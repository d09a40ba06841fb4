"""Descriptions by Ray Data's LLM processors: vLLM engines on the cluster's GPUs, or workers that ask one server.

A clip's sound is part of a question's messages: a server gets it with them, and for engines the stage that takes sound
and pictures out of messages is switched on, which is off by default.

Every reply is written to OUT by the worker that got it, under the hash of what was asked: a run that is interrupted
asks nothing twice.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypedDict

import numpy as np
from pydantic import JsonValue

from annotation.descriptions.config import DescriptionsConfig
from annotation.descriptions.described import DescribedClip, Descriptions
from annotation.descriptions.describer import Describer
from voxmill.core.errors import JobError, UserError
from voxmill.core.local_ray import data_settings
from voxmill.llm.batch_chat import BatchChat, BatchLlmConfig, BatchUsage
from voxmill.llm.reply_cache import ReplyCache

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam
    from ray.data.llm import ProcessorConfig


_REFUSED = "refused"
"""Kind of a failure that every request has: the key, or the model's name."""
_REFUSALS = ("authentication_error", "permission_error", "invalid_api_key", "model_not_found", "401", "403", "404")
"""Types and codes of errors in the bodies of OpenAI-compatible servers; the stage tells no status."""


class Question(TypedDict):
    """A row that goes in; `messages` as JSON, since Arrow would give every message all fields of all others."""

    key: str
    messages: str
    seed: int


class Outcome(TypedDict):
    """A row that comes out. `why`: the reason why no answer came, "" where one did."""

    key: str
    why: str


AnswerRow = Mapping[str, object]
"""A row with an answer, in the processor's own columns."""


@dataclass(frozen=True)
class _Protocol:
    """A processor's settings, how it wants a question, and how its answer is read: (text, why there is none)."""

    settings: ProcessorConfig
    prepare: Callable[[Question], dict[str, JsonValue]]
    read: Callable[[AnswerRow], tuple[str, str]]


def describe_in_rounds(
    clips: Iterator[DescribedClip], rule: DescriptionsConfig, cache: ReplyCache, counts: Counter[str], usage: BatchUsage
) -> Iterator[Descriptions]:
    """Describes clips in order. A round asks the open questions of `clips_a_round` clips; repairs take another one.

    Args:
        counts: gets the describer's counts of each clip's last round, and damaged replies of all.
        usage: is counted up.

    Raises:
        JobError: the processor failed. UserError: it cannot be built as configured.
    """
    chat = BatchChat(rule.processor, cache, counts)
    chunk: list[DescribedClip] = []
    for clip in clips:
        chunk.append(clip)
        if len(chunk) == rule.processor.clips_a_round:
            yield from _describe_chunk(chunk, chat, rule, cache, counts, usage)
            chunk = []
    if chunk:
        yield from _describe_chunk(chunk, chat, rule, cache, counts, usage)


def _describe_chunk(
    clips: list[DescribedClip],
    chat: BatchChat,
    rule: DescriptionsConfig,
    cache: ReplyCache,
    counts: Counter[str],
    usage: BatchUsage,
) -> list[Descriptions]:
    while True:
        describer = Describer(rule, chat=chat)
        results = [describer(clip) for clip in clips]
        if not chat.pending:
            counts.update(describer.counts)
            return results
        usage.rounds += 1
        usage.requests += len(chat.pending)
        chat.failed |= answer(chat.pending, rule.processor, cache)
        usage.failures = len(chat.failed)
        usage.kinds = dict(Counter(why.partition(":")[0] for why in chat.failed.values()))
        if refused := [why for why in chat.failed.values() if why.partition(":")[0] == _REFUSED]:
            raise JobError(
                f"{rule.processor.url} {refused[0][:200]}; set {rule.processor.api_key_variable} and "
                "descriptions.processor.model to what the server takes; the answers so far are kept"
            )
        chat.pending.clear()


def answer(
    pending: dict[str, tuple[list[ChatCompletionMessageParam], int]], config: BatchLlmConfig, cache: ReplyCache
) -> dict[str, str]:
    """Asks every noted question; replies go to the cache. Returns, by key, why a request brought no answer."""
    import ray.data
    from ray.data.llm import build_processor

    if config.url is None and not ray.cluster_resources().get("GPU"):  # type: ignore[no-untyped-call]
        raise UserError(
            "descriptions.processor starts vLLM engines on GPUs and the cluster has none; "
            "name a server by descriptions.processor.url, or choose another descriptions.writer"
        )
    questions = [
        Question(key=key, messages=json.dumps(messages, ensure_ascii=False), seed=seed)
        for key, (messages, seed) in pending.items()
    ]
    protocol = _server(config) if config.url else _engine(config, with_audio=_has_audio(pending))
    folder, read = cache.folder, protocol.read

    def keep(row: AnswerRow) -> Outcome:
        text, why = read(row)
        if not why:
            ReplyCache(folder).put(str(row["key"]), text, {"model": config.model})
        return {"key": str(row["key"]), "why": why}

    try:
        with data_settings():
            processor = build_processor(protocol.settings, preprocess=protocol.prepare, postprocess=keep)
            outcomes = processor(ray.data.from_items(questions)).take_all()
    except ray.exceptions.RayError as error:
        reason = str(getattr(error, "cause", None) or error).strip().splitlines()[0][:300]
        raise JobError(f"the description processor failed: {reason}; the answers so far are kept") from error
    failed = {row["key"]: row.get("why") or row.get("__inference_error__", "") for row in outcomes}
    if lost := pending.keys() - failed.keys():
        raise JobError(f"the description processor gave nothing back for {len(lost)} of {len(pending)} questions")
    return {key: why for key, why in failed.items() if why}


class _Session:
    """An HTTP session whose requests say nothing of what Arrow has added.

    Between two stages a message is Arrow, which gives each part of its content the keys of the others, as nulls; a
    server that looks at the request refuses a text with `input_audio`.
    """

    def __init__(self) -> None:
        import aiohttp

        self._session = aiohttp.ClientSession()

    async def __aenter__(self) -> Self:
        await self._session.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._session.__aexit__(*error)

    def post(self, url: str, *, headers: Mapping[str, str], data: str) -> Any:
        """A POST, as the HTTP stage asks for it."""
        return self._session.post(url, headers=headers, data=json.dumps(_without_nulls(json.loads(data))))


def _without_nulls(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


def _server(config: BatchLlmConfig) -> _Protocol:
    from ray.data.llm import HttpRequestProcessorConfig

    key = os.environ.get(config.api_key_variable)
    settings = HttpRequestProcessorConfig(
        url=f"{str(config.url).rstrip('/')}/chat/completions",
        headers={"Authorization": f"Bearer {key}"} if key else None,
        qps=config.requests_per_second,
        max_retries=config.retries,
        batch_size=config.batch_size,
        concurrency=config.replicas,
        session_factory=_Session,
    )

    def prepare(question: Question) -> dict[str, JsonValue]:
        payload: dict[str, JsonValue] = {
            "model": config.model,
            "messages": json.loads(question["messages"]),
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            "seed": int(question["seed"]),
        }
        return {"key": question["key"], "payload": payload}

    return _Protocol(settings, prepare, _read_completion)


def _read_completion(row: AnswerRow) -> tuple[str, str]:
    reply = row["http_response"]
    choices = reply.get("choices") if isinstance(reply, dict) else None
    # Arrow gives lists back as arrays.
    if not isinstance(choices, list | np.ndarray) or not len(choices):
        error = reply.get("error") if isinstance(reply, dict) else None
        known = error if isinstance(error, dict) else {}
        if known.get("type") in _REFUSALS or str(known.get("code")) in _REFUSALS:
            return "", f"{_REFUSED}: {str(known.get('message'))[:200]}"
        return "", f"not_a_chat_reply: {str(reply)[:200]}"
    choice: dict[str, Any] = choices[0] if isinstance(choices[0], dict) else {}
    found = choice.get("message")
    message: dict[str, Any] = found if isinstance(found, dict) else {}
    content = message.get("content")
    if isinstance(content, str):
        return content, ""
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        return "", "refused_content: the model refused"
    return "", f"no_text: an answer without text (finish_reason: {choice.get('finish_reason')})"


def _has_audio(pending: dict[str, tuple[list[ChatCompletionMessageParam], int]]) -> bool:
    contents = (message.get("content") for messages, _ in pending.values() for message in messages)
    return any(
        isinstance(part, dict) and part["type"] == "input_audio"
        for content in contents
        if isinstance(content, list)
        for part in content
    )


def _engine(config: BatchLlmConfig, with_audio: bool) -> _Protocol:
    from ray.data.llm import vLLMEngineProcessorConfig

    settings = vLLMEngineProcessorConfig(
        model_source=config.model,
        engine_kwargs=dict(config.engine),
        accelerator_type=config.accelerator,
        concurrency=config.replicas,
        batch_size=config.batch_size,
        should_continue_on_error=True,
        prepare_multimodal_stage={"enabled": with_audio},
    )

    def prepare(question: Question) -> dict[str, JsonValue]:
        sampling: dict[str, JsonValue] = {
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            "seed": int(question["seed"]),
        }
        return {"key": question["key"], "messages": json.loads(question["messages"]), "sampling_params": sampling}

    return _Protocol(settings, prepare, lambda row: (str(row["generated_text"]), ""))
