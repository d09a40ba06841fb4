"""What both SDKs do on the network: they talk to the endpoint that the configuration names, and to nothing else."""

import subprocess
import sys

import pytest

from tests.support.chat_server import Handler, chat_server
from voxmill.core.http import is_address

# Prints every name that is looked up and every address that is connected to.
PROGRAM = """
import sys

def watch(event, args):
    if event in ("socket.getaddrinfo", "socket.connect", "socket.sendto"):
        print(event, args[1] if event == "socket.connect" else args[0], flush=True)

sys.addaudithook(watch)
from voxmill.llm.chat_endpoint import ChatEndpoint, EndpointConfig, user_message
from voxmill.llm.gemini_endpoint import GeminiEndpoint

kind = {"openai": ChatEndpoint, "gemini": GeminiEndpoint}[sys.argv[1]]
endpoint = kind(EndpointConfig(url=sys.argv[2], model="m", retries=1))
print("answer", endpoint.ask([user_message("hello", b"RIFF")]))
"""


@pytest.mark.parametrize("kind", ["openai", "gemini"])
def test_an_sdk_connects_to_the_endpoint_and_to_nothing_else(kind: str) -> None:
    def answer(handler: Handler, number: int, body: dict[str, object]) -> None:
        if number == 0:
            handler.send("busy", 503)
        elif kind == "openai":
            handler.reply("good")
        else:
            handler.generated("good")

    with chat_server(answer) as server:
        command = [sys.executable, "-c", PROGRAM, kind, server.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        host, port = str(server.server_address[0]), server.server_address[1]
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "answer good" and len(server.seen) == 2
    assert set(lines[:-1]) == {f"socket.getaddrinfo {host}", f"socket.connect {(host, port)}"}


@pytest.mark.parametrize(
    ("url", "is_one"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("https://host", True),
        ("http://[::1]:80/v1", True),
        ("ftp://host/v1", False),
        ("host:8000/v1", False),
        ("http://", False),
        ("http:///v1", False),
        ("http://host:port/v1", False),
        ("http://host:99999/v1", False),
        ("http://[::1/v1", False),
        ("", False),
    ],
)
def test_addresses(url: str, is_one: bool) -> None:
    assert is_address(url) is is_one
