"""Any OpenAI-compatible chat endpoint (vLLM, Step-Audio, Qwen-Omni, Gemini's own), with all that goes wrong on a wire.

Requests keep to a rate, each has one deadline for the whole answer (a server that drips bytes cannot hold a worker),
a status that may pass is tried again with growing waits, and every request, token and cent is counted. An endpoint
that fails for `give_up_after` requests in a row is down: the job ends with one line instead of failing clip by clip.
"""

import contextlib
import http.client
import json
import os
import random
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from pydantic import Field

from voxmill.core.config import Config
from voxmill.core.errors import JobError, UserError

Message = dict[str, Any]
_MAX_BYTES = 4_000_000
_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


class EndpointConfig(Config):
    """Where and how often is asked. The key is read from the environment variable `api_key_variable`, never from here.

    `url` ends before `/chat/completions`. Prices are per million tokens, in whatever currency; 0 counts no cost.
    `max_cost` ends the job when it is reached.
    """

    url: str = "http://127.0.0.1:8000/v1"
    """Base URL of an OpenAI-compatible server, before `/chat/completions`."""
    model: str = ""
    """The server's name for the model."""
    api_key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key, which never stands in a recipe."""
    temperature: float = 0.7
    """Sampling temperature."""
    max_tokens: int = 800
    """Tokens of a reply at most."""
    json_mode: bool = True
    """Ask the server for replies in JSON."""
    timeout_seconds: float = Field(60.0, gt=0)
    """Seconds until a request without a reply counts as failed."""
    retries: int = Field(4, ge=0)
    """How often a failed request is sent again."""
    first_wait_seconds: float = Field(1.0, ge=0)
    """Seconds before the first retry; doubled for each further one."""
    max_wait_seconds: float = Field(60.0, ge=0)
    """Longest wait between two retries, in seconds."""
    requests_per_minute: float = Field(600.0, gt=0)
    """Requests a minute at most."""
    give_up_after: int = Field(5, ge=1)
    """After this many failed requests in a row no more are sent."""
    input_price: float = Field(0.0, ge=0)
    """Price of a million prompt tokens, in any currency; 0 counts no cost."""
    output_price: float = Field(0.0, ge=0)
    """Price of a million reply tokens, in the same currency; 0 counts no cost."""
    max_cost: float | None = None
    """The job ends when requests have cost this much; null for no limit."""


@dataclass
class Usage:
    """What a backend has done so far. `failures`: by kind, every attempt that brought no answer."""

    requests: int = 0
    retries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    failures: dict[str, int] = field(default_factory=dict)

    def failed(self, kind: str) -> None:
        self.failures[kind] = self.failures.get(kind, 0) + 1


class NoAnswerError(Exception):
    """This request got no answer after all its retries; others may. `kind` can be counted."""

    def __init__(self, kind: str, detail: str):
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


class AttemptError(Exception):
    """One attempt failed; only between a client and its base. `ends`: what that means: try again, this request is hopeless, or every request is."""

    def __init__(
        self, kind: str, detail: str, wait: float | None = None, ends: Literal["attempt", "request", "job"] = "attempt"
    ):
        super().__init__(detail)
        self.kind, self.wait, self.ends = kind, wait, ends


class ChatEndpoint:
    """Asks one endpoint; may be shared by threads.

    Raises:
        UserError: the URL is not http(s), or no model is named.
    """

    def __init__(
        self,
        config: EndpointConfig,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        if not config.url.startswith(("http://", "https://")):
            raise UserError(f"descriptions.endpoint.url={config.url!r}: write an address such as http://host:8000/v1")
        if not config.model:
            raise UserError("descriptions.endpoint.model is empty; name the model that the endpoint serves")
        self.config, self.usage = config, Usage()
        self.name = f"{config.model} at {config.url}"
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._next_slot = 0.0
        self._failed_in_row = 0
        # Environment proxies are honoured; redirects are not, because they would carry the key elsewhere.
        self._opener = urllib.request.build_opener(_NoRedirect, _Http, _Https)

    @property
    def identity(self) -> dict[str, Any]:
        """What an answer depends on besides the prompt; a part of the cache's key."""
        keys = ("model", "temperature", "max_tokens", "json_mode")
        return {key: getattr(self.config, key) for key in keys}

    def ask(self, messages: Sequence[Message], seed: int = 0) -> str:
        """The assistant's text; another `seed` asks for another answer, where the endpoint knows seeds.

        Raises:
            NoAnswerError: every attempt of this request failed.
            JobError: the endpoint refuses the key or the model, is down, or the budget is spent.
        """
        attempts = self.config.retries + 1
        for attempt in range(attempts):
            self._check_budget()
            self._wait_for_slot()
            started = self._clock()
            try:
                answer = self._once(messages, seed)
            except AttemptError as error:
                with self._lock:
                    self.usage.seconds += self._clock() - started
                    self.usage.failed(error.kind)
                if error.ends == "job":
                    raise JobError(f"{self.name} {error}") from None
                if attempt + 1 == attempts or error.ends == "request":
                    self._one_more_failure(error)
                    raise NoAnswerError(error.kind, str(error)) from None
                with self._lock:
                    self.usage.retries += 1
                self._sleep(self._backoff(attempt, error.wait))
                continue
            with self._lock:
                self.usage.seconds += self._clock() - started
                self._failed_in_row = 0
            return answer
        raise AssertionError("unreachable")

    def _check_budget(self) -> None:
        if self.config.max_cost is not None and self.usage.cost >= self.config.max_cost:
            raise JobError(
                f"{self.name}: the budget of {self.config.max_cost} is spent ({self.usage.requests} requests); "
                "raise descriptions.endpoint.max_cost and start again, nothing is asked twice"
            )

    def _wait_for_slot(self) -> None:
        with self._lock:
            now = self._clock()
            slot = max(now, self._next_slot)
            self._next_slot = slot + 60.0 / self.config.requests_per_minute
            self.usage.requests += 1
        if slot > now:
            self._sleep(slot - now)

    def _backoff(self, attempt: int, asked: float | None) -> float:
        if asked is not None:
            return min(asked, self.config.max_wait_seconds)
        # Full jitter: workers that failed together do not come back together.
        return random.uniform(0.5, 1.0) * min(self.config.first_wait_seconds * 2**attempt, self.config.max_wait_seconds)

    def _one_more_failure(self, error: AttemptError) -> None:
        with self._lock:
            self._failed_in_row += 1
            is_down = self._failed_in_row >= self.config.give_up_after
        if is_down:
            raise JobError(
                f"{self.name} has failed {self.config.give_up_after} requests in a row ({error.kind}: {error}); "
                "mend it and start again, nothing is asked twice"
            )

    def _once(self, messages: Sequence[Message], seed: int) -> str:
        body: dict[str, Any] = {
            "model": self.config.model,
            "messages": list(messages),
            "temperature": self.config.temperature,
            "max_tokens": self.config.max_tokens,
            "seed": seed,
        }
        if self.config.json_mode:
            body["response_format"] = {"type": "json_object"}
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        key = os.environ.get(self.config.api_key_variable, "")
        if key:
            headers["Authorization"] = f"Bearer {key}"
        url = self.config.url.rstrip("/") + "/chat/completions"
        return self._read(self._send(url, json.dumps(body).encode(), headers))

    def _send(self, url: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        request = _Request(url, body, dict(headers), method="POST")
        # The socket's own timeout is for one read; the watch is the deadline of headers and all reads together.
        watch = threading.Timer(self.config.timeout_seconds, request.abandon)
        watch.daemon = True
        watch.start()
        try:
            with self._opener.open(request, timeout=self.config.timeout_seconds) as response:
                data: bytes = response.read(_MAX_BYTES + 1)
        except urllib.error.HTTPError as error:
            raise self._status(error) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            if request.abandoned or isinstance(reason, TimeoutError):
                raise AttemptError("timeout", f"no whole answer in {self.config.timeout_seconds} s") from None
            raise AttemptError("connection", f"{type(reason).__name__}: {reason}") from None
        finally:
            watch.cancel()
        # A connection that is shut reads as one that ended.
        if request.abandoned:
            raise AttemptError("timeout", f"no whole answer in {self.config.timeout_seconds} s")
        if len(data) > _MAX_BYTES:
            raise AttemptError("too_long", f"answered more than {_MAX_BYTES} bytes")
        return data

    def _status(self, error: urllib.error.HTTPError) -> AttemptError:
        detail = f"answered {error.code} {error.reason}"
        if error.code in (401, 403):
            return AttemptError("refused", f"{detail}; set {self.config.api_key_variable} to a valid key", ends="job")
        if error.code == 404:
            return AttemptError("not_found", f"{detail}; check the url and the model's name", ends="job")
        if error.code in _RETRIED:
            return AttemptError(f"http_{error.code}", detail, wait=_retry_after(error.headers.get("Retry-After")))
        # 400 and the like are this request's own fault: repeating it changes nothing, the next may be fine.
        return AttemptError(f"http_{error.code}", detail, ends="request")

    def _read(self, raw: bytes) -> str:
        try:
            reply = json.loads(raw)
            text = reply["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            kind = "html" if raw.lstrip()[:1] == b"<" else "not_a_chat_reply"
            raise AttemptError(kind, f"answered {raw[:60]!r}") from None
        usage = reply.get("usage")
        tokens = usage if isinstance(usage, dict) else {}
        self._count_tokens(tokens.get("prompt_tokens"), tokens.get("completion_tokens"))
        if not isinstance(text, str):
            raise AttemptError("no_text", "answered without a text")
        return text

    def _count_tokens(self, prompt: Any, completion: Any) -> None:
        """Adds an answer's tokens, as the endpoint counts them, and what they cost."""
        read, written = _count(prompt), _count(completion)
        with self._lock:
            self.usage.input_tokens += read
            self.usage.output_tokens += written
            self.usage.cost += (read * self.config.input_price + written * self.config.output_price) / 1e6


class _Request(urllib.request.Request):
    """A request whose connection another thread can end."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.abandoned = False
        self._sockets: list[socket.socket] = []

    def abandon(self) -> None:
        self.abandoned = True
        for opened in self._sockets:
            # Closed already: then the answer has come in this very moment.
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)

    def watched(self, kind: Callable[..., http.client.HTTPConnection]) -> Callable[..., http.client.HTTPConnection]:
        """`kind` as a factory whose connections tell this request their socket."""

        def make(*args: Any, **kwargs: Any) -> http.client.HTTPConnection:
            connection = kind(*args, **kwargs)
            connect = connection.connect

            def connect_and_tell() -> None:
                connect()
                self._sockets.append(connection.sock)

            connection.connect = connect_and_tell  # type: ignore[method-assign]
            return connection

        return make


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        assert isinstance(req, _Request)
        return self.do_open(req.watched(http.client.HTTPConnection), req)  # type: ignore[arg-type]


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        assert isinstance(req, _Request)
        return self.do_open(req.watched(http.client.HTTPSConnection), req)  # type: ignore[arg-type]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date; None where it is neither."""
    if not value:
        return None
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None
