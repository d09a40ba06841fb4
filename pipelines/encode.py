"""Latents of every clip of a dataset, so that no trainer runs the AudioVAE (report 3.2; the encoder is frozen).

    voxmill encode DATASET --vae CHECKPOINT [config.yaml] [key=value ...]
    ray job submit --working-dir . -- python pipelines/encode.py DATASET --vae CHECKPOINT [key=value ...]

DATASET is a finished `annotate` OUT; CHECKPOINT a folder in the released layout; both may be URIs. DATASET gets
latents/<bucket>/*.tar (`{clip_id}.safetensors`: `latent`, bf16, 64 channels at 25 frames a second), latents.parquet
with a row a clip, and latents.json. `voxmill encode --help` describes the command.
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
from functools import reduce
from importlib.metadata import version
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from pipelines.config import EncodeConfig
from pipelines.latents.buckets import EncodePlan, LatentCounts
from pipelines.latents.units import EncodeUnit, FailedClip, encode_unit
from pipelines.units.probe import check_nodes
from pipelines.units.workspace import Workspace
from voxmill.core.config import Config
from voxmill.core.errors import JobError, UserError, status_and_line
from voxmill.core.files import remove_folder, write_atomically
from voxmill.core.local_copies import local_copy
from voxmill.core.local_ray import data_settings, join_ray
from voxmill.core.local_ray.tasks import map_in_order
from voxmill.core.machine import malloc
from voxmill.core.machine.devices import limit_threads
from voxmill.core.progress import Progress
from voxmill.core.storage import absolute, as_failure, file_names
from voxmill.data.dataset import Dataset
from voxmill.data.layout import index_parts
from voxmill.data.records import from_json_text, to_json_text

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
    num_failed: int
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
    dataset, checkpoint = absolute(Dataset.open(dataset).path), absolute(checkpoint)
    settings = read_config(local_copy(checkpoint))
    vae = load_vae(local_copy(checkpoint), settings)
    plan = EncodePlan(dataset=dataset, latent_space=latent_space(vae), patch_size=settings.patch_size, config=config)
    progress = Progress(enabled=config.progress)
    with claim(dataset, plan.latent_space, replace=config.replace):
        parts = plan.parts()
        left = list(map_in_order(plan.progress, parts, num_cpus=0.5))
        if not sum(part.clips for part in left):
            raise UserError(f"{dataset / 'clips.parquet'}: has no clips; nothing to encode")
        units, undone = sum(part.units for part in left), sum(part.undone for part in left)
        if undone < units:
            progress.print(f"already encoded: {units - undone} of {units} latent shards")
        if undone:
            hours = sum(part.undone_seconds for part in left) / 3600
            with progress.stage("Encoding", hours, "audio hours") as bar:
                encoded = [part for part, its in zip(parts, left, strict=True) if its.undone]
                for seconds in run(plan, encoded, undone, checkpoint):
                    bar.advance(seconds / 3600)
        summary = write_latents_index(plan, vae, settings, encoded=undone, wall_seconds=time.perf_counter() - began)
    for clip in summary["failed"][:3]:
        progress.print(f"skipped: clip {clip['clip_id']} of {clip['shard']}: {clip['detail']}")
    progress.print(f"{summary['clips']} clips encoded, {summary['num_failed']} skipped: {dataset / 'latents.parquet'}")
    return summary


def _join() -> None:
    import ray

    if not ray.is_initialized():
        join_ray()


def write_latents_index(
    plan: EncodePlan, vae: "AudioVAE", settings: "VoxCPM2Config", *, encoded: int, wall_seconds: float
) -> LatentsSummary:
    """Writes `latents.parquet` and `latents.json` of finished units; returns what the latter holds.

    Raises:
        JobError: a unit is not done.
    """
    rate = settings.audio_vae_config.sample_rate
    counts = reduce(add, map_in_order(plan.write_part, plan.parts(), num_cpus=0.5), LatentCounts())
    summary: LatentsSummary = {
        "latent_space": plan.latent_space,
        "channels": settings.feat_dim,
        "patch_size": settings.patch_size,
        "frames_per_second": rate / vae.hop,
        "dtype": "bfloat16",
        "clips": counts.clips,
        "num_failed": counts.num_failed,
        "failed": list(counts.failed),
        "bytes": counts.bytes,
        "units": counts.units,
        "encoded": encoded,
        "hours": counts.frames * vae.hop / rate / 3600,
        "wall_seconds": wall_seconds,
        "config": plan.config.model_dump(mode="json"),
        "versions": {name: version(name) for name in ("voxmill", "ray", "torch", "soxr")},
    }
    write_atomically(plan.dataset / "latents.json", json.dumps(summary, indent=1).encode())
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

    def remove_latents() -> None:
        # What readers trust goes first: they must not meet an index of half-replaced shards.
        (dataset / "latents.json").unlink(missing_ok=True)
        for part in index_parts(dataset / "latents.parquet"):
            part.unlink()
        for folder in (dataset / "latents", dataset / "work" / "latents"):
            for bucket in sorted(file_names(folder)):
                remove_folder(folder / bucket)

    with Workspace(dataset, "latents").claim(
        LatentIdentity(latent_space=space),
        another="has latents of another AudioVAE",
        advice="two never mix: give the checkpoint that made them, or replace=true",
        replace=remove_latents if replace else None,
    ):
        yield


class Encode:
    """The actor of the graph: holds the AudioVAE, encodes a unit at a time."""

    def __init__(self, plan: EncodePlan, checkpoint: Path, device: str, threads: int):
        from model.checkpoint import load_vae
        from model.config import read_config

        limit_threads(threads)
        folder = local_copy(checkpoint)
        self.plan, self.dataset, self.threads = plan, Dataset(plan.dataset), threads
        self.vae = load_vae(folder, read_config(folder), device=device)

    def __call__(self, batch: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str | float]]:
        (text,), (why,) = batch["unit"], batch["fatal"]
        if why:
            return {"seconds": [0.0], "fatal": [why]}
        unit = from_json_text(EncodeUnit, str(text))
        try:
            encode_unit(
                unit,
                self.dataset,
                self.vae,
                patch_size=self.plan.patch_size,
                batch_seconds=self.plan.config.batch_seconds,
                threads=self.threads,
            )
        except Exception as error:
            why = _fatal(error)
        return {"seconds": [unit.seconds], "fatal": [why]}


def _fatal(error: Exception) -> str:
    """What ends the job, in one line: no clip is to blame for a full disk, a shard that is gone or expired credentials.

    Raises:
        Exception: `error`, where it is none of storage.
    """
    return status_and_line(as_failure(error))[1]


def run(plan: EncodePlan, parts: Sequence[Path], undone: int, checkpoint: Path) -> Iterator[float]:
    """Encodes what is not done of some buckets on the cluster; yields the seconds of each unit as it is done.

    The driver holds the parts' names alone: tasks read a bucket's index and give its units one by one to an elastic
    pool of actors, one a GPU, or else one a CPU.
    """
    import pyarrow as pa
    import ray
    import ray.data

    _join()
    check_nodes(plan.dataset)
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus, gpus = max(int(resources.get("CPU", 1)), 1), int(resources.get("GPU", 0))
    config = plan.config
    # On a GPU the encoder waits for decoded audio: its share of the CPUs decodes for it.
    threads = config.threads or (max(cpus // gpus, 1) if gpus else 1)
    actors = min(config.workers or gpus or cpus, undone)

    def units_of(batch: pa.Table) -> Iterator[pa.Table]:
        for number in batch["part"].to_pylist():
            try:
                for unit in plan.undone(parts[number]):
                    yield pa.table({"unit": [to_json_text(unit)], "fatal": [""]})
            except Exception as error:
                yield pa.table({"unit": [""], "fatal": [_fatal(error)]})

    try:
        with data_settings() as settings:
            settings.max_errored_blocks = -1
            # A block is a unit, so that any idle actor takes the next one. `repartition` to one row a block needs a CPU
            # of its own, which a cluster of one CPU does not have beside the actor.
            settings.target_max_block_size = 1
            graph = (
                ray.data.from_arrow([pa.table({"part": [number]}) for number in range(len(parts))])
                .map_batches(
                    units_of,
                    batch_size=1,
                    batch_format="pyarrow",
                    num_cpus=0,
                    compute=ray.data.TaskPoolStrategy(size=max(actors // 8, 2)),
                )
                .map_batches(
                    Encode,
                    fn_constructor_kwargs={
                        "plan": plan,
                        "checkpoint": checkpoint,
                        "device": "cuda" if gpus else "cpu",
                        "threads": threads,
                    },
                    batch_size=1,
                    compute=ray.data.ActorPoolStrategy(
                        min_size=1, initial_size=actors, max_size=config.workers, max_tasks_in_flight_per_actor=2
                    ),
                    num_cpus=threads if gpus else 1,
                    num_gpus=1 if gpus else None,
                    runtime_env={"env_vars": malloc.KEEP_FREED_MEMORY_ENV},
                )
            )
            for row in graph.iter_rows():
                if row["fatal"]:
                    raise JobError(row["fatal"])
                yield row["seconds"]
    except ray.exceptions.RayError as error:
        reason = str(getattr(error, "cause", None) or error).strip().splitlines()[0][:300]
        raise JobError(f"the encoder's workers failed: {reason}") from error
