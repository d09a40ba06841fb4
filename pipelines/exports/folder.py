"""The folder of an export: one export of one dataset, which the same command completes after it was ended.

`export.json` says which it is, first and last. All other files appear whole under their names and have the same bytes
in every run, so audio that is there is not written again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from voxmill.core.config import Config
from voxmill.core.errors import UserError
from voxmill.core.files import list_files, sweep_temporaries, write_atomically
from voxmill.core.hashing import fingerprint, sha256_bytes
from voxmill.core.storage import read_whole
from voxmill.data.dataset import CLIPS_INDEX, Dataset
from voxmill.data.layout import index_parts
from voxmill.data.records import from_json_text, to_json_text
from voxmill.data.snapshot import read_snapshot

FORMAT = 1
FILE = "export.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRecord:
    """`export.json`: the format, what the dataset and the settings were, and once all is written the counts."""

    exported_as: str
    dataset: str
    settings: str
    format: int = FORMAT
    counts: dict[str, int] | None = None


def begin(folder: Path, dataset: Dataset, exported_as: str, settings: Config) -> ExportRecord:
    """Takes a new or empty folder, or one that the same export has begun or finished; `counts` tells which.

    Raises:
        UserError: it holds anything else.
    """
    record = ExportRecord(exported_as=exported_as, dataset=_state(dataset), settings=fingerprint(settings))
    path = folder / FILE
    if path.is_file():
        try:
            known = from_json_text(ExportRecord, read_whole(path))
        except ValidationError:
            raise UserError(f"{path}: is none of `voxmill export`; name another folder") from None
        same = replace(known, counts=None) == record
        if not same and any(file.name != FILE for file in list_files(folder)):
            what = "of other settings or of the dataset as it was"
            what = what if known.exported_as == exported_as else f"--as {known.exported_as}"
            raise UserError(f"{folder}: holds an export {what}; name another folder or remove it")
        if same:
            sweep_temporaries(folder, recursive=True)
            return known
    elif next(list_files(folder), None) is not None:
        raise UserError(f"{folder}: is not empty; name another folder or remove what is in it")
    write_atomically(path, f"{to_json_text(record)}\n")
    return record


def end(folder: Path, record: ExportRecord, counts: Mapping[str, int]) -> None:
    """Says that all is written."""
    write_atomically(folder / FILE, f"{to_json_text(replace(record, counts=dict(sorted(counts.items()))))}\n")


def _state(dataset: Dataset) -> str:
    """What identifies the clips of a dataset as they are now."""
    snapshot = read_snapshot(dataset.path)
    if snapshot is not None:
        return fingerprint([[row.bucket, row.clips.sha256, row.recordings.sha256] for row in snapshot.files])
    return fingerprint([sha256_bytes(read_whole(part)) for part in index_parts(dataset.path / CLIPS_INDEX)])
