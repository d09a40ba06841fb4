"""Gemini's own protocol, through the real `google-genai` SDK, against a real server that speaks it, well and badly."""

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import JsonValue

from tests.support.chat_server import Handler, Server, chat_server
from voxmill.core.errors import JobError, UserError
from voxmill.core.http import NoAnswerError
from voxmill.llm.chat_endpoint import EndpointConfig
from voxmill.llm.gemini_endpoint import KEY_VARIABLE, URL, GeminiEndpoint

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

SCHEMA: dict[str, JsonValue] = {"type": "OBJECT", "properties": {"good": {"type": "BOOLEAN"}}}
ASKED: list["ChatCompletionMessageParam"] = [
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
    return GeminiEndpoint(EndpointConfig(url=server.url, **config), SCHEMA)


def test_a_request_has_gemini_s_form_and_the_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    for name in ("GOOGLE_API_KEY", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION"):
        monkeypatch.setenv(name, "private")
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:9")
    with chat_server(lambda handler, number, body: handler.generated('{"good": true}')) as server:
        endpoint = client(server, temperature=0.0, max_tokens=50, input_price=1.0, output_price=5.0)
        assert endpoint.ask(ASKED, seed=3) == '{"good": true}'
        seen = server.seen[0]
    assert seen["path"] == "/v1/models/ear:generateContent" and "private" not in str(seen)
    known = {"host", "content-type", "content-length", "accept", "accept-encoding", "connection", "user-agent"}
    assert set(seen["headers"]) == known | {"x-goog-api-key"} and seen["headers"]["x-goog-api-key"] == "secret"
    # The protocol's JSON takes names in either spelling.
    assert seen["body"] == {
        "systemInstruction": {"parts": [{"text": "You judge."}]},
        "contents": [
            {
                "role": "user",
                "parts": [{"text": "Is it good?"}, {"inlineData": {"mime_type": "audio/mp3", "data": "UklGRg=="}}],
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
    assert (endpoint.usage.input_tokens, endpoint.usage.output_tokens) == (100, 20)
    assert endpoint.usage.cost == pytest.approx((100 + 5 * 20) / 1e6)
    assert "secret" not in str(endpoint.identity) + endpoint.name


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setenv("GOOGLE_API_KEY", "another")
    with chat_server(lambda handler, number, body: handler.generated("good")) as server:
        assert client(server).ask(ASKED) == "good"
    assert "x-goog-api-key" not in server.seen[0]["headers"]


def test_thoughts_are_no_answer_and_are_paid_for() -> None:
    parts = [{"text": "Let me listen.", "thought": True}, {"text": '{"good":'}, {"text": " true}"}]
    answer = {
        "candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 7},
    }
    with chat_server(lambda handler, number, body: handler.send(json.dumps(answer))) as server:
        endpoint = client(server)
        assert endpoint.ask(ASKED) == '{"good": true}' and endpoint.usage.output_tokens == 12


@pytest.mark.parametrize(
    ("answer", "kind", "requests"),
    [
        ({"promptFeedback": {"blockReason": "SAFETY"}}, "blocked", 1),
        ({"candidates": [{"finishReason": "RECITATION"}]}, "no_text", 2),
        ({"candidates": [{"content": {"parts": [{"functionCall": {}}]}, "finishReason": "STOP"}]}, "no_text", 2),
        ({"candidates": [{"content": {"parts": [{"text": "x", "thought": True}]}}]}, "no_text", 2),
        ({"candidates": []}, "not_a_gemini_reply", 2),
        ({"choices": [{"message": {"content": "x"}}]}, "not_a_gemini_reply", 2),
        ([1], "not_a_gemini_reply", 2),
        ({"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": {"a": 1}}]}, "unreadable", 1),
    ],
)
def test_what_is_no_answer_is_counted_by_kind(answer: Any, kind: str, requests: int) -> None:
    with chat_server(lambda handler, number, body: handler.send(json.dumps(answer))) as server:
        endpoint = client(server)
        with pytest.raises(NoAnswerError) as caught:
            endpoint.ask(ASKED)
        assert caught.value.kind == kind and len(server.seen) == requests
    assert endpoint.usage.failures == {kind: requests} and "\n" not in str(caught.value)


def test_a_finish_reason_of_tomorrow_is_no_fault() -> None:
    answer = {"candidates": [{"content": {"parts": [{"text": "good"}]}, "finishReason": "TIRED"}], "mood": 1}
    with chat_server(lambda handler, number, body: handler.send(json.dumps(answer))) as server:
        assert client(server).ask(ASKED) == "good"


def test_a_wrong_key_ends_the_job_and_a_busy_server_is_asked_again() -> None:
    invalid = {"error": {"code": 400, "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}}

    def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
        replies = [("busy", 503), (json.dumps(invalid), 400), ("a bad argument", 400), ("no", 302)]
        handler.send(*replies[number])

    with chat_server(answer) as server:
        endpoint = client(server)
        with pytest.raises(JobError, match=f"set {KEY_VARIABLE} to a valid key"):
            endpoint.ask(ASKED)
        assert endpoint.usage.retries == 1
        for status in (400, 302):
            with pytest.raises(NoAnswerError, match=f"http_{status}"):
                endpoint.ask(ASKED)


def test_the_servers_own_wait_is_kept() -> None:
    """Google's SDK does not know Retry-After."""

    def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
        handler.send("slow down", 429, Retry_After="2") if number == 0 else handler.generated("good")

    with chat_server(answer) as server:
        started = time.perf_counter()
        assert client(server).ask(ASKED) == "good"
    assert 2 <= time.perf_counter() - started < 5


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504])
def test_attempts_are_those_of_the_configuration(status: int) -> None:
    with chat_server(lambda handler, number, body: handler.send("<html>busy</html>", status)) as server:
        endpoint = client(server)
        with pytest.raises(NoAnswerError, match=f"http_{status}"):
            endpoint.ask(ASKED)
    assert endpoint.usage.failures == {f"http_{status}": 2}


@pytest.mark.parametrize("drips", [b"X-A: b\r\n", b"1\r\n \r\n"])
def test_a_server_that_drips_or_breaks_off_is_asked_again(drips: bytes) -> None:
    def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
        if number == 2:
            return handler.generated("good")
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + b"\r\n" * drips.startswith(b"1"))
        for _ in range(1 if number else 30):
            handler.wfile.write(drips)
            time.sleep(0.1)
        handler.close_connection = True

    with chat_server(answer) as server:
        endpoint = client(server, timeout_seconds=0.5, retries=2)
        assert endpoint.ask(ASKED) == "good"
    assert endpoint.usage.failures == {"timeout": 1, "connection": 1}


def test_the_address_and_the_key_s_name_are_gemini_s_unless_they_are_set() -> None:
    assert GeminiEndpoint(EndpointConfig(model="ear")).config.url == URL
    assert GeminiEndpoint(EndpointConfig(model="ear")).config.api_key_variable == KEY_VARIABLE
    own = GeminiEndpoint(EndpointConfig(model="models/ear", url="http://x", api_key_variable="MINE")).config
    assert (own.url, own.api_key_variable) == ("http://x", "MINE")
    with pytest.raises(UserError, match="model is empty"):
        GeminiEndpoint(EndpointConfig())


@pytest.mark.parametrize(
    ("model", "address"),
    [("models/ear", "/v1/models/ear"), ("tunedModels/mine", "/v1/tunedModels/mine"), ("ear", "/v1/models/ear")],
)
@pytest.mark.parametrize("ending", ["", "/"])
def test_the_model_may_be_named_with_its_collection(model: str, address: str, ending: str) -> None:
    with chat_server(lambda handler, number, body: handler.generated("good")) as server:
        config = EndpointConfig(url=server.url + ending, model=model)
        assert GeminiEndpoint(config).ask(ASKED) == "good"
    assert server.seen[0]["path"] == f"{address}:generateContent"
    assert server.seen[0]["body"]["generationConfig"]["responseMimeType"] == "application/json"


def test_an_address_without_a_version_is_kept() -> None:
    with chat_server(lambda handler, number, body: handler.generated("good")) as server:
        config = EndpointConfig(url=server.url.removesuffix("/v1"), model="ear")
        assert GeminiEndpoint(config).ask(ASKED) == "good"
    assert server.seen[0]["path"] == "/models/ear:generateContent"


def test_without_the_sdk_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.genai", None)
    with pytest.raises(UserError, match=r"pip install 'voxmill\[endpoints\]'"):
        GeminiEndpoint(EndpointConfig(model="m"))
