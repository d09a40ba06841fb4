"""What the phases of `annotate` hand to each other: files of every bucket below OUT/work/plan.

`<bucket>.recordings.parquet` has a row an input, `<bucket>.units.parquet` a row a work unit, and
`<bucket>.texts.parquet` the texts and labels that are given for recordings, where there are any; `buckets` holds their
number, which is fixed when a dataset is made. A file is replaced only where its content changes.
"""

from dataclasses import dataclass
from pathlib import Path

from pipelines.config import LabelConfig
from pipelines.units.unit import label_fingerprint, split
from voxmill.core.errors import UserError
from voxmill.core.files import write_atomically
from voxmill.core.storage import file_names
from voxmill.data.layout import bucket_name, num_buckets
from voxmill.data.records import GivenLabels, GivenPart, Recording, Window, WindowResult, WorkUnit
from voxmill.data.schemas import from_table, parquet_bytes, read_parquet, to_table


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedUnit:
    """A row of the units of a bucket."""

    unit_id: str
    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenRecording:
    """What is given for a recording: its text, in parts, and labels."""

    recording_id: str
    parts: tuple[GivenPart, ...] = ()
    labels: GivenLabels | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketPlan:
    """The work of one bucket.

    recordings: a row an input, in the order of names; those to be labelled have the state `planned`.
    units: without results, in the order of their recordings.
    """

    recordings: tuple[Recording, ...]
    units: tuple[WorkUnit, ...]
    given: tuple[GivenRecording, ...] = ()


def fix_buckets(out: Path, hours: float, forced: int | None) -> int:
    """The number of buckets of OUT: `forced` or by the hours of its first recordings, and the same ever after.

    Raises:
        UserError: `forced` is not what OUT was made with.
    """
    mark = _folder(out) / "buckets"
    if not mark.exists():
        write_atomically(mark, f"{forced or num_buckets(hours)}\n")
    buckets = stored_buckets(out)
    if forced is not None and forced != buckets:
        raise UserError(f"{out} was made with {buckets} buckets, not write.buckets={forced}; name a new OUT")
    return buckets


def stored_buckets(out: Path) -> int:
    """The number of buckets that OUT was made with."""
    return int((_folder(out) / "buckets").read_text(encoding="ascii"))


def write_plan(out: Path, plans: dict[int, BucketPlan]) -> None:
    """Writes the plans of all buckets that have any input, and removes those of others."""
    for bucket, plan in plans.items():
        write_bucket(out, bucket, plan)
    for bucket in planned_buckets(out):
        if bucket not in plans:
            remove_bucket(out, bucket)


def write_bucket(out: Path, bucket: int, plan: BucketPlan) -> None:
    """Writes the plan of one bucket; its recordings last, by which it is known to be there."""
    rows = [
        PlannedUnit(unit_id=unit.unit_id, windows=tuple(result.window for result in unit.results))
        for unit in plan.units
    ]
    _write(_path(out, bucket, "units"), parquet_bytes(to_table(rows, PlannedUnit)))
    if plan.given:
        _write(given_path(out, bucket), parquet_bytes(to_table(plan.given, GivenRecording)))
    else:
        given_path(out, bucket).unlink(missing_ok=True)
    _write(_path(out, bucket, "recordings"), parquet_bytes(to_table(plan.recordings, Recording)))


def remove_bucket(out: Path, bucket: int) -> None:
    """Removes the plan of a bucket that has no input any more."""
    _path(out, bucket, "recordings").unlink(missing_ok=True)
    _path(out, bucket, "units").unlink(missing_ok=True)
    given_path(out, bucket).unlink(missing_ok=True)


def planned_buckets(out: Path) -> list[int]:
    """Buckets that have a plan, in order."""
    names = file_names(_folder(out))
    return sorted(int(name.partition(".")[0], 16) for name in names if name.endswith(".recordings.parquet"))


def recordings_path(out: Path, bucket: int) -> Path:
    """The inputs of a bucket as a file."""
    return _path(out, bucket, "recordings")


def read_recordings(out: Path, bucket: int) -> list[Recording]:
    """The inputs of a bucket, in the order of names."""
    return from_table(Recording, read_parquet(_path(out, bucket, "recordings")))


def given_path(out: Path, bucket: int) -> Path:
    """What is given for recordings of a bucket, as a file."""
    return _path(out, bucket, "texts")


def read_given(out: Path, bucket: int) -> dict[str, GivenRecording]:
    """What is given for recordings of a bucket, by recording."""
    try:
        rows = from_table(GivenRecording, read_parquet(given_path(out, bucket)))
    except FileNotFoundError:
        return {}
    return {row.recording_id: row for row in rows}


def read_units(out: Path, bucket: int, label: LabelConfig) -> list[WorkUnit]:
    """The units of a bucket without results, those that were split for good replaced by their windows."""
    label_id, marks = label_fingerprint(label), file_names(split_folder(out))
    units: list[WorkUnit] = []
    for row in from_table(PlannedUnit, read_parquet(_path(out, bucket, "units"))):
        results = tuple(WindowResult(window=window) for window in row.windows)
        unit = WorkUnit(unit_id=row.unit_id, bucket=bucket, results=results, costs={})
        units += split(unit, label_id) if unit.unit_id in marks else [unit]
    return units


def split_folder(out: Path) -> Path:
    """Marks of the units that were split into their windows for good."""
    return out / "work" / "split"


def _folder(out: Path) -> Path:
    return out / "work" / "plan"


def _path(out: Path, bucket: int, kind: str) -> Path:
    return _folder(out) / f"{bucket_name(bucket)}.{kind}.parquet"


def _write(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)
