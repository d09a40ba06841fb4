"""Latents of every clip of a dataset, so that no trainer runs the AudioVAE (report 3.2; the encoder is frozen).

    voxmill encode DATASET --vae CHECKPOINT [config.yaml] [key=value ...]
    ray job submit --working-dir . -- python pipelines/encode.py DATASET --vae CHECKPOINT [key=value ...]

DATASET is a finished `annotate` OUT; CHECKPOINT a folder in the released layout. DATASET gets latents/*.tar
(`{clip_id}.safetensors`: `latent`, bf16, 64 channels at 25 frames a second), latents.parquet with a row a clip, and
latents.json. `voxmill encode --help` describes the command.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    # A script's own folder is first on sys.path; the packages lie above it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from voxmill.cli.app import script

    script("encode")

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from pipelines.config import EncodeConfig
from pipelines.latents.units import EncodeUnit, FailedClip, collect, encode_unit, plan_units, result_path
from pipelines.units.workspace import Workspace
from voxmill.core import malloc
from voxmill.core.config import Config
from voxmill.core.devices import limit_threads
from voxmill.core.errors import JobError, UserError
from voxmill.core.files import sweep_temporaries, write_atomically
from voxmill.core.local_ray import join_ray, quiet_context
from voxmill.core.progress import Progress
from voxmill.data.dataset import Dataset
from voxmill.data.records import Latent, from_json_text, to_json_text
from voxmill.data.schemas import to_table, write_parquet

if TYPE_CHECKING:
    from model.codec.audio_vae import AudioVAE
    from model.config import VoxCPM2Config


class LatentsSummary(TypedDict):
    """The keys of `latents.json`."""

    latent_space: str
    channels: int
    patch_size: int
    frames_per_second: float
    dtype: str
    clips: int
    failed: list[FailedClip]
    bytes: int
    units: int
    encoded: int
    hours: float
    wall_seconds: float
    config: Mapping[str, object]
    versions: dict[str, str]


def encode(dataset: Path, checkpoint: Path, config: EncodeConfig) -> LatentsSummary:
    """Runs the whole job and returns what `latents.json` holds.

    Raises:
        UserError: DATASET is not a finished dataset or has latents of another AudioVAE; CHECKPOINT is none.
        JobError: the machine fails; what is done is kept, and the same command resumes.
    """
    from model.checkpoint import load_vae
    from model.codec.latent_space import latent_space
    from model.config import read_config

    began = time.perf_counter()
    clips = Dataset.open(dataset).clips()
    if not clips:
        raise UserError(f"{dataset / 'clips.parquet'}: has no clips; nothing to encode")
    settings = read_config(checkpoint)
    vae = load_vae(checkpoint, settings)
    space = latent_space(vae)
    progress = Progress(enabled=config.progress)
    with claim(dataset, space, replace=config.replace):
        units = plan_units(clips, space, settings.patch_size, config)
        undone = [unit for unit in units if not result_path(dataset, unit.unit_id).exists()]
        if len(undone) < len(units):
            progress.print(f"already encoded: {len(units) - len(undone)} of {len(units)} latent shards")
        if undone:
            hours = {unit.unit_id: unit.seconds / 3600 for unit in undone}
            with progress.stage("Encoding", sum(hours.values()), "audio hours") as bar:
                for unit_id in run(undone, dataset, checkpoint, config):
                    bar.advance(hours[unit_id])
        missing = [unit for unit in undone if not result_path(dataset, unit.unit_id).exists()]
        if missing:
            first = missing[0].clips
            raise JobError(f"{len(missing)} latent shards are missing, the first from clip {first[0].clip_id} on")
        summary = write_latents_index(
            dataset, units, vae, settings, config, encoded=len(undone), wall_seconds=time.perf_counter() - began
        )
        remove_stale(dataset, {unit.unit_id for unit in units})
    failed = summary["failed"]
    for clip in failed[:3]:
        progress.print(f"skipped: clip {clip['clip_id']} of {clip['shard']}: {clip['detail']}")
    progress.print(f"{summary['clips']} clips encoded, {len(failed)} skipped: {dataset / 'latents.parquet'}")
    return summary


def write_latents_index(
    dataset: Path,
    units: list[EncodeUnit],
    vae: "AudioVAE",
    settings: "VoxCPM2Config",
    config: EncodeConfig,
    *,
    encoded: int,
    wall_seconds: float,
) -> LatentsSummary:
    """Writes `latents.parquet` and `latents.json` of finished units; returns what the latter holds."""
    from model.codec.latent_space import latent_space

    space, rate = latent_space(vae), settings.audio_vae_config.sample_rate
    rows, failed = collect(units, dataset, space)
    write_parquet(dataset / "latents.parquet", to_table(rows, Latent))
    summary: LatentsSummary = {
        "latent_space": space,
        "channels": settings.feat_dim,
        "patch_size": settings.patch_size,
        "frames_per_second": rate / vae.hop,
        "dtype": "bfloat16",
        "clips": len(rows),
        "failed": failed,
        "bytes": sum(row.size for row in rows),
        "units": len(units),
        "encoded": encoded,
        "hours": sum(row.num_frames for row in rows) * vae.hop / rate / 3600,
        "wall_seconds": wall_seconds,
        "config": config.model_dump(mode="json"),
        "versions": {name: version(name) for name in ("voxmill", "ray", "torch", "soxr")},
    }
    write_atomically(dataset / "latents.json", json.dumps(summary, indent=1).encode())
    return summary


class LatentIdentity(Config):
    """What all latents of a dataset depend on."""

    latent_space: str


@contextmanager
def claim(dataset: Path, space: str, *, replace: bool) -> Iterator[None]:
    """Holds the dataset's latents for this job and this latent space.

    Raises:
        UserError: another job writes them now, they are of another AudioVAE, or DATASET cannot be written.
    """

    def remove_indexes() -> None:
        # What readers trust goes first: they must not meet an index of half-replaced shards.
        for name in ("latents.json", "latents.parquet"):
            (dataset / name).unlink(missing_ok=True)

    with Workspace(dataset, "latents").claim(
        LatentIdentity(latent_space=space),
        another="has latents of another AudioVAE",
        advice="two never mix: give the checkpoint that made them, or replace=true",
        replace=remove_indexes if replace else None,
    ):
        yield


class Encode:
    """The actor of the graph: holds the AudioVAE, encodes a unit at a time."""

    def __init__(self, dataset: str, checkpoint: str, config: EncodeConfig, device: str):
        from model.checkpoint import load_vae
        from model.config import read_config

        limit_threads(config.threads)
        settings = read_config(checkpoint)
        self.dataset, self.config, self.patch_size = Dataset(Path(dataset)), config, settings.patch_size
        self.vae = load_vae(checkpoint, settings, device=device)

    def __call__(self, batch: dict[str, Sequence[str]]) -> dict[str, list[str]]:
        done, fatal = [], []
        for text in batch["unit"]:
            unit = from_json_text(EncodeUnit, str(text))
            why = ""
            try:
                encode_unit(
                    unit, self.dataset, self.vae, patch_size=self.patch_size, batch_seconds=self.config.batch_seconds
                )
            except OSError as error:
                # No clip is to blame for a full disk or a shard that is gone: the driver ends the job with one line.
                why = f"{error.strerror or error} ({error.filename})" if error.filename else str(error)
            done.append(unit.unit_id)
            fatal.append(why)
        return {"unit_id": done, "fatal": fatal}


def run(units: list[EncodeUnit], dataset: Path, checkpoint: Path, config: EncodeConfig) -> Iterator[str]:
    """Encodes units on the cluster and yields each one's name as it is done."""
    import ray
    import ray.data

    if not ray.is_initialized():
        join_ray()
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus = int(resources.get("GPU", 0))
    workers = config.workers or max(gpus or int(resources.get("CPU", 1)), 1)
    quiet_context().max_errored_blocks = -1
    import pyarrow as pa

    graph = ray.data.from_arrow([pa.table({"unit": [to_json_text(unit)]}) for unit in units]).map_batches(
        Encode,
        fn_constructor_kwargs={
            "dataset": str(dataset.resolve()),
            "checkpoint": str(checkpoint.resolve()),
            "config": config,
            "device": "cuda" if gpus else "cpu",
        },
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(units))),
        num_cpus=1,
        num_gpus=1 if gpus else None,
        runtime_env={"env_vars": malloc.KEEP_FREED_MEMORY_ENV},
    )
    try:
        for row in graph.iter_rows():
            if row["fatal"]:
                raise JobError(row["fatal"])
            yield row["unit_id"]
    except ray.exceptions.RayError as error:
        reason = str(getattr(error, "cause", None) or error).strip().splitlines()[0][:300]
        raise JobError(f"the encoder's workers failed: {reason}") from error


def remove_stale(dataset: Path, unit_ids: set[str]) -> None:
    """Removes shards and results that no unit of the dataset names any more, and a killed job's temporary files."""
    for path in (dataset / "latents").glob("latents-*.tar"):
        if path.stem.removeprefix("latents-") not in unit_ids:
            path.unlink()
    for path in (dataset / "work" / "latents").glob("*.json"):
        if path.stem not in unit_ids:
            path.unlink()
    for folder in (dataset / "latents", dataset / "work" / "latents"):
        sweep_temporaries(folder)
