"""A work folder below OUT belongs to one configuration or latent space and, while a job runs, to that job."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pipelines.units.store import FORMAT, OLD_FORMAT
from voxmill.core.config import Config, differences
from voxmill.core.errors import UserError
from voxmill.core.files import write_atomically
from voxmill.core.machine.lease import Lease, live_holder
from voxmill.core.storage import file_names, storage_failure

LEASE = "lease.json"
_SHARE_LEASE = re.compile(r"lease-\d+-of-\d+\.json")
C = TypeVar("C", bound=Config)
# Marks of older versions, by part.
_OLD_MARKS = {"": "label.json", "latents": "space"}


class Workspace:
    """`OUT/work`, or a folder in it with a lock and an identity of its own.

    Args:
        out: the folder that the user names.
        part: a folder below `work`; "" for `work` itself, beside which OUT may hold nothing at first.
    """

    def __init__(self, out: Path, part: str = ""):
        self.out, self.part = out, part
        self.folder = out / "work" / part
        self._mark = self.folder / "identity"

    @contextmanager
    def claim(
        self,
        identity: C | Callable[[], C],
        *,
        another: str = "was made with another configuration",
        advice: str = "name a new OUT",
        replace: Callable[[], None] | None = None,
        lease: str = LEASE,
    ) -> Iterator[C]:
        """Holds the folder for this job, by a lease; gives the identity.

        Args:
            identity: what the results depend on, or what tells it once the folder is held.
            another, advice: parts of the error about results of another identity.
            replace: called in place of that error, before the new identity is written.
            lease: name of its file; jobs that divide the work have leases of their own.

        Raises:
            JobError: the lease went to another job.
            UserError: another job works there, its results have another identity or an older format, it holds something
                else, or it cannot be written.
        """
        try:
            if (self.folder / _OLD_MARKS[self.part]).exists():
                raise UserError(f"{self.out} {OLD_FORMAT}")
            if not self.part and not self._mark.exists() and self._holds_anything_else():
                raise UserError(f"{self.out} holds something else already; name a new or empty folder")
            with Lease(self.folder / lease, str(self.out)):
                identity = identity() if callable(identity) else identity
                changed = self._changed(identity)
                if changed and replace is None:
                    raise UserError(f"{self.out} {another} ({'; '.join(changed)}); {advice}")
                if changed and replace is not None:
                    replace()
                if changed or not self._mark.exists():
                    mark = {"format": FORMAT, "identity": identity.model_dump(mode="json")}
                    write_atomically(self._mark, json.dumps(mark, indent=1, ensure_ascii=False))
                yield identity
        except PermissionError as error:
            raise self._refused(error) from None
        except (NotADirectoryError, FileExistsError):
            raise UserError(f"{self.out} is a file, not a folder; name a new OUT") from None

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Holds the folder whatever its identity, so that no job changes it meanwhile, nor any that has a share of it.

        Raises:
            UserError: another job works there, or it cannot be written.
        """
        try:
            with Lease(self.folder / LEASE, str(self.out)):
                for name in sorted(file_names(self.folder)):
                    holder = live_holder(self.folder / name) if _SHARE_LEASE.fullmatch(name) else None
                    if holder is not None:
                        raise UserError(
                            f"another job writes to {self.out} now: process {holder.process.number} on {holder.host}; "
                            "wait for it"
                        )
                yield
        except PermissionError as error:
            raise self._refused(error) from None

    def identity(self) -> dict[str, object] | None:
        """What the folder's results depend on; None where no job has claimed it."""
        if not self._mark.exists():
            return None
        identity: dict[str, object] = json.loads(self._mark.read_text(encoding="utf-8"))["identity"]
        return identity

    def _refused(self, error: PermissionError) -> UserError | OSError:
        """What object storage or this machine refuses."""
        advice = f"{self.out} cannot be written ({error.strerror}); name a folder that can be"
        return storage_failure(error) or UserError(advice)

    def _holds_anything_else(self) -> bool:
        return any(name != "work" for name in file_names(self.out))

    def _changed(self, identity: Config) -> list[str]:
        """Differences to the identity that the folder has; none without one."""
        if not self._mark.exists():
            return []
        mark = json.loads(self._mark.read_text(encoding="utf-8"))
        if mark["format"] != FORMAT:
            raise UserError(f"{self.out} {OLD_FORMAT}")
        return differences(mark["identity"], identity.model_dump(mode="json"))
