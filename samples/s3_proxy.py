"""A proxy before an S3 server that answers for it, or holds an upload back, where a test or benchmark asks for that."""

import contextlib
import http.client
import os
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a client gets. `is_stored`: whether the server gets the request first."""

    status: int
    body: bytes = b""
    is_stored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a client asks for. key: percent-decoded, with its bucket. port: the client's, which tells its process."""

    method: str
    key: str
    query: str
    port: int

    @property
    def is_upload(self) -> bool:
        """Whether it carries an object or a part of one."""
        return self.method == "PUT" and "/" in self.key

    def process(self) -> psutil.Process | None:
        """The process of this machine that asks; None where it is gone."""
        for connection in psutil.net_connections(kind="tcp"):
            if connection.laddr and connection.laddr.port == self.port and connection.pid not in (None, os.getpid()):
                with contextlib.suppress(psutil.NoSuchProcess):
                    return psutil.Process(connection.pid)
        return None


CUT = Answer(status=0)
"""The connection ends without an answer; the server never sees the request."""
UNANSWERED = Answer(status=0, is_stored=True)
"""The server does what it was asked for; the client never hears of it."""

Fault = Callable[[Request], Answer | None]
"""Called from many threads when the head of a request and half of its body have come; None: the server answers."""


def error_answer(status: int, code: str, message: str = "as asked by the test") -> Answer:
    """An error as S3 tells it."""
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Answer(status=status, body=body.encode())


@contextmanager
def s3_proxy(fault: Fault) -> Iterator[str]:
    """Starts it before the server that `AWS_ENDPOINT_URL` names; yields its own URL, and sets that variable to it."""
    import s3fs

    server_url = os.environ["AWS_ENDPOINT_URL"]
    target = urllib.parse.urlsplit(server_url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            # A client that was killed.
            with contextlib.suppress(ConnectionError):
                super().handle()

        def _relay(self) -> None:
            place = urllib.parse.urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length // 2)
            key = urllib.parse.unquote(place.path.lstrip("/"))
            request = Request(method=self.command, key=key, query=place.query, port=self.client_address[1])
            answer = fault(request)
            if answer == CUT:
                self.close_connection = True
                return
            body += self.rfile.read(length - len(body))
            if len(body) < length:
                self.close_connection = True
                return
            if answer is None or answer.is_stored:
                upstream = http.client.HTTPConnection(target.hostname or "", target.port, timeout=300)
                sent = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
                upstream.request(self.command, self.path, body, sent)
                response = upstream.getresponse()
                content = response.read()
                headers = response.getheaders()
                upstream.close()
                if answer is None:
                    self._answer(response.status, content, headers)
                    return
            if answer.status:
                self._answer(answer.status, answer.body, [("Content-Type", "application/xml")])
            else:
                self.close_connection = True

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _relay

        def _answer(self, status: int, content: bytes, headers: list[tuple[str, str]]) -> None:
            self.send_response_only(status)
            dropped = {"transfer-encoding", "connection", "content-length"}
            sizes = [value for name, value in headers if name.lower() == "content-length"]
            for name, value in headers:
                if name.lower() not in dropped:
                    self.send_header(name, value)
            self.send_header("Content-Length", sizes[0] if self.command == "HEAD" and sizes else str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    proxy = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{proxy.server_address[1]}"
    os.environ["AWS_ENDPOINT_URL"] = url
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        yield url
    finally:
        os.environ["AWS_ENDPOINT_URL"] = server_url
        s3fs.S3FileSystem.clear_instance_cache()
        proxy.shutdown()
        proxy.server_close()
        thread.join()
