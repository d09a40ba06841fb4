"""OUT belongs to one configuration and, while a job runs, to one job."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.config import LabelConfig
from voxmill.core.config import differences
from voxmill.core.errors import UserError
from voxmill.core.files import write_atomically
from voxmill.data.shards import to_json


@contextmanager
def claim(out: Path, label: LabelConfig) -> Iterator[None]:
    """Holds OUT for this job; the system lets go of it when the process ends, however it ends.

    Raises:
        UserError: another job works there, its labels were made by another configuration, it holds something else,
            or it cannot be written.
    """
    mark = out / "work" / "label.json"
    wanted = label.model_dump(mode="json")
    try:
        if not mark.exists() and out.exists() and any(p.name != "work" for p in out.iterdir()):
            raise UserError(f"{out} holds something else already; name a new or empty folder")
        mark.parent.mkdir(parents=True, exist_ok=True)
        with open(mark.parent / "lock", "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"another job writes to {out} now; wait for it or name a new OUT") from None
            if mark.exists():
                changed = differences(json.loads(mark.read_text()), wanted)
                if changed:
                    raise UserError(f"{out} was made with another configuration ({'; '.join(changed)}); name a new OUT")
            else:
                write_atomically(mark, to_json(wanted))
            yield
    except PermissionError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); name a folder that can be") from None
    except (NotADirectoryError, FileExistsError):
        raise UserError(f"{out} is a file, not a folder; name a new OUT") from None
