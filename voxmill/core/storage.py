"""Where files lie: on this machine or in object storage, behind pathlib's interface.

`to_path` makes a `pathlib.Path` of a local path and a `upath.UPath` of a URI; both have the same methods, and
annotations say `Path` for either. What pathlib cannot say is here: ranged reads, a file that only one writer can make,
Arrow's view of the same storage. `voxmill.core.files` writes whole files or none to both. Credentials and endpoints
come from the environment, as the clouds' own tools read them (`AWS_*` with `AWS_ENDPOINT_URL` for other S3 servers,
`GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_*`, `HF_TOKEN`).
"""

import errno
import functools
import importlib.util
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from voxmill.core.errors import UserError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

# What speaks each protocol, and the extra of this package that installs it.
DRIVERS: dict[str, tuple[str, str]] = {
    "s3": ("s3fs", "s3"),
    "gs": ("gcsfs", "gs"),
    "abfs": ("adlfs", "azure"),
    "hf": ("huggingface_hub", ""),
}
SCHEMES = ("file", *DRIVERS)


def to_path(text: str | Path) -> Path:
    """A local path or a URI (`s3://`, `gs://`, `abfs://`, `hf://`, `file://`) as something with pathlib's methods.

    Raises:
        UserError: the scheme is unknown, its package is missing, or it names no bucket.
    """
    if not isinstance(text, str):
        return text
    if not names_remote(text):
        return Path(text.removeprefix("file://"))
    from upath import UPath

    import voxmill.core.uri_paths  # noqa: F401 (registers what `UPath` makes)

    # Another process changes what lies there: a cached listing would hide its files.
    return cast(Path, UPath(text.rstrip("/"), use_listings_cache=False))


def names_remote(text: str) -> bool:
    """Whether a text names something in object storage; a hundred times quicker than to make a path of it.

    Raises:
        UserError: as `to_path`.
    """
    if text.startswith("file:"):
        if not text.startswith("file:///"):
            raise UserError(f"{text}: a file URI names an absolute path, such as file:///data/out")
        return False
    scheme, separator, rest = text.partition("://")
    # "s3:/b" is what pathlib makes of "s3://b".
    if not separator and text.startswith(tuple(f"{known}:/" for known in SCHEMES)):
        raise UserError(f"{text}: a URI has two slashes after its scheme")
    if not separator:
        return False
    if scheme not in DRIVERS:
        raise UserError(f"{text}: unknown scheme {scheme!r}; a local path or one of {', '.join(SCHEMES)}")
    if not rest.strip("/"):
        raise UserError(f"{text}: names no bucket; such as {scheme}://bucket/folder")
    driver, extra = DRIVERS[scheme]
    if not _is_installed(driver):
        raise UserError(f"{text}: {driver} is missing; pip install 'voxmill[{extra}]'")
    return True


@functools.cache
def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def is_remote(path: Path) -> bool:
    """Whether a path is in object storage."""
    return not isinstance(path, pathlib.Path)


def absolute(path: Path) -> Path:
    """The same place for every process, whatever its current folder."""
    return path if is_remote(path) else path.resolve()


def uri(path: Path) -> str:
    """What a user may write to name it: `to_path` gives the same path again."""
    return str(path)


def read_whole(path: Path) -> bytes:
    """All of a small file that others may replace meanwhile; from object storage by one request.

    Raises:
        OSError: it cannot be read.
    """
    return cast(bytes, path.fs.cat_file(path.path)) if is_remote(path) else path.read_bytes()  # type: ignore[attr-defined]


def read_range(path: Path, offset: int, size: int) -> bytes:
    """`size` bytes from `offset`; fewer where the file ends before.

    Raises:
        OSError: it cannot be read.
    """
    if is_remote(path):
        return cast(bytes, path.fs.cat_file(path.path, start=offset, end=offset + size))  # type: ignore[attr-defined]
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def read_ranges(path: Path, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """The same for many (offset, size) of one file; from object storage at once."""
    if is_remote(path):
        starts, ends = [start for start, _ in spans], [start + size for start, size in spans]
        names = [path.path] * len(spans)  # type: ignore[attr-defined]
        return list(path.fs.cat_ranges(names, starts, ends, on_error="raise"))  # type: ignore[attr-defined]
    with open(path, "rb") as file:
        contents = []
        for offset, size in spans:
            file.seek(offset)
            contents.append(file.read(size))
        return contents


def stamp_of(entry: Mapping[str, Any]) -> str:
    """What changes when a file in object storage does, of its entry in a listing; "" where the store has nothing."""
    return str(entry.get("ETag") or entry.get("etag") or entry.get("md5Hash") or entry.get("mtime") or "")


NEAR_BYTES, TOGETHER_BYTES = 1 << 16, 1 << 23
"""Spans with no more than so many bytes between them are read as one, which is no longer than so many."""


def read_nearby(path: Path, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """The same, where near-by spans are one read; in the order that they were asked for."""
    reads: list[tuple[int, int]] = []
    inside: list[tuple[int, int]] = [(0, 0)] * len(spans)
    for number in sorted(range(len(spans)), key=spans.__getitem__):
        start, size = spans[number]
        if reads:
            first, length = reads[-1]
            whole = max(length, start + size - first)
            if start - (first + length) <= NEAR_BYTES and whole <= TOGETHER_BYTES:
                reads[-1] = (first, whole)
                inside[number] = (len(reads) - 1, start - first)
                continue
        reads.append((start, size))
        inside[number] = (len(reads) - 1, 0)
    contents = read_ranges(path, reads)
    return [contents[read][at : at + size] for (read, at), (_, size) in zip(inside, spans, strict=True)]


def upload(local: Path, path: Path) -> None:
    """Puts a local file into object storage, whole or not at all."""
    path.fs.put_file(str(local), path.path)  # type: ignore[attr-defined]


def create_exclusively(path: Path, content: bytes) -> bool:
    """Writes a file that must not exist yet; False where it does. Of many that try at once one succeeds.

    Raises:
        OSError: it cannot be written.
    """
    try:
        if is_remote(path):
            path.fs.pipe_file(path.path, content, mode="create")  # type: ignore[attr-defined]
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                os.write(handle, content)
                os.fsync(handle)
            finally:
                os.close(handle)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno == errno.EEXIST:
            return False
        raise
    return True


def file_names(folder: Path) -> set[str]:
    """Names of what lies in a folder, by one listing; none where the folder is not there."""
    try:
        if is_remote(folder):
            names: list[str] = folder.fs.ls(folder.path, detail=False, refresh=True)  # type: ignore[attr-defined]
            return {name.rstrip("/").rpartition("/")[2] for name in names}
        return {entry.name for entry in folder.iterdir()}
    except FileNotFoundError:
        return set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What a listing of object storage says of a name in a folder; `stamp` changes when the object does."""

    name: str
    is_folder: bool
    stamp: str


def list_folder(root: Path, folder: str = "") -> Iterator[Listed]:
    """What lies in a folder of object storage, in no order. Names hold a slash only where a folder's name is empty.

    Args:
        folder: below `root`, "" or ending in a slash.

    Raises:
        OSError: it cannot be listed.
    """
    filesystem: Any = root.fs  # type: ignore[attr-defined]
    start = f"{root.path}/{folder}"  # type: ignore[attr-defined]
    items: list[dict[str, Any]] = filesystem.ls(start.rstrip("/"), detail=True, refresh=True)
    if any(item["type"] == "directory" and len(item["name"]) <= len(start) for item in items):
        # A folder whose name is empty, as in `a//b`: only the flat listing tells what is in it.
        items = list(filesystem.find(start.rstrip("/"), detail=True, refresh=True).values())
    for item in items:
        name = item["name"][len(start) :]
        if name:
            stamp = stamp_of(item)
            yield Listed(name=name, is_folder=item["type"] == "directory", stamp=f"{item.get('size')}:{stamp}")


# What the user must mend, by the answer's code or the name of the client's error. Answers to HEAD have a status alone.
_ADVICE = {
    "access is denied; check the credentials, and their rights to list, read and write there": (
        *("AccessDenied", "AllAccessDisabled", "AccountProblem"),
        *("AuthorizationPermissionMismatch", "AuthorizationFailure"),
    ),
    "access is denied; check the credentials, whether they have expired, and their rights to list and write there": (
        "Forbidden",
        "403",
    ),
    "the credentials are wrong; check those in the environment, or the profile or role": (
        *("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"),
        *("AuthenticationFailed", "InvalidAuthenticationInfo", "ClientAuthenticationError", "401"),
    ),
    "the credentials have expired; renew them and run the same command again": (
        *("ExpiredToken", "TokenRefreshRequired", "TokenRetrievalError", "UnauthorizedSSOTokenError"),
    ),
    "there are no credentials; set those that the cloud's own tools take, such as AWS_ACCESS_KEY_ID": (
        *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"),
    ),
    "there is no such profile; check AWS_PROFILE": ("ProfileNotFound",),
    "this machine's clock is wrong; set it": ("RequestTimeTooSkewed",),
    "the bucket is in another region; name its own in AWS_DEFAULT_REGION": (
        *("AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect", "301"),
    ),
    "the request is refused, as with expired credentials or another region than the bucket's; check both": ("400",),
    "there is no such bucket; make it, or name another": ("NoSuchBucket", "InvalidBucketName", "ContainerNotFound"),
}
_MISTAKES = {name: advice for advice, names in _ADVICE.items() for name in names}
_NOT_THERE = frozenset(["404", "NoSuchKey", "BlobNotFound"])
_CLIENTS = frozenset(["botocore", "aiobotocore", "aiohttp", "azure", "gcsfs", "google", "huggingface_hub", "httpx"])


def storage_failure(error: BaseException) -> OSError | UserError | None:
    """What went wrong with object storage, in one line, where `error` or what caused it comes from one of its clients.

    They raise errors of their own, which are no OSError, for a lost endpoint, missing credentials or a wrong region. A
    UserError says what the user must mend; an OSError is the machine's or the service's failure.
    """
    seen: BaseException | None = error
    while seen is not None:
        package = type(seen).__module__.partition(".")[0]
        # What came of a file that is not there, and was expected, is an error of its own.
        if package in _CLIENTS and (isinstance(error, FileNotFoundError) or not _NOT_THERE & set(_names(seen))):
            endpoint = os.environ.get("AWS_ENDPOINT_URL")
            at = f" (AWS_ENDPOINT_URL is {endpoint})" if endpoint and "botocore" in package else ""
            place = _place(seen)
            mistake = next((_MISTAKES[name] for name in _names(seen) if name in _MISTAKES), None)
            if mistake is not None:
                return UserError(f"{place or 'object storage'}: {mistake}{at}")
            what = " ".join(str(seen).split()) or type(seen).__name__
            return OSError(f"object storage: {f'{place}: ' if place else ''}{what}{at}")
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return None


def as_failure(error: Exception) -> OSError | UserError:
    """What storage or this machine refused, where `error` is that.

    Raises:
        Exception: `error`, where it is about something else.
    """
    failure = storage_failure(error) or error
    if not isinstance(failure, OSError | UserError):
        raise error
    return failure


@contextmanager
def releasing(*, after_failure: bool) -> Iterator[None]:
    """Removes something at the end of a block: storage that failed the block fails here too, and was named by it."""
    try:
        yield
    except Exception as error:
        if not after_failure or storage_failure(error) is None:
            raise


def raise_unavailable(error: BaseException) -> None:
    """Raises what storage or this machine refused; returns where `error` means that the file is missing or damaged.

    Arrow raises OSError for damage too, but without a number.

    Raises:
        UserError, OSError: as `storage_failure`, or `error` itself.
    """
    if isinstance(error, FileNotFoundError):
        return
    failure = storage_failure(error)
    if failure is not None:
        raise failure from None
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _names(error: BaseException) -> list[str]:
    """What a client's error is called: the code of the answer, its status, the error's own class."""
    response: Any = getattr(error, "response", None)
    answer = response.get("Error", {}) if isinstance(response, dict) else {}
    codes = [answer.get("Code"), getattr(error, "error_code", None)]
    codes += [getattr(error, name, None) for name in ("status_code", "status", "code")]
    return [*(str(getattr(code, "value", code)) for code in codes if code is not None), type(error).__name__]


def _place(error: BaseException) -> str:
    """The object or bucket that a request was for; "" where nothing tells it.

    botocore's errors do not name it; the frame that raised them does, in this process.
    """
    trace = error.__traceback__
    while trace is not None:
        params = trace.tb_frame.f_locals.get("api_params")
        if isinstance(params, dict) and "Bucket" in params:
            return f"s3://{params['Bucket']}/{params.get('Key') or params.get('Prefix') or ''}"
        trace = trace.tb_next
    return ""


def arrow_filesystem(path: Path) -> "tuple[FileSystem, str]":
    """The file system and the name in it under which Arrow's readers and writers find a path."""
    from pyarrow import fs

    if is_remote(path):
        return fs.PyFileSystem(fs.FSSpecHandler(path.fs)), path.path  # type: ignore[attr-defined]
    return fs.LocalFileSystem(), str(path)


def scratch_folder() -> Path:
    """A folder on this machine's own disk for what is on its way: `$VOXMILL_SCRATCH`, or the system's temporary one."""
    folder = local_folder("VOXMILL_SCRATCH") or Path(tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def local_folder(variable: str) -> Path | None:
    """The folder on this machine that an environment variable names; None where it is unset or empty.

    Raises:
        UserError: it names one in object storage.
    """
    text = os.environ.get(variable)
    if not text:
        return None
    folder = to_path(text)
    if is_remote(folder):
        raise UserError(f"{variable}={text}: name a folder on this machine's own disk")
    return folder
