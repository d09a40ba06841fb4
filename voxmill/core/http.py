"""What the SDKs of chat and speech endpoints leave to us: pace, one deadline, counts, budget and error line.

`openai` and `google-genai` bring the protocol, the typed requests and the retries with growing waits. Both send through
an `httpx.Client`; `EndpointMeter` gives them one that looks at every attempt. Its headers are only those that a request
needs: the key is read from the environment and set here, so that no SDK ever holds it, and nothing about the machine
or from other environment variables is sent along. Redirects are not followed, because they would carry the key to
another host. The environment's proxies are honoured, but never for this machine's own addresses.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NoReturn, Protocol, TypeVar
from urllib.parse import urlsplit

from voxmill.core.errors import JobError, UserError

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
RETRIED_STATUSES = (408, 409, 429, *range(500, 600))
"""Answers that may pass, as the `openai` SDK counts them."""
LONGEST_RETRY_AFTER = 120.0
"""Seconds; a server that asks for a longer wait has failed this request."""
UNSENT_KEY = "unsent"
"""What SDKs that insist on a key are given; the true one is set on the request, where there is one."""
_KEPT_HEADERS = frozenset(
    {"host", "content-type", "content-length", "accept", "accept-encoding", "connection", "user-agent"}
)


@dataclass
class Usage:
    """What was asked of an endpoint so far. `failures`: by kind, every attempt that brought no answer.

    `requests` and `retries` count attempts; `seconds` is their time, waits left out; `cost` is in the prices' currency.
    """

    requests: int = 0
    retries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    failures: dict[str, int] = field(default_factory=dict)


class NoAnswerError(Exception):
    """This request got no answer after all its attempts; others may. `kind` can be counted."""

    def __init__(self, kind: str, detail: str):
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail = kind, detail


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt brought no answer. `kind` can be counted; `ends`: only this attempt, the request, or the job."""

    kind: str
    detail: str
    ends: Literal["attempt", "request", "job"] = "attempt"


class AnswerCheck(Protocol):
    """Looks at a whole answer with a status of 2xx: None if it can be used."""

    def __call__(self, body: bytes) -> Failure | None: ...


class EndpointMeter:
    """Sends the requests of an SDK to one server; may be shared by threads.

    Args:
        name: how error lines name the endpoint.
        check: why a whole answer cannot be used, or None; it may count tokens by `add_tokens`.
        key_variable: environment variable of the key; nothing is sent where it is unset or empty.
        key_header: name of the header and what stands before the key.
        timeout_seconds: from the start of an attempt to the last byte of its answer.
        give_up_after: requests in a row without an answer that end the job.
        max_bytes: of one answer, after decompression.
        requests_per_minute: None: as fast as they come.
        max_cost: ends the job before the next attempt.

    Raises:
        UserError: a proxy or certificate that the environment names, or the key, cannot be used.
    """

    def __init__(
        self,
        name: str,
        *,
        check: AnswerCheck,
        key_variable: str,
        key_header: tuple[str, str] = ("Authorization", "Bearer "),
        timeout_seconds: float,
        give_up_after: int,
        max_bytes: int,
        requests_per_minute: float | None = None,
        max_cost: float | None = None,
    ):
        self.name, self.usage = name, Usage()
        self._check, self.key_variable, self._key_header = check, key_variable, key_header
        self._timeout_seconds, self._give_up_after, self._max_bytes = timeout_seconds, give_up_after, max_bytes
        self._pause = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._max_cost = max_cost
        self._lock = threading.Lock()
        self._next_slot = 0.0
        self._failed_in_row = 0
        # SDKs send in the thread that asks, so that an attempt finds its request here.
        self._thread = threading.local()
        self._key()
        self.client = self._make_client()

    def ask(self, request: Callable[[], T], sdk_errors: tuple[type[Exception], ...]) -> T:
        """The result of `request`, which sends through `client` as often as its SDK likes.

        Args:
            sdk_errors: what the SDK raises where its attempts failed.

        Raises:
            NoAnswerError: no attempt brought an answer.
            JobError: the endpoint refuses the key or the model, is down, or the budget is spent.
        """
        attempts = _Attempts()
        self._thread.attempts = attempts
        try:
            answer = request()
        except _StoppedError:
            pass
        except sdk_errors as error:
            if attempts.failure is None:
                # The answer passed the check and the SDK cannot read it all the same.
                attempts.failure = Failure("unreadable", " ".join(str(error).split())[:200])
                self._count_failure(attempts.failure)
        else:
            with self._lock:
                self._failed_in_row = 0
            return answer
        assert attempts.failure is not None
        self._end(attempts.failure)

    def add_tokens(self, read: object, written: object, input_price: float, output_price: float) -> None:
        """Adds an answer's tokens as the endpoint counts them (no number: none); prices are per million tokens."""
        num_read, num_written = _count(read), _count(written)
        with self._lock:
            self.usage.input_tokens += num_read
            self.usage.output_tokens += num_written
            self.usage.cost += (num_read * input_price + num_written * output_price) / 1e6

    def _end(self, failure: Failure) -> NoReturn:
        if failure.ends == "job":
            raise JobError(f"{self.name} {failure.detail}") from None
        with self._lock:
            self._failed_in_row += 1
            is_down = self._failed_in_row >= self._give_up_after
        if is_down:
            raise JobError(
                f"{self.name} has failed {self._give_up_after} requests in a row ({failure.kind}: {failure.detail}); "
                "check the server and run the same command again, no answer is paid for twice"
            ) from None
        raise NoAnswerError(failure.kind, failure.detail) from None

    def _key(self) -> str:
        key = os.environ.get(self.key_variable, "").strip()
        if not (key.isascii() and key.isprintable()):
            # Sent as it is, it would be quoted in the error of the HTTP library.
            raise UserError(f"{self.key_variable} holds characters that no key has; set it to the key alone")
        return key

    def _make_client(self) -> httpx.Client:
        import httpx

        meter = self

        class MeteredClient(httpx.Client):
            def send(self, request: httpx.Request, **options: object) -> httpx.Response:
                def transmit(prepared: httpx.Request) -> httpx.Response:
                    return super(MeteredClient, self).send(prepared, stream=True, follow_redirects=False)

                return meter._attempt(request, transmit)

        try:
            return MeteredClient(
                # One connection for each attempt, so that a deadline may shut it.
                limits=httpx.Limits(max_keepalive_connections=0, max_connections=None),
                # This machine's own addresses, reached without a proxy.
                mounts={f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")},
            )
        except (ValueError, ImportError, OSError, httpx.InvalidURL) as error:
            raise UserError(
                f"the proxy or certificate settings of the environment cannot be used ({error}); correct or unset "
                "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"
            ) from None

    def _attempt(self, request: httpx.Request, transmit: Callable[[httpx.Request], httpx.Response]) -> httpx.Response:
        """One attempt of the request of this thread: its answer, or what makes the SDK try again, or stop.

        Raises:
            _StoppedError: trying again would be of no use.
            httpx.ConnectError: it may be; the one error after which both SDKs try again.
        """
        import httpx

        attempts: _Attempts = self._thread.attempts
        if self._max_cost is not None and self.usage.cost >= self._max_cost:
            attempts.failure = Failure(
                "budget",
                f"has spent the budget of {self._max_cost} ({self.usage.requests} requests); "
                "raise endpoint.max_cost and run the same command again, no answer is paid for twice",
                ends="job",
            )
            raise _StoppedError
        self._wait_for_turn(attempts)
        attempts.failure = None
        started = time.monotonic()
        outcome = self._exchange(request, transmit)
        with self._lock:
            self.usage.seconds += time.monotonic() - started
        response, body = outcome if not isinstance(outcome, Failure) else (None, b"")
        failure = outcome if isinstance(outcome, Failure) else None
        if response is not None:
            failure = self._check(body) if response.is_success else self.failure_of_status(response, body)
            wait = _retry_after(response)
            if failure is not None and failure.ends == "attempt" and wait is not None:
                # `openai` waits as long by itself; `google-genai` does not know this header.
                attempts.not_before = time.monotonic() + wait
                if wait > LONGEST_RETRY_AFTER:
                    failure = Failure(failure.kind, f"{failure.detail}, to be asked again in {wait:.0f} s", "request")
        if failure is not None:
            attempts.failure = failure
            self._count_failure(failure)
            if failure.ends != "attempt":
                raise _StoppedError
            if response is None or response.is_success:
                raise httpx.ConnectError(failure.detail)
        assert response is not None
        # Decoded already; and SDKs go by the type, which servers forget or get wrong.
        plain = {"content-type": response.headers.get("content-type", "") if failure else "application/json"}
        for name in ("retry-after", "retry-after-ms", "x-should-retry"):
            if name in response.headers:
                plain[name] = response.headers[name]
        return httpx.Response(response.status_code, headers=plain, content=body, request=request)

    def failure_of_status(self, response: httpx.Response, body: bytes) -> Failure:
        """What a status other than 2xx means."""
        detail = f"answered {response.status_code} {response.reason_phrase}".rstrip()
        if response.status_code in (401, 403):
            return Failure("refused", f"{detail}; set {self.key_variable} to a valid key", ends="job")
        if response.status_code == 404:
            return Failure("not_found", f"{detail}; check the url and the model's name", ends="job")
        # 400 and the like are this request's own fault: repeating it changes nothing, the next may be fine.
        ends: Literal["attempt", "request"] = "attempt" if response.status_code in RETRIED_STATUSES else "request"
        return Failure(f"http_{response.status_code}", detail, ends)

    def _exchange(
        self, request: httpx.Request, transmit: Callable[[httpx.Request], httpx.Response]
    ) -> tuple[httpx.Response, bytes] | Failure:
        """The closed response and its whole body, or why there is none."""
        import httpx

        kept = {name: value for name, value in request.headers.items() if name.lower() in _KEPT_HEADERS}
        key = self._key()
        if key:
            name, prefix = self._key_header
            kept[name] = prefix + key
        request.headers = httpx.Headers(kept)
        deadline = _Deadline(self._timeout_seconds)
        timeout = httpx.Timeout(self._timeout_seconds).as_dict()
        request.extensions = {**request.extensions, "timeout": timeout, "trace": deadline.trace}
        late = Failure("timeout", f"gave no whole answer in {self._timeout_seconds} s")
        body = bytearray()
        try:
            with deadline, contextlib.closing(transmit(request)) as response:
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > self._max_bytes:
                        return Failure("too_long", f"answered more than {self._max_bytes} bytes")
        except (httpx.HTTPError, OSError) as error:
            if deadline.passed or isinstance(error, httpx.TimeoutException):
                return late
            return Failure("connection", f"cannot be reached ({type(error).__name__}: {str(error)[:120]})")
        # A connection that is shut reads as one that ended.
        return late if deadline.passed else (response, bytes(body))

    def _wait_for_turn(self, attempts: _Attempts) -> None:
        with self._lock:
            now = time.monotonic()
            slot = max(now, self._next_slot)
            self._next_slot = slot + self._pause
            self.usage.requests += 1
            self.usage.retries += attempts.number > 0
        attempts.number += 1
        time.sleep(max(slot, attempts.not_before) - now)

    def _count_failure(self, failure: Failure) -> None:
        with self._lock:
            self.usage.failures[failure.kind] = self.usage.failures.get(failure.kind, 0) + 1


@dataclass
class _Attempts:
    """The attempts of one request. `failure`: of the last one; `not_before`: when the server wants the next."""

    number: int = 0
    failure: Failure | None = None
    not_before: float = 0.0


class _StoppedError(BaseException):
    """Ends an SDK's attempts. Not an `Exception`, because after those the `openai` SDK tries again."""


class _Deadline:
    """Shuts the connections of one attempt when its time is over: a client's own timeout is for a single read."""

    def __init__(self, seconds: float):
        self.passed = False
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._shut)
        self._timer.daemon = True

    def trace(self, event: str, info: dict[str, _NetworkStream]) -> None:
        """httpcore's trace extension: notes every socket that is opened."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._sockets.append(info["return_value"].get_extra_info("socket"))
            if self.passed:
                self._shut()

    def _shut(self) -> None:
        self.passed = True
        for opened in self._sockets:
            # Closed already: the answer came in this very moment.
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()


class _NetworkStream(Protocol):
    def get_extra_info(self, info: str) -> socket.socket: ...


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date; None where it is neither."""
    value = response.headers.get("retry-after", "")
    try:
        seconds = float(value)
        return None if math.isnan(seconds) else max(seconds, 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def missing_sdk(name: str) -> UserError:
    """What to raise where the SDK of an endpoint cannot be imported."""
    return UserError(f"{name} is not installed; run: pip install 'voxmill[endpoints]'")


def unreadable(body: bytes, kind: str) -> Failure:
    """The failure of an answer that is not of its protocol: `html`, or `kind`."""
    return Failure("html" if body.lstrip()[:1] == b"<" else kind, f"answered {body[:60]!r}")


def is_address(url: str) -> bool:
    """Whether `url` is an http(s) address with a host and, if any, a port that is a number."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
