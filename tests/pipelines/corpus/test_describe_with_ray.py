"""Descriptions by Ray Data's LLM processors: its HTTP processor on a real Ray against a real server on loopback."""

import base64
import dataclasses
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from ray.llm._internal.batch.stages.configs import PrepareMultimodalStageConfig, resolve_stage_config

from annotation.descriptions.config import DescriptionsConfig
from annotation.descriptions.described import DescribedClip
from annotation.descriptions.verification import Evidence
from pipelines.config import AnnotateConfig
from pipelines.corpus.describe_with_ray import _engine, _has_audio, describe_in_rounds
from pipelines.engine.graph import run_graph
from tests.support.chat_server import Handler, chat_server
from voxmill.core.errors import JobError, UserError
from voxmill.core.http import NoAnswerError
from voxmill.data.records import Fact
from voxmill.llm.batch_chat import BatchChat, BatchLlmConfig, BatchUsage
from voxmill.llm.chat_endpoint import user_message
from voxmill.llm.reply_cache import DAMAGED, ReplyCache

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

pytestmark = pytest.mark.usefixtures("ray_here")


def clips(num: int) -> Iterator[DescribedClip]:
    for number in range(num):
        facts = [
            Fact("pitch", "style", "medium", value=120.0, unit="Hz", z=0.0),
            Fact("gender", "design", "male", probability=0.9),
        ]
        yield DescribedClip(f"c{number}", "en", Evidence(facts, {"gender": {"male": 0.9, "female": 0.1}}))


def recipe(url: str | None, **more: Any) -> DescriptionsConfig:
    processor = {"model": "m", "url": url, "retries": 0, "batch_size": 4} | more
    return DescriptionsConfig.model_validate({"writer": "processor", "wordings": 1, "processor": processor})


def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
    if "These claims in it are wrong" in body["messages"][0]["content"]:
        handler.reply(json.dumps({"text": "A man speaks with a medium pitch."}))
        return
    design = {
        "tags": "male voice",
        "phrase": "a male voice",
        "sentence": "A man speaks.",
        "paragraph": "A woman speaks.",
    }
    style = {key: "a medium pitch" for key in design}
    handler.reply(json.dumps({"design": design, "style": style}))


def test_all_clips_are_asked_in_rounds_and_never_twice(tmp_path: Path) -> None:
    with chat_server(answer) as server:
        rule, usage, counts = recipe(server.url, clips_a_round=4), BatchUsage(), Counter[str]()
        results = list(describe_in_rounds(clips(6), rule, ReplyCache(tmp_path), counts, usage))
        asked = len(server.seen)
        # Two chunks of clips; in each a first round and one for the texts that named a woman.
        assert usage == BatchUsage(rounds=4, requests=asked) and asked >= 12
        assert all(body["body"]["model"] == "m" for body in server.seen)
        again = list(describe_in_rounds(clips(6), rule, ReplyCache(tmp_path), Counter(), BatchUsage()))
        assert len(server.seen) == asked and again == results
        next(tmp_path.glob("*/*.json")).write_bytes(b"torn")
        damaged: Counter[str] = Counter()
        assert list(describe_in_rounds(clips(6), rule, ReplyCache(tmp_path), damaged, BatchUsage())) == results
        assert len(server.seen) == asked + 1 and damaged[DAMAGED] == 1
    assert len(results) == 6 and counts["failed"] == 6
    kept = [description for descriptions in results for description in descriptions.kept]
    assert all("woman" not in description.text for description in kept)
    assert {description.generator for description in kept} >= {"m"}


def test_a_server_is_sent_the_sound_in_the_form_of_the_protocol(tmp_path: Path) -> None:
    (clip,) = clips(1)
    sound = (0.5 * np.sin(np.arange(3200) / 5)).astype(np.float32)
    rule = DescriptionsConfig.model_validate({**recipe(None).model_dump(), "send_audio": True})
    with chat_server(answer) as server:
        rule = rule.model_copy(update={"processor": rule.processor.model_copy(update={"url": server.url})})
        hearing = dataclasses.replace(clip, audio=sound)
        (result,) = describe_in_rounds(iter([hearing]), rule, ReplyCache(tmp_path), Counter(), BatchUsage())
        body = server.seen[0]["body"]
    assert set(body) == {"model", "messages", "temperature", "max_tokens", "seed"}
    (message,) = body["messages"]
    text, audio = message["content"]
    assert message["role"] == "user" and set(text) == {"type", "text"} and text["type"] == "text"
    assert set(audio) == {"type", "input_audio"} and audio["input_audio"]["format"] == "wav"
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(audio["input_audio"]["data"])), dtype="float32")
    assert rate == 16_000 and heard == pytest.approx(sound, abs=1e-4)
    assert "m" in {description.generator for description in result.kept}


def test_engines_take_the_sound_out_of_messages_where_there_is_some() -> None:
    words: list[ChatCompletionMessageParam] = [user_message("Only words")]
    assert _has_audio({"a": (words, 0), "b": ([user_message("What?", b"RIFF")], 1)}) and not _has_audio(
        {"a": (words, 0)}
    )
    config = BatchLlmConfig(model="m", engine={"max_model_len": 4096})
    for with_audio in (True, False):
        settings: Any = _engine(config, with_audio=with_audio).settings
        stage = resolve_stage_config(settings.prepare_multimodal_stage, PrepareMultimodalStageConfig, {})
        assert stage.enabled is with_audio


@pytest.mark.parametrize(
    "reply",
    [
        {"error": "no"},
        {"choices": [{"delta": {"content": "x"}}]},
        {"choices": [{"message": {"content": None, "reasoning_content": "Hm."}}]},
        {"choices": [{"message": {"content": None, "refusal": "I cannot."}, "finish_reason": "stop"}]},
    ],
)
def test_a_server_without_an_answer_is_counted_and_the_grammar_writes(reply: dict[str, Any], tmp_path: Path) -> None:
    def broken(handler: Handler, number: int, body: dict[str, Any]) -> None:
        handler.send(json.dumps(reply), Content_Type="application/json")

    with chat_server(broken) as server:
        usage = BatchUsage()
        results = list(describe_in_rounds(clips(2), recipe(server.url), ReplyCache(tmp_path), Counter(), usage))
    assert usage == BatchUsage(rounds=1, requests=2, failures=2, kinds=usage.kinds)
    assert usage.kinds in ({"not_a_chat_reply": 2}, {"no_text": 2}, {"refused_content": 2})
    assert all(d.generator == "template" for descriptions in results for d in descriptions.kept)


def test_a_key_that_is_refused_ends_the_job_with_one_line(tmp_path: Path) -> None:
    def refusing(handler: Handler, number: int, body: dict[str, Any]) -> None:
        error = {"message": "Incorrect API key provided", "type": "invalid_request_error", "code": "invalid_api_key"}
        handler.send(json.dumps({"error": error}), 401, Content_Type="application/json")

    with chat_server(refusing) as server, pytest.raises(JobError, match="Incorrect API key.*OPENAI_API_KEY") as caught:
        list(describe_in_rounds(clips(2), recipe(server.url), ReplyCache(tmp_path), Counter(), BatchUsage()))
    assert "\n" not in str(caught.value)


def test_a_server_that_is_down_ends_the_job_with_one_line(tmp_path: Path) -> None:
    # The graph before it in the same process passes over failed blocks; answers that fail must not be lost so.
    graph = run_graph([0], lambda bucket: [], [], out=tmp_path, config=AnnotateConfig(), run="r")
    assert list(graph) == []
    with pytest.raises(JobError, match="description processor failed") as caught:
        list(
            describe_in_rounds(clips(2), recipe("http://127.0.0.1:9/v1"), ReplyCache(tmp_path), Counter(), BatchUsage())
        )
    assert "\n" not in str(caught.value)


def test_engines_without_gpus_are_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="processor.url"):
        list(describe_in_rounds(clips(1), recipe(None), ReplyCache(tmp_path), Counter(), BatchUsage()))


def test_a_batch_chat_notes_questions_without_an_answer(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="processor.model"):
        BatchChat(BatchLlmConfig(), ReplyCache(tmp_path), Counter())
    chat = BatchChat(BatchLlmConfig(model="m"), ReplyCache(tmp_path), Counter())
    with pytest.raises(NoAnswerError, match="pending"):
        chat.ask([{"role": "user", "content": "?"}], 3)
    assert list(chat.pending.values()) == [([{"role": "user", "content": "?"}], 3)]
