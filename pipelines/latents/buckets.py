"""The steps of `encode` over one bucket: its units, which of them are done, and its part of `latents.parquet`.

Ray tasks where there are many buckets; what they return does not grow with a bucket. Free of Ray.
"""

from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.config import EncodeConfig
from pipelines.latents.units import EncodeUnit, FailedClip, collect, plan_units, results_folder
from voxmill.core.errors import JobError
from voxmill.core.files import sweep_temporaries
from voxmill.core.storage import arrow_filesystem, file_names
from voxmill.data.dataset import StoredClip
from voxmill.data.layout import bucket_name, index_parts
from voxmill.data.records import Latent
from voxmill.data.schemas import columns_of, from_table, to_table, write_parquet

MAX_LISTED_FAILURES = 1000
"""Clips that could not be encoded, listed in `latents.json`; the result files of their units list all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodePlan:
    """What decides the units of a dataset."""

    dataset: Path
    latent_space: str
    patch_size: int
    config: EncodeConfig

    def parts(self) -> list[Path]:
        """The parts of `clips.parquet`, one a bucket."""
        return index_parts(self.dataset / "clips.parquet")

    def units(self, part: Path) -> list[EncodeUnit]:
        """All units of a bucket, whether done or not."""
        filesystem, name = arrow_filesystem(part)
        table = pq.read_table(name, columns=list(columns_of(StoredClip)), filesystem=filesystem)
        clips = from_table(StoredClip, table)
        return plan_units(clips, self.latent_space, self.patch_size, self.config, _bucket(part))

    def undone(self, part: Path) -> list[EncodeUnit]:
        """Units of a bucket that have no result, the longest first: the least is left to wait for at the end."""
        return self._undone(part, self.units(part))

    def _undone(self, part: Path, units: list[EncodeUnit]) -> list[EncodeUnit]:
        done = file_names(results_folder(self.dataset, _bucket(part)))
        return sorted((unit for unit in units if f"{unit.unit_id}.json" not in done), key=lambda unit: -unit.seconds)

    def progress(self, part: Path) -> "Progress":
        """How much of a bucket there is, and how much is left."""
        units = self.units(part)
        undone = self._undone(part, units)
        return Progress(
            units=len(units),
            undone=len(undone),
            clips=sum(len(unit.clips) for unit in units),
            undone_seconds=sum(unit.seconds for unit in undone),
        )

    def write_part(self, part: Path) -> "LatentCounts":
        """Writes a bucket's part of `latents.parquet`.

        Raises:
            JobError: a unit is not done.
        """
        units = self.units(part)
        undone = self._undone(part, units)
        if undone:
            clip = undone[0].clips[0].clip_id
            raise JobError(f"{len(undone)} latent shards of {part.stem} are missing, one from clip {clip} on")
        rows, failed = collect(units, self.dataset, self.latent_space)
        for folder in (
            self.dataset / "latents" / bucket_name(_bucket(part)),
            results_folder(self.dataset, _bucket(part)),
        ):
            sweep_temporaries(folder)
        whole = part.name == "clips.parquet"
        target = self.dataset / "latents.parquet" if whole else self.dataset / "latents.parquet" / part.name
        write_parquet(target, to_table(rows, Latent))
        return LatentCounts(
            clips=len(rows),
            num_failed=len(failed),
            failed=tuple(failed[:MAX_LISTED_FAILURES]),
            bytes=sum(row.size for row in rows),
            frames=sum(row.num_frames for row in rows),
            units=len(units),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Units and clips of a bucket, and how many units and seconds are left to encode."""

    units: int
    undone: int
    clips: int
    undone_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentCounts:
    """What a bucket's latents are: clips, frames, bytes, units, and the first clips that could not be encoded."""

    clips: int = 0
    num_failed: int = 0
    failed: tuple[FailedClip, ...] = field(default=())
    bytes: int = 0
    frames: int = 0
    units: int = 0

    def __add__(self, other: "LatentCounts") -> "LatentCounts":
        return LatentCounts(
            clips=self.clips + other.clips,
            num_failed=self.num_failed + other.num_failed,
            failed=(*self.failed, *other.failed)[:MAX_LISTED_FAILURES],
            bytes=self.bytes + other.bytes,
            frames=self.frames + other.frames,
            units=self.units + other.units,
        )


def _bucket(part: Path) -> int:
    return 0 if part.name == "clips.parquet" else int(part.stem, 16)
