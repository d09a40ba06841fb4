"""Gemini's own protocol against a real server that speaks it, well and badly."""

import json
from typing import Any

import pytest

from tests.support.chat_server import Handler, Server, chat_server
from voxmill.core.errors import JobError, UserError
from voxmill.llm.chat_endpoint import EndpointConfig, NoAnswerError
from voxmill.llm.gemini_endpoint import KEY_VARIABLE, URL, GeminiEndpoint

SCHEMA = {"type": "OBJECT", "properties": {"good": {"type": "BOOLEAN"}}}
ASKED = [
    {"role": "system", "content": "You judge."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Is it good?"},
            {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "mp3"}},
        ],
    },
    {"role": "assistant", "content": "Say more."},
]


def client(server: Server, **options: Any) -> GeminiEndpoint:
    config = {"model": "ear", "retries": 1, "requests_per_minute": 6e6, "timeout_seconds": 5.0, **options}
    return GeminiEndpoint(EndpointConfig(url=server.url, **config), SCHEMA, sleep=lambda seconds: None)


def test_a_request_has_gemini_s_form_and_the_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    with chat_server(lambda handler, number, body: handler.generated('{"good": true}')) as server:
        ask = client(server, temperature=0.0, max_tokens=50, input_price=1.0, output_price=5.0)
        assert ask.ask(ASKED, seed=3) == '{"good": true}'
        seen = server.seen[0]
    assert seen["path"] == "/v1/models/ear:generateContent" and "secret" not in seen["path"]
    assert {key.lower(): value for key, value in seen["headers"].items()}["x-goog-api-key"] == "secret"
    assert seen["body"] == {
        "systemInstruction": {"parts": [{"text": "You judge."}]},
        "contents": [
            {
                "role": "user",
                "parts": [{"text": "Is it good?"}, {"inlineData": {"mimeType": "audio/mp3", "data": "UklGRg=="}}],
            },
            {"role": "model", "parts": [{"text": "Say more."}]},
        ],
        "generationConfig": {
            "temperature": 0.0,
            "maxOutputTokens": 50,
            "seed": 3,
            "responseMimeType": "application/json",
            "responseSchema": SCHEMA,
        },
    }
    assert (ask.usage.input_tokens, ask.usage.output_tokens) == (100, 20)
    assert ask.usage.cost == pytest.approx((100 + 5 * 20) / 1e6) and "secret" not in str(ask.identity) + ask.name


def test_thoughts_are_no_answer_and_are_paid_for() -> None:
    parts = [{"text": "Let me hear.", "thought": True}, {"text": '{"good":'}, {"text": " true}"}]
    answer = {
        "candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 7},
    }
    with chat_server(lambda handler, number, body: handler.send(json.dumps(answer))) as server:
        ask = client(server)
        assert ask.ask(ASKED) == '{"good": true}' and ask.usage.output_tokens == 12


@pytest.mark.parametrize(
    ("answer", "kind", "requests"),
    [
        ({"promptFeedback": {"blockReason": "SAFETY"}}, "blocked", 1),
        ({"candidates": [{"finishReason": "RECITATION"}]}, "no_text", 2),
        ({"candidates": [{"content": {"parts": [{"functionCall": {}}]}, "finishReason": "STOP"}]}, "no_text", 2),
        ({"candidates": []}, "not_a_gemini_reply", 2),
        ({"choices": [{"message": {"content": "x"}}]}, "not_a_gemini_reply", 2),
        ([1], "not_a_gemini_reply", 2),
    ],
)
def test_what_is_no_answer_is_told_by_kind(answer: Any, kind: str, requests: int) -> None:
    with chat_server(lambda handler, number, body: handler.send(json.dumps(answer))) as server:
        ask = client(server)
        with pytest.raises(NoAnswerError) as caught:
            ask.ask(ASKED)
        assert caught.value.kind == kind and len(server.seen) == requests


def test_a_wrong_key_ends_the_job_and_a_busy_server_is_asked_again() -> None:
    invalid = {"error": {"code": 400, "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}}

    def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
        replies = [("busy", 503), (json.dumps(invalid), 400), ("a bad argument", 400)]
        handler.send(*replies[number])

    with chat_server(answer) as server:
        ask = client(server)
        with pytest.raises(JobError, match=f"set {KEY_VARIABLE} to a valid key"):
            ask.ask(ASKED)
        assert ask.usage.retries == 1
        with pytest.raises(NoAnswerError, match="http_400"):
            ask.ask(ASKED)


def test_the_address_and_the_key_s_name_are_gemini_s_unless_they_are_set() -> None:
    assert GeminiEndpoint(EndpointConfig(model="ear")).config.url == URL
    assert GeminiEndpoint(EndpointConfig(model="ear")).config.api_key_variable == KEY_VARIABLE
    own = GeminiEndpoint(EndpointConfig(model="models/ear", url="http://x", api_key_variable="MINE")).config
    assert (own.url, own.api_key_variable) == ("http://x", "MINE")
    with pytest.raises(UserError, match="model is empty"):
        GeminiEndpoint(EndpointConfig())
