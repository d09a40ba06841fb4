"""Descriptions by Ray Data's LLM processors: vLLM engines on the cluster's GPUs, or workers that ask one server.

Every reply is written to OUT by the worker that got it, under the hash of what was asked: a run that is interrupted
asks nothing twice.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from pydantic import JsonValue

from annotation.descriptions.describer import DescribedClip, Describer, Descriptions, DescriptionsConfig
from voxmill.core.errors import JobError, UserError
from voxmill.core.local_ray import data_settings
from voxmill.llm.batch_chat import BatchChat, BatchLlmConfig, BatchUsage
from voxmill.llm.reply_cache import ReplyCache

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam
    from ray.data.llm import ProcessorConfig


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
    protocol = _server(config) if config.url else _engine(config)
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
        return "", f"no choices in the server's answer: {str(reply)[:200]}"
    message = choices[0].get("message") if isinstance(choices[0], dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    return (content, "") if isinstance(content, str) else ("", "an answer without text")


def _engine(config: BatchLlmConfig) -> _Protocol:
    from ray.data.llm import vLLMEngineProcessorConfig

    settings = vLLMEngineProcessorConfig(
        model_source=config.model,
        engine_kwargs=dict(config.engine),
        accelerator_type=config.accelerator,
        concurrency=config.replicas,
        batch_size=config.batch_size,
        should_continue_on_error=True,
    )

    def prepare(question: Question) -> dict[str, JsonValue]:
        sampling: dict[str, JsonValue] = {
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            "seed": int(question["seed"]),
        }
        return {"key": question["key"], "messages": json.loads(question["messages"]), "sampling_params": sampling}

    return _Protocol(settings, prepare, lambda row: (str(row["generated_text"]), ""))
