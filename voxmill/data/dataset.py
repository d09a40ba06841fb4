"""A finished dataset, read: the clips of its index, their audio, their latents. Free of Ray, and of torch at import."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from voxmill.core.audio import AudioProblem, Samples, check, decode_flac
from voxmill.core.errors import UserError
from voxmill.core.hashing import sha256_bytes
from voxmill.core.storage import raise_unavailable, to_path
from voxmill.data.layout import count_rows, index_parts, read_index, stream_part
from voxmill.data.records import ClipId, Hertz, Latent, Seconds, ShardPlace
from voxmill.data.schemas import CLIPS, columns_of, from_table
from voxmill.data.shards import read_latent, read_member
from voxmill.data.snapshot import missing_parts, read_snapshot

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from torch import Tensor

R = TypeVar("R", bound="DataclassInstance")
CLIPS_INDEX, RECORDINGS_INDEX, LATENTS_INDEX = "clips.parquet", "recordings.parquet", "latents.parquet"
PLACE_OF_LATENTS = ("shard", "offset", "size", "sha256", "num_frames")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredClip(ShardPlace):
    """A clip of the index: what it is a part of, how long it is, and where its FLAC lies."""

    clip_id: ClipId
    recording_id: str
    start_sample: int
    end_sample: int
    sample_rate: Hertz
    duration: Seconds


@dataclass(frozen=True, slots=True)
class LatentSpace:
    """What all latents of a dataset share, from `latents.json`: the AudioVAE's fingerprint, and frames a patch."""

    latent_space: str
    patch_size: int


def is_dataset(path: Path) -> bool:
    """Whether a folder holds the index of a dataset."""
    return bool(index_parts(path / CLIPS_INDEX))


class Dataset:
    """OUT of a finished `voxmill annotate`; make it with `Dataset.open`."""

    def __init__(self, path: Path):
        self.path = path
        self._latents: dict[ClipId, Latent] | None = None

    @classmethod
    def open(cls, path: str | Path) -> "Dataset":
        """The dataset in this folder or below this URI; indexes are read when they are asked for.

        Raises:
            UserError: it has no `clips.parquet`, or lacks parts of it that `dataset.json` names.
        """
        folder = to_path(path)
        if not is_dataset(folder):
            raise UserError(f"{folder / CLIPS_INDEX}: not there; name the OUT of a finished `voxmill annotate`")
        snapshot = read_snapshot(folder)
        missing = [] if snapshot is None else missing_parts(folder, CLIPS_INDEX, snapshot)
        if missing:
            more = f" and {len(missing) - 1} more parts" if len(missing) > 1 else ""
            raise UserError(f"{missing[0]}: not there{more}, which dataset.json names; run `voxmill annotate` again")
        return cls(folder)

    def clips(self) -> list[StoredClip]:
        """All clips in the index's order.

        Raises:
            UserError: the index cannot be read.
        """
        return self.records(StoredClip)

    def records(self, kind: type[R]) -> list[R]:
        """All clips as records of `kind`, whose fields are columns of `clips.parquet`; no other column is read.

        Raises:
            UserError: the index cannot be read, or lacks a column.
        """
        return from_table(kind, self.table(columns_of(kind)))

    def parts(self, kind: type[R], index: str = CLIPS_INDEX) -> Iterator[list[R]]:
        """The same by bucket; a session's clips are in one, and so are a clip's references.

        Args:
            index: another index, such as `recordings.parquet`, whose columns `kind` has.

        Raises:
            UserError: the index cannot be read, or lacks a column.
        """
        for table in self.tables(columns_of(kind), index):
            yield from_table(kind, table)

    def tables(self, columns: Sequence[str], index: str = CLIPS_INDEX) -> Iterator[pa.Table]:
        """Columns of an index by bucket.

        Raises:
            UserError: the index cannot be read, or lacks a column.
        """
        for part in index_parts(self.path / index):
            yield self._read(part, columns, "annotate")

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Columns of `clips.parquet`.

        Raises:
            UserError: the index cannot be read, or lacks a column.
        """
        return self._read(self.path / CLIPS_INDEX, columns, "annotate")

    def latent_space(self) -> LatentSpace:
        """The space of the dataset's latents.

        Raises:
            UserError: `latents.json` is not there or cannot be read.
        """
        path = self.path / "latents.json"
        if not path.is_file():
            raise UserError(f"{path}: not there; run `voxmill encode` first")
        try:
            values = json.loads(path.read_bytes())
            return LatentSpace(str(values["latent_space"]), int(values["patch_size"]))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: cannot be read ({error}); run `voxmill encode` again") from None

    def table_with_latents(
        self, columns: Sequence[str], *, latent_space: str, optional: Sequence[str] = ()
    ) -> pa.Table:
        """The same, and the place of each clip's latents as columns `latent_*`, null where a clip has none.

        Args:
            latent_space: of all latents, as `latents.json` states it.
            optional: further columns, null in a dataset of an older version that lacks them.

        Raises:
            UserError: an index is not there or cannot be read, lacks a column, or the latents are of another AudioVAE.
        """
        return pa.concat_tables(self.tables_with_latents(columns, latent_space=latent_space, optional=optional))

    def tables_with_latents(
        self, columns: Sequence[str], *, latent_space: str, optional: Sequence[str] = ()
    ) -> Iterator[pa.Table]:
        """The same by bucket."""
        folder = self.path / LATENTS_INDEX
        if not index_parts(folder):
            raise UserError(f"{folder}: not there; run `voxmill encode` first")
        for part in index_parts(self.path / CLIPS_INDEX):
            clips = _completed(self._read(part, columns, "annotate", optional), (*columns, *optional))
            # A bucket's latents are in the part of the same name.
            of_part = folder if part.name == CLIPS_INDEX else folder / part.name
            latents = self._read(of_part, (*PLACE_OF_LATENTS, "clip_id", "latent_space"), "encode")
            if pc.unique(latents["latent_space"]).to_pylist() not in ([latent_space], []):
                raise UserError(f"{folder}: mixes AudioVAEs; run `voxmill encode` again")
            yield with_latents(clips, latents)

    def streams(self, columns: Sequence[str], *, rows: int) -> Iterator[Iterator[pa.Table]]:
        """Columns of `clips.parquet` by bucket, each by the piece of at most so many rows.

        Raises:
            UserError: from the inner ones, the index cannot be read, or lacks a column.
        """
        for part in index_parts(self.path / CLIPS_INDEX):
            yield self._stream(part, columns, rows)

    def _stream(self, part: Path, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        try:
            for piece in stream_part(part, columns, rows):
                self._refuse_missing(part, piece, columns, "annotate")
                yield _completed(piece, columns)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(part, error, "annotate") from None

    def num_clips(self) -> int:
        """Clips of the index.

        Raises:
            UserError: the index cannot be read.
        """
        snapshot = read_snapshot(self.path)
        if snapshot is not None:
            return sum(bucket.clips.rows for bucket in snapshot.files)
        try:
            return count_rows(self.path / CLIPS_INDEX)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self.path / CLIPS_INDEX, error, "annotate") from None

    def _read(self, path: Path, columns: Sequence[str], command: str, optional: Sequence[str] = ()) -> pa.Table:
        try:
            table = read_index(path, (*columns, *optional))
        except FileNotFoundError:
            raise UserError(f"{path}: not there; run `voxmill {command}` first") from None
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, error, command) from None
        self._refuse_missing(path, table, columns, command)
        return table

    def _refuse_missing(self, path: Path, table: pa.Table, columns: Sequence[str], command: str) -> None:
        missing = set(columns) - set(table.column_names)
        if missing:
            names = ", ".join(sorted(missing))
            raise UserError(f"{path}: has no column {names}; run `voxmill {command}` again")

    def flac(self, clip: ShardPlace) -> bytes:
        """A clip's audio as the bytes that are stored.

        Raises:
            AudioProblem: `changed` where the bytes are not those of the index, `missing` where there are none.
            OSError: the shard cannot be read.
        """
        try:
            content = read_member(self.path, clip.shard, clip.offset, clip.size)
        except ValueError as error:
            raise AudioProblem("missing", str(error)) from None
        if clip.sha256 is not None and sha256_bytes(content) != clip.sha256:
            raise AudioProblem("changed", "its bytes are not those that clips.parquet names")
        return content

    def audio(self, clip: StoredClip) -> tuple[Samples, Hertz]:
        """A clip's audio as it is stored: (mono float32 samples [T], rate in hertz).

        Raises:
            AudioProblem: as `flac`, or the bytes are no audio.
            OSError: the shard cannot be read.
        """
        samples_T, rate = decode_flac(self.flac(clip))
        check(samples_T, rate, min_seconds=1 / rate, silent_peak=0.0)
        return samples_T, rate

    def latents(self, clip_id: ClipId) -> "Tensor":
        """A clip's latents [L, D], bf16, at the frame rate that `latents.json` states.

        Raises:
            UserError: `latents.parquet` is not there or cannot be read. KeyError: the clip has no latents.
            ValueError: what lies there is not what the index states. OSError: the shard cannot be read.
        """
        if self._latents is None:
            rows = from_table(Latent, self._read(self.path / LATENTS_INDEX, columns_of(Latent), "encode"))
            self._latents = {row.clip_id: row for row in rows}
        place = self._latents[clip_id]
        return read_latent(self.path, place.shard, place.offset, place.size, place.sha256)


def _unreadable(path: Path, error: Exception, command: str) -> UserError:
    """What to raise for a file that Arrow cannot read.

    Raises:
        UserError, OSError: storage or this machine refused it.
    """
    raise_unavailable(error)
    return UserError(f"{path}: cannot be read ({str(error).splitlines()[0]}); run `voxmill {command}` again")


def _completed(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The table with those of the columns, and of the fields of their structs, that an older version did not write."""
    known = pa.schema([CLIPS.field(name) for name in columns])
    return pa.concat_tables([known.empty_table(), table], promote_options="permissive")


def with_latents(clips: pa.Table, latents: pa.Table) -> pa.Table:
    """Clips with the place of their latents as columns `latent_*`, null where a clip has none.

    The columns stay in their chunks: one chunk of all descriptions would pass the 2^31 bytes of Arrow's `string`.
    """
    large = {column: latents[column].cast(_large(latents[column].type)) for column in (*PLACE_OF_LATENTS, "clip_id")}
    rows = pc.index_in(clips["clip_id"].cast(pa.large_string()), value_set=large["clip_id"])
    for column in PLACE_OF_LATENTS:
        clips = clips.append_column(f"latent_{column}", large[column].take(rows))
    return clips


def _large(kind: pa.DataType) -> pa.DataType:
    return pa.large_string() if pa.types.is_string(kind) else kind
