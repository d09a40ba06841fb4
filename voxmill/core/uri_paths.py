"""Paths in object storage that do not take a failure for a file that is not there.

The clients' own `isfile` and, of some, `exists` answer False to whatever goes wrong, such as a lost connection or
a missing right. A job would do again, or write over, what it could not see for a moment.
"""

from upath.implementations.cloud import AzurePath, GCSPath, HfPath, S3Path
from upath.registry import register_implementation


def _kind(path: S3Path | GCSPath | AzurePath | HfPath) -> str | None:
    """`file`, `directory`, or None where there is nothing.

    Raises:
        Exception: whatever the client raises where it cannot know.
    """
    try:
        return str(path.fs.info(path.path)["type"])
    except FileNotFoundError:
        return None


class _Strict:
    """Answers by one request for what a path is."""

    __slots__ = ()

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        return _kind(self) is not None  # type: ignore[arg-type]

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return _kind(self) == "file"  # type: ignore[arg-type]

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return _kind(self) == "directory"  # type: ignore[arg-type]


class StrictS3Path(_Strict, S3Path):
    """s3://"""

    __slots__ = ()


class StrictGCSPath(_Strict, GCSPath):
    """gs://"""

    __slots__ = ()


class StrictAzurePath(_Strict, AzurePath):
    """abfs://"""

    __slots__ = ()


class StrictHfPath(_Strict, HfPath):
    """hf://"""

    __slots__ = ()


# `UPath(uri)` asks the registry, here and where a path is unpickled in another process.
register_implementation("s3", StrictS3Path, clobber=True)
register_implementation("gs", StrictGCSPath, clobber=True)
register_implementation("abfs", StrictAzurePath, clobber=True)
register_implementation("hf", StrictHfPath, clobber=True)
