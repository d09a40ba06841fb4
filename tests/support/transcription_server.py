"""A real HTTP server on loopback that answers `/audio/transcriptions` as a test wants, well or badly."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as it came: path, headers (names in lower case), form fields by name, and the file's bytes."""

    path: str
    headers: dict[str, str]
    fields: dict[str, list[str]]
    audio: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is sent back; a body that is no text is sent as JSON."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


# What to answer to the n-th request, from 0.
Rule = Callable[[int, Request], Answer]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers["content-length"]))
        form = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {headers['content-type']}\r\n\r\n".encode() + body)
        fields: dict[str, list[str]] = {}
        audio = b""
        for part in form.iter_parts():
            name, content = str(part.get_param("name", header="content-disposition")), part.get_payload(decode=True)
            assert isinstance(content, bytes)
            if name == "file":
                audio = content
            else:
                fields.setdefault(name, []).append(content.decode())
        request = Request(path=self.path, headers=headers, fields=fields, audio=audio)
        with server.lock:
            number = len(server.seen)
            server.seen.append(request)
            server.open_now += 1
            server.most_open = max(server.most_open, server.open_now)
        time.sleep(server.seconds)
        answer = server.rule(number, request)
        data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        with server.lock:
            server.open_now -= 1
        self.send_response(answer.status)
        for header, value in answer.headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Tests are silent."""


class Server(ThreadingHTTPServer):
    """`seen` holds every request, `most_open` how many there were at once at most."""

    daemon_threads = True

    def __init__(self, rule: Rule, seconds: float):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.rule, self.seconds = rule, seconds
        self.lock = threading.Lock()
        self.seen: list[Request] = []
        self.open_now = self.most_open = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


@contextmanager
def transcription_server(rule: Rule, seconds: float = 0.0) -> Iterator[Server]:
    """Runs while the block does; every answer takes `seconds`."""
    server = Server(rule, seconds)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
