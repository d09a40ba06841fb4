"""The chat endpoint, through the real `openai` SDK, against a real server that is slow, down, rude or wrong."""

import gzip
import json
import logging
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chat_server import Handler, Server, chat_server
from voxmill.core.config import load_config
from voxmill.core.errors import JobError, UserError
from voxmill.core.http import NoAnswerError
from voxmill.llm.chat_endpoint import ChatEndpoint, EndpointConfig

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

HELLO: list["ChatCompletionMessageParam"] = [{"role": "user", "content": "hello"}]


def client(server: Server, **options: Any) -> ChatEndpoint:
    config = {"model": "m", "retries": 1, "requests_per_minute": 6e6, "timeout_seconds": 5.0, **options}
    return ChatEndpoint(EndpointConfig(url=server.url, **config))


def test_an_answer_comes_with_its_tokens_and_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with chat_server(lambda handler, number, body: handler.reply("good")) as server:
        endpoint = client(server, input_price=1.0, output_price=5.0)
        assert endpoint.ask(HELLO, seed=3) == endpoint.ask(HELLO) == "good"
    usage = endpoint.usage
    assert (usage.requests, usage.retries, usage.input_tokens, usage.output_tokens) == (2, 0, 200, 40)
    assert usage.cost == pytest.approx(2 * (100 + 5 * 20) / 1e6) and usage.failures == {}
    seen = server.seen[0]
    assert seen["path"] == "/v1/chat/completions" and seen["headers"]["authorization"] == "Bearer secret"
    assert seen["body"] == {
        "model": "m",
        "messages": HELLO,
        "temperature": 0.7,
        "max_tokens": 800,
        "seed": 3,
        "response_format": {"type": "json_object"},
    }
    assert "secret" not in str(endpoint.identity) + endpoint.name


def test_json_mode_may_be_switched_off() -> None:
    with chat_server(lambda handler, number, body: handler.reply("good")) as server:
        assert client(server, json_mode=False).ask(HELLO) == "good"
    assert "response_format" not in server.seen[0]["body"]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_a_busy_server_is_asked_again(status: int) -> None:
    def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
        handler.send("busy", status, Retry_After_Ms="1") if number < 2 else handler.reply("good")

    with chat_server(answer) as server:
        endpoint = client(server, retries=2)
        assert endpoint.ask(HELLO) == "good"
    assert endpoint.usage.failures == {f"http_{status}": 2}
    assert (endpoint.usage.requests, endpoint.usage.retries) == (3, 2)


def test_a_busy_server_that_names_no_wait_gets_a_short_one() -> None:
    def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
        handler.send("busy", 429) if number < 1 else handler.reply("good")

    with chat_server(answer) as server:
        started = time.perf_counter()
        assert client(server).ask(HELLO) == "good"
    assert 0.3 < time.perf_counter() - started < 3


def test_the_servers_own_wait_is_kept() -> None:
    def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
        handler.send("slow down", 429, Retry_After="1.5") if number < 1 else handler.reply("good")

    with chat_server(answer) as server:
        started = time.perf_counter()
        assert client(server).ask(HELLO) == "good"
    assert 1.5 <= time.perf_counter() - started < 4


def test_a_server_that_asks_for_hours_has_failed_the_request() -> None:
    with chat_server(lambda handler, number, body: handler.send("spent", 429, Retry_After="86400")) as server:
        with pytest.raises(NoAnswerError, match="http_429.*in 86400 s"):
            client(server, retries=3).ask(HELLO)
        assert len(server.seen) == 1


def test_a_bad_request_is_not_repeated_and_does_not_end_the_job() -> None:
    with chat_server(lambda handler, number, body: handler.send("no", 400)) as server:
        with pytest.raises(NoAnswerError, match="http_400"):
            client(server).ask(HELLO)
        assert len(server.seen) == 1


@pytest.mark.parametrize(("status", "hint"), [(401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "check the url")])
def test_a_refused_key_or_an_unknown_model_ends_the_job_at_once(status: int, hint: str) -> None:
    """Even where the server says that another attempt may help."""
    with chat_server(lambda handler, number, body: handler.send("no", status, X_Should_Retry="true")) as server:
        with pytest.raises(JobError, match=hint) as caught:
            client(server).ask(HELLO)
        assert len(server.seen) == 1 and "\n" not in str(caught.value)


SURROGATE = json.dumps({"choices": [{"message": {"content": "a \ud83d\ude00 b \ud83d"}}]})


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("<html><body>Sign in to the network</body></html>", "html"),
        ("", "not_a_chat_reply"),
        ('{"choices": []}', "not_a_chat_reply"),
        ('{"choices": null}', "not_a_chat_reply"),
        ('{"choices": [{"delta": {"content": "x"}}]}', "not_a_chat_reply"),
        ('{"error": {"message": "overloaded", "code": 429}}', "not_a_chat_reply"),
        ('{"choices": [{"message": {"content": null}}]}', "no_text"),
        (
            '{"choices": [{"message": {"content": null, "reasoning_content": "Hm."}, "finish_reason": "length"}]}',
            "no_text",
        ),
        ('{"choices": [{"message": {"content": [{"type": "text", "text": "x"}]}}]}', "no_text"),
        ('{"choices": [{"message": {"content": null, "tool_calls": [{"id": "1"}]}}]}', "no_text"),
        ('data: {"choices": [{"delta": {"content": "x"}}]}\n\ndata: [DONE]\n\n', "not_a_chat_reply"),
        ('"a text"', "not_a_chat_reply"),
        ("[1, 2", "not_a_chat_reply"),
        ("[" * 200_000, "not_a_chat_reply"),
        (b"\xff\xfe\xfd", "not_a_chat_reply"),
    ],
)
def test_an_answer_that_is_no_chat_reply_is_counted_by_kind(content: str | bytes, kind: str) -> None:
    with chat_server(lambda handler, number, body: handler.send(content)) as server:
        endpoint = client(server)
        with pytest.raises(NoAnswerError) as caught:
            endpoint.ask(HELLO)
    assert caught.value.kind == kind and endpoint.usage.failures == {kind: 2} and len(server.seen) == 2


def test_reasoning_that_used_all_tokens_is_named() -> None:
    reply = '{"choices": [{"message": {"content": null, "reasoning": "Hm."}, "finish_reason": "length"}]}'
    with (
        chat_server(lambda handler, number, body: handler.send(reply)) as server,
        pytest.raises(NoAnswerError, match="finish_reason: length"),
    ):
        client(server, retries=0).ask(HELLO)


@pytest.mark.parametrize(
    "content",
    [
        '{"choices": [{"message": {"content": "good"}}]}',
        '{"choices": [{"message": {"content": "good"}}], "usage": null}',
        '{"choices": [{"message": {"content": "good"}}], "usage": []}',
        '{"choices": [{"message": {"content": "good"}}], "usage": {"prompt_tokens": "many", "completion_tokens": -1}}',
        '{"choices": [{"message": {"content": "good", "role": 7}, "finish_reason": "eos", "index": "x"}, null]}',
        '{"choices": [{"message": {"content": "good", "reasoning_content": "Hm."}}], "object": "text", "created": {}}',
        ' \n{"choices": [{"message": {"content": "good"}}]}\n',
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "text/plain; charset=latin-1", "text/html", ""])
def test_a_reply_with_odd_fields_or_of_the_wrong_type_is_still_one(content: str, kind: str) -> None:
    with chat_server(lambda handler, number, body: handler.send(content, Content_Type=kind)) as server:
        endpoint = client(server, retries=0)
        assert endpoint.ask(HELLO) == "good"
    assert (endpoint.usage.input_tokens, endpoint.usage.failures) == (0, {})


def test_half_a_character_is_replaced() -> None:
    """It could be neither stored in the cache nor sent back in a repair."""
    with chat_server(lambda handler, number, body: handler.send(SURROGATE)) as server:
        assert client(server).ask(HELLO) == "a \U0001f600 b \ufffd"


def test_replies_may_come_in_chunks_and_compressed() -> None:
    reply = json.dumps({"choices": [{"message": {"content": "早上好"}}]}).encode()

    def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
        if number == 0:
            handler.send(gzip.compress(reply), Content_Encoding="gzip")
        elif number == 1:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for byte in reply:
                handler.wfile.write(b"1\r\n" + bytes([byte]) + b"\r\n")
            handler.wfile.write(b"0\r\n\r\n")
        else:
            handler.send(reply[:30], Content_Encoding="gzip")

    with chat_server(answer) as server:
        endpoint = client(server, retries=0)
        assert endpoint.ask(HELLO) == endpoint.ask(HELLO) == "早上好"
        with pytest.raises(NoAnswerError, match="connection"):
            endpoint.ask(HELLO)


def test_an_answer_without_end_is_cut_off() -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    with (
        chat_server(lambda handler, number, body: handler.send(bomb, Content_Encoding="gzip")) as server,
        pytest.raises(NoAnswerError, match="too_long: answered more than 4000000 bytes"),
    ):
        client(server, retries=0).ask(HELLO)


@pytest.mark.parametrize("status", [302, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    """It would carry the key and the audio to another host."""
    with (
        chat_server(lambda handler, number, body: handler.reply("stolen")) as other,
        chat_server(lambda handler, number, body: handler.send("", status, Location=other.url)) as server,
    ):
        with pytest.raises(NoAnswerError, match=f"http_{status}"):
            client(server).ask(HELLO)
        assert len(server.seen) == 1 and other.seen == []


@pytest.mark.parametrize("drips", ["nothing", "headers", "body", "chunks"])
def test_a_server_that_drips_cannot_hold_a_worker(drips: str) -> None:
    def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
        if drips == "nothing":
            time.sleep(3)
            return
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        if drips == "body":
            handler.wfile.write(b"Content-Length: 1000\r\n\r\n")
        if drips == "chunks":
            handler.wfile.write(b"Transfer-Encoding: chunked\r\n\r\n")
        piece = {"headers": b"X-A: b\r\n", "body": b"x", "chunks": b"1\r\n \r\n"}[drips]
        for _ in range(30):
            handler.wfile.write(piece)
            time.sleep(0.1)

    with chat_server(answer) as server:
        endpoint = client(server, timeout_seconds=0.4, retries=0)
        started = time.perf_counter()
        with pytest.raises(NoAnswerError) as caught:
            endpoint.ask(HELLO)
        assert time.perf_counter() - started < 2
    assert caught.value.kind == "timeout" and endpoint.usage.seconds < 1.5


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"SSH-2.0-OpenSSH\r\n",
    ],
)
def test_a_connection_that_breaks_off_is_a_failure_of_this_attempt(start: bytes) -> None:
    def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
        if number:
            return handler.reply("good")
        handler.wfile.write(start)
        handler.close_connection = True

    with chat_server(answer) as server:
        endpoint = client(server)
        assert endpoint.ask(HELLO) == "good" and endpoint.usage.failures == {"connection": 1}


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_an_endpoint_that_is_down_ends_the_job_after_some_requests() -> None:
    config = EndpointConfig(url=f"http://127.0.0.1:{closed_port()}/v1", model="m", retries=1, give_up_after=3)
    endpoint = ChatEndpoint(config)
    for _ in range(2):
        with pytest.raises(NoAnswerError, match="connection"):
            endpoint.ask(HELLO)
    with pytest.raises(JobError, match="3 requests in a row") as caught:
        endpoint.ask(HELLO)
    assert "\n" not in str(caught.value)
    assert endpoint.usage.requests == 6 and endpoint.usage.failures == {"connection": 6}


def test_one_good_answer_forgives_the_failures_before() -> None:
    def answer(handler: Handler, number: int, body: dict[str, Any]) -> None:
        handler.send("no", 400) if number % 2 == 0 else handler.reply("good")

    with chat_server(answer) as server:
        endpoint = client(server, give_up_after=2)
        for _ in range(4):
            with pytest.raises(NoAnswerError):
                endpoint.ask(HELLO)
            assert endpoint.ask(HELLO) == "good"


def test_the_rate_is_kept_over_threads() -> None:
    with chat_server(lambda handler, number, body: handler.reply("good")) as server:
        endpoint = ChatEndpoint(EndpointConfig(url=server.url, model="m", requests_per_minute=1200))
        started = time.perf_counter()
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(endpoint.ask, [HELLO] * 16)) == ["good"] * 16
        # 16 requests at 20 a second: the first goes at once.
        assert time.perf_counter() - started > 15 / 20 - 0.05
    assert endpoint.usage.requests == 16 and endpoint.usage.input_tokens == 1600


def test_a_spent_budget_ends_the_job_before_the_next_request() -> None:
    with chat_server(lambda handler, number, body: handler.reply("good", 1_000_000, 0)) as server:
        endpoint = client(server, input_price=2.0, max_cost=3.0)
        endpoint.ask(HELLO), endpoint.ask(HELLO)
        with pytest.raises(JobError, match="budget of 3.0"):
            endpoint.ask(HELLO)
        assert len(server.seen) == 2


def test_a_budget_that_unusable_answers_spend_ends_the_job_without_another_attempt() -> None:
    with chat_server(lambda handler, number, body: handler.reply(None, 1_000_000, 0)) as server:
        endpoint = client(server, input_price=2.0, max_cost=3.0, retries=4)
        started = time.perf_counter()
        with pytest.raises(JobError, match="budget of 3.0"):
            endpoint.ask(HELLO)
        # The wait before the third attempt, and none after the money is spent.
        assert len(server.seen) == 2 and time.perf_counter() - started < 3


def test_mistakes_in_the_configuration_are_named() -> None:
    with pytest.raises(UserError, match="url='ftp://x'"):
        ChatEndpoint(EndpointConfig(url="ftp://x", model="m"))
    with pytest.raises(UserError, match="url='http://host:port/v1'"):
        ChatEndpoint(EndpointConfig(url="http://host:port/v1", model="m"))
    with pytest.raises(UserError, match="model is empty"):
        ChatEndpoint(EndpointConfig())


@pytest.mark.parametrize("key", ["first_wait_seconds", "max_wait_seconds"])
def test_the_waits_are_the_sdks_and_their_old_keys_name_what_is_left(key: str) -> None:
    with pytest.raises(UserError, match="'retries'"):
        load_config(EndpointConfig, overrides=[f"{key}=1.0"])


def test_without_the_sdk_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match=r"pip install 'voxmill\[endpoints\]'"):
        ChatEndpoint(EndpointConfig(model="m"))


@pytest.mark.parametrize("key", ["sec\nret", "secrét", "sec\x07ret"])
def test_a_key_that_cannot_be_sent_is_named_and_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(UserError, match="MY_KEY holds characters") as caught:
        ChatEndpoint(EndpointConfig(model="m", api_key_variable="MY_KEY"))
    assert "sec" not in str(caught.value)


def test_the_key_comes_from_the_named_variable_alone_and_never_into_a_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    monkeypatch.setenv("MY_KEY", "secret\n")
    with chat_server(lambda handler, number, body: handler.send("busy", 503)) as server:
        endpoint = client(server, api_key_variable="MY_KEY")
        with pytest.raises(NoAnswerError) as caught:
            endpoint.ask(HELLO)
        monkeypatch.setenv("MY_KEY", "")
        with pytest.raises(NoAnswerError):
            endpoint.ask(HELLO)
    assert server.seen[0]["headers"]["authorization"] == "Bearer secret"
    assert "authorization" not in server.seen[-1]["headers"]
    assert len(caplog.records) > 10 and "secret" not in caplog.text and "secret" not in str(caught.value)


def test_nothing_of_the_machine_or_its_environment_is_sent_along(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "private")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Mine: private")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with chat_server(lambda handler, number, body: handler.reply("good")) as server:
        assert client(server).ask(HELLO) == "good"
    headers = server.seen[0]["headers"]
    known = {"host", "content-type", "content-length", "accept", "accept-encoding", "connection", "user-agent"}
    assert set(headers) == known and "private" not in str(headers)


def test_proxies_are_honoured_but_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with (
        chat_server(lambda handler, number, body: handler.reply("from the proxy")) as proxy,
        chat_server(lambda handler, number, body: handler.reply("good")) as server,
    ):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_address[1]}")
        assert client(server).ask(HELLO) == "good" and proxy.seen == []
        config = EndpointConfig(url="http://model.invalid/v1", model="m")
        assert ChatEndpoint(config).ask(HELLO) == "from the proxy"
        assert proxy.seen[0]["path"] == "http://model.invalid/v1/chat/completions" and len(server.seen) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks://127.0.0.1:1080"),
        ("ALL_PROXY", "socks5://127.0.0.1:1080"),
        ("HTTPS_PROXY", "http://[::1"),
        ("SSL_CERT_FILE", "no-such-file.pem"),
    ],
)
def test_settings_of_the_environment_that_cannot_be_used_are_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=name) as caught:
        ChatEndpoint(EndpointConfig(model="m"))
    assert "\n" not in str(caught.value)
