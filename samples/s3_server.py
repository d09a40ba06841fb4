"""A real S3 server on loopback for tests and benchmarks, and the environment that names it."""

import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from voxmill.core.errors import JobError
from voxmill.core.local_ray import free_port

BUCKET = "voxmill-test"


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Starts it with an empty bucket `BUCKET`; yields the environment for clients, and sets it in this process."""
    import s3fs

    port = free_port()
    environment = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = {name: os.environ.get(name) for name in environment}
    try:
        _wait(server, f"{environment['AWS_ENDPOINT_URL']}/moto-api/")
        os.environ.update(environment)
        # Clients of another server, of an earlier test, are kept in a cache of the library.
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir(BUCKET)
        yield environment
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        s3fs.S3FileSystem.clear_instance_cache()
        server.terminate()
        server.wait()


def _wait(server: subprocess.Popen[bytes], address: str) -> None:
    for _ in range(150):
        if server.poll() is not None:
            break
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(address, timeout=2).close()
            return
        time.sleep(0.2)
    raise JobError("the S3 server did not start")
