"""A folder on this machine for programs that append to files or keep a database, and its place in object storage.

What lies there is uploaded file by file when `push` is called: after a crash of the machine the folder in object
storage is as the last push left it.
"""

import fcntl
import shutil
import threading
from pathlib import Path
from typing import BinaryIO

from voxmill.core.errors import UserError
from voxmill.core.files import remove_folder
from voxmill.core.hashing import fingerprint
from voxmill.core.storage import is_remote, scratch_folder, upload, uri


class WorkingFolder:
    """`local` is `out` itself where that is on this machine, and otherwise a folder below the scratch folder.

    Args:
        out: a local path or one in object storage.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.is_remote = out, is_remote(out)
        self.local = out
        if self.is_remote:
            self.local = scratch_folder() / f"voxmill-work-{fingerprint(uri(out))[:24]}"
        self._pushed: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()
        self._claim: BinaryIO | None = None

    def fetch(self, *names: str) -> None:
        """Makes the local folder anew with these files of `out`, those that are there; all files where none is named.

        Raises:
            UserError: a name in object storage leaves the folder, or another process works with it.
            OSError: something cannot be read or written.
        """
        if not self.is_remote:
            return
        self.close()
        self._claim = open(self.local.with_name(f"{self.local.name}.lock"), "wb")  # noqa: SIM115 (until `close`)
        try:
            fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{self.out}: another process of this machine writes it; wait for it") from None
        remove_folder(self.local)
        self.local.mkdir(parents=True)
        filesystem, root = self.out.fs, self.out.path.rstrip("/")  # type: ignore[attr-defined]
        found = names or [place.removeprefix(f"{root}/") for place in filesystem.find(root, refresh=True)]
        for name in found:
            if ".." in name.split("/") or name.startswith("/"):
                raise UserError(f"{self.out}/{name}: leaves the folder; remove it")
            if names and not (self.out / name).is_file():
                continue
            (self.local / name).parent.mkdir(parents=True, exist_ok=True)
            filesystem.get_file(f"{root}/{name}", str(self.local / name))
            self._pushed[name] = self._stamp(name)

    def close(self) -> None:
        """Lets another process of this machine work with the folder."""
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def push(self) -> None:
        """Uploads what is new or was changed since the last time; from any thread.

        Raises:
            OSError: something cannot be uploaded.
        """
        if not self.is_remote:
            return
        with self._lock:
            paths = [path for path in sorted(self.local.rglob("*")) if path.is_file() and path.suffix != ".tmp"]
            for name in (path.relative_to(self.local).as_posix() for path in paths):
                stamp = self._stamp(name)
                if self._pushed.get(name) == stamp:
                    continue
                # A copy, since the file may grow while it is sent.
                copy = self.local / f".{name.replace('/', '-')}.tmp"
                shutil.copyfile(self.local / name, copy)
                upload(copy, self.out / name)
                copy.unlink()
                self._pushed[name] = stamp

    def _stamp(self, name: str) -> tuple[int, int]:
        state = (self.local / name).stat()
        return state.st_size, state.st_mtime_ns
