"""A real Azure storage server (Azurite, `npm install -g azurite`) on loopback, and the environment that names it."""

import importlib.util
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest

from voxmill.core.errors import JobError
from voxmill.core.local_ray import free_port

CONTAINER = "voxmill-test"
# The account that every Azurite has.
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextmanager
def azure_server(folder: Path) -> Iterator[None]:
    """Starts it with an empty container `CONTAINER`, or skips the test where it or adlfs is not installed."""
    program = shutil.which("azurite-blob")
    if program is None or importlib.util.find_spec("adlfs") is None:
        pytest.skip("needs Azurite and adlfs: npm install -g azurite; pip install voxmill[azure]")
    port = free_port()
    command = [program, "--blobPort", str(port), "--location", str(folder), "--silent", "--skipApiVersionCheck"]
    command += ["--disableTelemetry"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    account = f"AccountName=devstoreaccount1;AccountKey={_KEY};BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"DefaultEndpointsProtocol=http;{account}")
        try:
            _wait(port)
            fsspec.filesystem("abfs", connection_string=os.environ["AZURE_STORAGE_CONNECTION_STRING"]).mkdir(CONTAINER)
            yield
        finally:
            server.terminate()
            server.wait()


def _wait(port: int) -> None:
    for _ in range(150):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise JobError("Azurite did not start")
