"""A real HTTP server on loopback that answers chat requests as a test wants, well or badly."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# What to answer to the n-th request (from 0) with this body.
Answer = Callable[["Handler", int, dict[str, Any]], None]


class Handler(BaseHTTPRequestHandler):
    """Gives every POST to the server's `answer`."""

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        with server.lock:
            number = len(server.seen)
            server.seen.append({"path": self.path, "headers": headers, "body": body})
        try:
            server.answer(self, number, body)
        except (BrokenPipeError, ConnectionResetError):
            # The client gave up, which is what some tests are about.
            self.close_connection = True

    def send(self, content: str | bytes, status: int = 200, **headers: str) -> None:
        """A whole response."""
        data = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def reply(self, text: Any, prompt_tokens: int = 100, completion_tokens: int = 20) -> None:
        """A chat completion."""
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        message = {"role": "assistant", "content": text}
        self.send(json.dumps({"choices": [{"message": message}], "usage": usage}), Content_Type="application/json")

    def generated(self, text: str, **more: Any) -> None:
        """Gemini's answer to `generateContent`."""
        candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP", "index": 0}
        usage = {"promptTokenCount": 100, "candidatesTokenCount": 20, "totalTokenCount": 120}
        answer = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "ear", **more}
        self.send(json.dumps(answer), Content_Type="application/json; charset=UTF-8")

    def log_message(self, format: str, *args: Any) -> None:
        """Tests are silent."""


class Server(ThreadingHTTPServer):
    """`seen` holds every request's path, headers (names in lower case) and body."""

    daemon_threads = True

    def __init__(self, answer: Answer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.lock = threading.Lock()
        self.seen: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


@contextmanager
def chat_server(answer: Answer) -> Iterator[Server]:
    """Runs while the block does."""
    server = Server(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
