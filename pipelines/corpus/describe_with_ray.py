"""Descriptions by Ray Data's LLM processors: vLLM engines on the cluster's GPUs, or workers that ask one server.

Every reply is written to OUT by the worker that got it, under the hash of what was asked: a run that is interrupted
asks nothing twice.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from annotation.descriptions.describer import DescribedClip, Describer, Descriptions, DescriptionsConfig
from voxmill.core.errors import JobError, UserError
from voxmill.core.local_ray import quiet_context
from voxmill.llm.batch_chat import BatchChat, BatchLlmConfig
from voxmill.llm.reply_cache import ReplyCache

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam


def describe_in_rounds(
    clips: Iterator[DescribedClip], rule: DescriptionsConfig, cache: Path, counts: Counter[str], usage: dict[str, int]
) -> Iterator[Descriptions]:
    """Describes clips in order. A round asks all that is not known of `clips_a_round` clips; repairs take another one.

    Args:
        counts: gets the describer's counts of each clip's last round.
        usage: gets `rounds`, `requests` and `failures`.

    Raises:
        JobError: the processor cannot go on. UserError: it cannot be built as configured.
    """
    chat = BatchChat(rule.processor, cache)
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
    cache: Path,
    counts: Counter[str],
    usage: dict[str, int],
) -> list[Descriptions]:
    while True:
        describer = Describer(rule, chat=chat)
        results = [describer(clip) for clip in clips]
        if not chat.pending:
            counts.update(describer.counts)
            return results
        usage["rounds"] = usage.get("rounds", 0) + 1
        usage["requests"] = usage.get("requests", 0) + len(chat.pending)
        chat.failed |= answer(chat.pending, rule.processor, cache)
        usage["failures"] = len(chat.failed)
        chat.pending.clear()


def answer(
    pending: dict[str, tuple[list[ChatCompletionMessageParam], int]], config: BatchLlmConfig, cache: Path
) -> dict[str, str]:
    """Asks everything that is noted; replies go to the cache. Returns why by key for requests that brought none."""
    import ray.data
    from ray.data.llm import build_processor

    if config.url is None and not ray.cluster_resources().get("GPU"):
        raise UserError(
            "descriptions.processor starts vLLM engines on GPUs and the cluster has none; "
            "name a server by descriptions.processor.url, or choose another descriptions.writer"
        )
    rows = [
        {"key": key, "messages": json.dumps(messages, ensure_ascii=False), "seed": seed}
        for key, (messages, seed) in pending.items()
    ]
    before, settings, text_of = _server(config) if config.url else _engine(config)
    folder = str(cache.resolve())

    def keep(row: dict[str, Any]) -> dict[str, Any]:
        text, why = text_of(row)
        if not why:
            ReplyCache(Path(folder)).put(row["key"], text, {"model": config.model})
        return {"key": row["key"], "why": why}

    quiet_context()
    processor = build_processor(settings, preprocess=before, postprocess=keep)
    try:
        found = processor(ray.data.from_items(rows)).take_all()
    except ray.exceptions.RayError as error:
        reason = str(getattr(error, "cause", None) or error).strip().splitlines()[0][:300]
        raise JobError(f"the description processor failed: {reason}; what was answered is kept") from error
    failed = {row["key"]: row.get("why") or row.get("__inference_error__", "") for row in found}
    return {key: why for key, why in failed.items() if why}


_Built = tuple[Callable[[dict[str, Any]], dict[str, Any]], Any, Callable[[dict[str, Any]], tuple[str, str]]]


def _server(config: BatchLlmConfig) -> _Built:
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

    def before(row: dict[str, Any]) -> dict[str, Any]:
        payload = {
            "model": config.model,
            "messages": json.loads(row["messages"]),
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            "seed": int(row["seed"]),
        }
        return {"key": row["key"], "payload": payload}

    def text_of(row: dict[str, Any]) -> tuple[str, str]:
        choices = row["http_response"].get("choices")
        # Arrow gives lists back as arrays.
        if not isinstance(choices, list | np.ndarray) or not len(choices):
            return "", f"no choices in the server's answer: {str(row['http_response'])[:200]}"
        content = choices[0]["message"]["content"]
        return (content, "") if isinstance(content, str) else ("", "an answer without text")

    return before, settings, text_of


def _engine(config: BatchLlmConfig) -> _Built:
    from ray.data.llm import vLLMEngineProcessorConfig

    settings = vLLMEngineProcessorConfig(
        model_source=config.model,
        engine_kwargs=dict(config.engine),
        accelerator_type=config.accelerator,
        concurrency=config.replicas,
        batch_size=config.batch_size,
        should_continue_on_error=True,
    )

    def before(row: dict[str, Any]) -> dict[str, Any]:
        sampling = {"temperature": config.temperature, "max_tokens": config.max_tokens, "seed": int(row["seed"])}
        return {"key": row["key"], "messages": json.loads(row["messages"]), "sampling_params": sampling}

    def text_of(row: dict[str, Any]) -> tuple[str, str]:
        return row["generated_text"], ""

    return before, settings, text_of
