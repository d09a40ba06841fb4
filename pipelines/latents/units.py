"""What one row of `encode`'s graph is: clips whose latents go into one tar, named by what they are made of.

A unit ends where its length says so or where a clip's own hash does, so a clip that joins or leaves the dataset changes
the units near it and no others. Free of Ray.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from pipelines.config import EncodeConfig
from voxmill.core.audio import AudioProblem, Samples, resample
from voxmill.core.files import write_atomically
from voxmill.core.hashing import fingerprint
from voxmill.data.dataset import Dataset, StoredClip
from voxmill.data.records import Latent
from voxmill.data.shards import TarWriter, latent_bytes, to_json

if TYPE_CHECKING:
    from model.codec.audio_vae import AudioVAE

ENDS_ONE_IN = 256
"""One clip in so many ends its unit."""


class FailedClip(TypedDict):
    """A clip that could not be encoded, and why."""

    clip_id: str
    shard: str
    detail: str


@dataclass(frozen=True, slots=True)
class EncodeUnit:
    """Clips in the index's order."""

    unit_id: str
    clips: tuple[StoredClip, ...]

    @property
    def seconds(self) -> float:
        return sum(clip.duration for clip in self.clips)


def plan_units(clips: Sequence[StoredClip], space: str, patch_size: int, config: EncodeConfig) -> list[EncodeUnit]:
    """All units of a dataset, whether done or not; the same clips give the same units."""
    groups: list[list[StoredClip]] = [[]]
    length = 0.0
    for clip in clips:
        if groups[-1] and length + clip.duration > config.unit_seconds:
            groups.append([])
            length = 0.0
        groups[-1].append(clip)
        length += clip.duration
        if int(str(clip.sha256)[:8], 16) % ENDS_ONE_IN == 0:
            groups.append([])
            length = 0.0
    return [_unit(group, space, patch_size, config.batch_seconds) for group in groups if group]


def _unit(clips: list[StoredClip], space: str, patch_size: int, batch_seconds: float) -> EncodeUnit:
    content = [[clip.clip_id, clip.sha256] for clip in clips]
    return EncodeUnit(fingerprint([space, patch_size, batch_seconds, content])[:24], tuple(clips))


def tar_name(unit_id: str) -> str:
    return f"latents/latents-{unit_id}.tar"


def result_path(dataset: Path, unit_id: str) -> Path:
    """Where a finished unit lists its content; it is written after the tar, so a unit that has it is done."""
    return dataset / "work" / "latents" / f"{unit_id}.json"


def encode_unit(unit: EncodeUnit, dataset: Dataset, vae: "AudioVAE", *, patch_size: int, batch_seconds: float) -> None:
    """Writes the unit's tar and then its result: a row a clip, and every clip that could not be encoded, with why.

    Raises:
        OSError: a clip shard cannot be read, or the tar cannot be written.
    """
    audio: dict[str, Samples] = {}
    failed: list[FailedClip] = []
    for clip in unit.clips:
        try:
            audio[clip.clip_id] = resample(*dataset.audio(clip), vae.config.sample_rate)
        except AudioProblem as problem:
            failed.append({"clip_id": clip.clip_id, "shard": clip.shard, "detail": problem.detail})
    content: dict[str, tuple[bytes, int]] = {}
    lengths = {name: len(samples_T) for name, samples_T in audio.items()}
    for names in batches(lengths, batch_seconds * vae.config.sample_rate):
        content |= _encode([audio[name] for name in names], names, vae, patch_size)
    rows = []
    with TarWriter(dataset.path / tar_name(unit.unit_id)) as tar:
        for clip in unit.clips:
            if clip.clip_id in content:
                latent, num_frames = content[clip.clip_id]
                member = tar.add(f"{clip.clip_id}.safetensors", latent)
                rows.append([clip.clip_id, member.offset, member.size, member.sha256, num_frames])
    write_atomically(result_path(dataset.path, unit.unit_id), to_json({"rows": rows, "failed": failed}))


def batches(lengths: dict[str, int], budget: float) -> Iterator[list[str]]:
    """Names from short to long, as many together as fit into `budget` samples after padding; at least one."""
    batch: list[str] = []
    for name in sorted(lengths, key=lambda name: (lengths[name], name)):
        if batch and (len(batch) + 1) * lengths[name] > budget:
            yield batch
            batch = []
        batch.append(name)
    if batch:
        yield batch


def _encode(audio: list[Samples], names: list[str], vae: "AudioVAE", patch_size: int) -> dict[str, tuple[bytes, int]]:
    """(content, frames) by name. The encoder is causal: zeros after a clip's end change nothing before it."""
    import torch
    import torch.nn.functional as F

    patch = patch_size * vae.hop
    frames = [-(-len(samples) // patch) * patch_size for samples in audio]
    padded_BT = torch.stack(
        [F.pad(torch.from_numpy(samples), (0, max(frames) * vae.hop - len(samples))) for samples in audio]
    )
    with torch.no_grad():
        latents_BDL = vae.encode(padded_BT.to(vae.device)).cpu()
    return {
        name: (latent_bytes(latents_BDL[row, :, :count].T), count)
        for row, (name, count) in enumerate(zip(names, frames, strict=True))
    }


def collect(units: Sequence[EncodeUnit], dataset: Path, space: str) -> tuple[list[Latent], list[FailedClip]]:
    """Rows of `latents.parquet` in the dataset's order, and the clips that could not be encoded."""
    rows: list[Latent] = []
    failed: list[FailedClip] = []
    for unit in units:
        result = json.loads(result_path(dataset, unit.unit_id).read_bytes())
        failed += result["failed"]
        for clip_id, offset, size, sha256, num_frames in result["rows"]:
            rows.append(
                Latent(
                    clip_id=clip_id,
                    shard=tar_name(unit.unit_id),
                    offset=offset,
                    size=size,
                    sha256=sha256,
                    num_frames=num_frames,
                    latent_space=space,
                )
            )
    return rows, failed
