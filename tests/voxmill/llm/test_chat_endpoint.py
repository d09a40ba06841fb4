"""The endpoint's client against a real server that is slow, down, rude or wrong."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.chat_server import Handler, Server, chat_server
from voxmill.core.errors import JobError, UserError
from voxmill.llm.chat_endpoint import ChatEndpoint, EndpointConfig, NoAnswerError

HELLO = [{"role": "user", "content": "hello"}]


def client(server: Server, sleeps: list[float] | None = None, **options: Any) -> ChatEndpoint:
    config = {"model": "m", "retries": 2, "requests_per_minute": 6e6, "timeout_seconds": 5.0, **options}
    waits = sleeps if sleeps is not None else []
    return ChatEndpoint(EndpointConfig(url=server.url, **config), sleep=waits.append)


def test_an_answer_comes_with_its_tokens_and_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with chat_server(lambda handler, number, body: handler.reply("good")) as server:
        ask = client(server, input_price=1.0, output_price=5.0)
        assert ask.ask(HELLO) == ask.ask(HELLO) == "good"
    usage = ask.usage
    assert (usage.requests, usage.retries, usage.input_tokens, usage.output_tokens) == (2, 0, 200, 40)
    assert usage.cost == pytest.approx(2 * (100 + 5 * 20) / 1e6) and usage.failures == {}
    seen = server.seen[0]
    assert seen["path"] == "/v1/chat/completions" and seen["headers"]["Authorization"] == "Bearer secret"
    assert seen["body"]["model"] == "m" and seen["body"]["response_format"] == {"type": "json_object"}
    assert "secret" not in str(ask.identity) + ask.name


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again_with_growing_waits(status: int) -> None:
    def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
        handler.send("busy", status) if number < 2 else handler.reply("good")

    sleeps: list[float] = []
    with chat_server(answer) as server:
        ask = client(server, sleeps, first_wait_seconds=1.0)
        assert ask.ask(HELLO) == "good"
    assert ask.usage.failures == {f"http_{status}": 2} and ask.usage.retries == 2
    assert 0.5 <= sleeps[0] <= 1.0 <= sleeps[1] <= 2.0


def test_the_servers_own_wait_is_kept_up_to_a_limit() -> None:
    def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
        waits = ["7", "100000", "soon"]
        handler.send("slow down", 429, Retry_After=waits[number]) if number < 3 else handler.reply("good")

    sleeps: list[float] = []
    with chat_server(answer) as server:
        assert client(server, sleeps, retries=3, max_wait_seconds=30.0, first_wait_seconds=1.0).ask(HELLO) == "good"
    assert sleeps[:2] == [7.0, 30.0] and 2.0 <= sleeps[2] <= 4.0


def test_a_bad_request_is_not_repeated_and_does_not_end_the_job() -> None:
    with chat_server(lambda handler, number, body: handler.send("no", 400)) as server:
        with pytest.raises(NoAnswerError, match="http_400"):
            client(server).ask(HELLO)
        assert len(server.seen) == 1


@pytest.mark.parametrize(("status", "hint"), [(401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "check the url")])
def test_a_refused_key_or_an_unknown_model_ends_the_job_at_once(status: int, hint: str) -> None:
    with chat_server(lambda handler, number, body: handler.send("no", status)) as server:
        with pytest.raises(JobError, match=hint):
            client(server).ask(HELLO)
        assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("<html><body>Sign in to the network</body></html>", "html"),
        ("", "not_a_chat_reply"),
        ('{"choices": []}', "not_a_chat_reply"),
        ('{"error": "overloaded"}', "not_a_chat_reply"),
        ('{"choices": [{"message": {"content": null}}]}', "no_text"),
        ("[1, 2", "not_a_chat_reply"),
    ],
)
def test_what_is_not_a_chat_reply_is_named(content: str, kind: str) -> None:
    with chat_server(lambda handler, number, body: handler.send(content)) as server:
        ask = client(server)
        with pytest.raises(NoAnswerError) as caught:
            ask.ask(HELLO)
    assert caught.value.kind == kind and ask.usage.failures == {kind: 3}


def test_a_redirect_is_not_followed() -> None:
    """It would carry the key to another host."""
    with chat_server(lambda handler, number, body: handler.send("", 302, Location="http://127.0.0.1:9/")) as server:
        with pytest.raises(NoAnswerError, match="http_302"):
            client(server).ask(HELLO)
        assert len(server.seen) == 1


@pytest.mark.parametrize("drips", ["nothing", "headers", "body"])
def test_a_server_that_drips_cannot_hold_a_worker(drips: str) -> None:
    def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
        if drips == "nothing":
            time.sleep(3)
            return
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        if drips == "body":
            handler.wfile.write(b"Content-Length: 1000\r\n\r\n")
        for _ in range(30):
            handler.wfile.write(b"X-A: b\r\n" if drips == "headers" else b"x")
            time.sleep(0.1)

    with chat_server(answer) as server:
        ask = client(server, timeout_seconds=0.4, retries=0)
        started = time.perf_counter()
        with pytest.raises(NoAnswerError) as caught:
            ask.ask(HELLO)
    assert caught.value.kind == "timeout" and time.perf_counter() - started < 4.5
    assert ask.usage.seconds < 1.5


def test_a_connection_that_breaks_off_is_a_failure_of_this_attempt() -> None:
    def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
        if number:
            return handler.reply("good")
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
        handler.close_connection = True

    with chat_server(answer) as server:
        ask = client(server)
        assert ask.ask(HELLO) == "good" and sum(ask.usage.failures.values()) == 1


def test_an_endpoint_that_is_down_ends_the_job_after_some_requests() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = EndpointConfig(url=f"http://127.0.0.1:{port}/v1", model="m", retries=1, give_up_after=3)
    ask = ChatEndpoint(config, sleep=lambda seconds: None)
    for _ in range(2):
        with pytest.raises(NoAnswerError, match="connection"):
            ask.ask(HELLO)
    with pytest.raises(JobError, match="3 requests in a row"):
        ask.ask(HELLO)
    assert ask.usage.requests == 6 and ask.usage.failures == {"connection": 6}


def test_one_good_answer_forgives_the_failures_before() -> None:
    def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
        handler.send("no", 400) if number % 2 == 0 else handler.reply("good")

    with chat_server(answer) as server:
        ask = client(server, give_up_after=2)
        for _ in range(4):
            with pytest.raises(NoAnswerError):
                ask.ask(HELLO)
            assert ask.ask(HELLO) == "good"


def test_the_rate_is_kept_over_threads() -> None:
    with chat_server(lambda handler, number, body: handler.reply("good")) as server:
        ask = ChatEndpoint(EndpointConfig(url=server.url, model="m", requests_per_minute=1200))
        started = time.perf_counter()
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask.ask, [HELLO] * 16)) == ["good"] * 16
        # 16 requests at 20 a second: the first goes at once.
        assert time.perf_counter() - started > 15 / 20 - 0.05
    assert ask.usage.requests == 16 and ask.usage.input_tokens == 1600


def test_a_spent_budget_ends_the_job_before_the_next_request() -> None:
    with chat_server(lambda handler, number, body: handler.reply("good", 1_000_000, 0)) as server:
        ask = client(server, input_price=2.0, max_cost=3.0)
        ask.ask(HELLO), ask.ask(HELLO)
        with pytest.raises(JobError, match="budget of 3.0 is spent"):
            ask.ask(HELLO)
        assert len(server.seen) == 2


def test_mistakes_in_the_configuration_are_named() -> None:
    with pytest.raises(UserError, match="url='ftp://x'"):
        ChatEndpoint(EndpointConfig(url="ftp://x", model="m"))
    with pytest.raises(UserError, match="model is empty"):
        ChatEndpoint(EndpointConfig())
