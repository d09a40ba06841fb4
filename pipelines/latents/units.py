"""What one row of `encode`'s graph is: clips whose latents go into one tar, named by what they are made of.

A unit ends where its length says so or where a clip's own hash does, so a clip that joins or leaves the dataset changes
the units near it and no others. Free of Ray.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from voxmill.core.audio import AudioProblem, check, decode_flac
from voxmill.core.config import Config
from voxmill.core.files import write_atomically
from voxmill.core.hashing import fingerprint, sha256_bytes
from voxmill.data.shards import TarWriter, latent_bytes, read_member, to_json

if TYPE_CHECKING:
    import numpy as np

    from model.codec.audio_vae import AudioVAE

ENDS_ONE_IN = 256
"""One clip in so many ends its unit."""


class EncodeConfig(Config):
    """The recipe of `encode`; seconds are of audio. The first two decide what goes into which file."""

    unit_seconds: float = Field(3600.0, gt=0)
    """Seconds of audio in a latent shard at most; an hour is 11.5 MB."""
    batch_seconds: float = Field(120.0, gt=0)
    """Seconds of padded audio that the encoder gets at once."""
    replace: bool = Field(False)
    """Encode again with another AudioVAE; the old latents are removed."""
    workers: int | None = Field(None, ge=1)
    """Replicas of the encoder; null: one for each GPU, or else for each CPU."""
    threads: int = Field(1, ge=1)
    """CPU threads of each replica."""
    progress: bool = True
    """Show progress bars."""


@dataclass(frozen=True)
class Source:
    """A clip to be encoded: its place in the clip shards."""

    clip_id: str
    shard: str
    offset: int
    size: int
    sha256: str
    duration: float


@dataclass(frozen=True)
class EncodeUnit:
    """Clips in the index's order."""

    unit_id: str
    clips: list[Source]

    @property
    def seconds(self) -> float:
        return sum(clip.duration for clip in self.clips)

    def to_json(self) -> str:
        return json.dumps({"unit_id": self.unit_id, "clips": [asdict(clip) for clip in self.clips]})

    @classmethod
    def from_json(cls, text: str) -> "EncodeUnit":
        values = json.loads(text)
        return cls(values["unit_id"], [Source(**clip) for clip in values["clips"]])


def plan_units(clips: Sequence[Source], space: str, patch_size: int, config: EncodeConfig) -> list[EncodeUnit]:
    """All units of a dataset, whether done or not; the same clips give the same units."""
    groups: list[list[Source]] = [[]]
    length = 0.0
    for clip in clips:
        if groups[-1] and length + clip.duration > config.unit_seconds:
            groups.append([])
            length = 0.0
        groups[-1].append(clip)
        length += clip.duration
        if int(clip.sha256[:8], 16) % ENDS_ONE_IN == 0:
            groups.append([])
            length = 0.0
    return [_unit(group, space, patch_size, config.batch_seconds) for group in groups if group]


def _unit(clips: list[Source], space: str, patch_size: int, batch_seconds: float) -> EncodeUnit:
    content = [[clip.clip_id, clip.sha256] for clip in clips]
    return EncodeUnit(fingerprint([space, patch_size, batch_seconds, content])[:24], clips)


def tar_name(unit_id: str) -> str:
    return f"latents/latents-{unit_id}.tar"


def result_path(dataset: Path, unit_id: str) -> Path:
    """Where a finished unit says what it holds; it is written after the tar, so a unit that has it is done."""
    return dataset / "work" / "latents" / f"{unit_id}.json"


def encode_unit(unit: EncodeUnit, dataset: Path, vae: "AudioVAE", *, patch_size: int, batch_seconds: float) -> None:
    """Writes the unit's tar and then its result: a row a clip, and every clip that could not be encoded, with why.

    Raises:
        OSError: a clip shard cannot be read, or the tar cannot be written.
    """
    heard: dict[str, np.ndarray] = {}
    failed = []
    for clip in unit.clips:
        try:
            heard[clip.clip_id] = _decode(clip, dataset, vae.config.sample_rate)
        except AudioProblem as problem:
            failed.append({"clip_id": clip.clip_id, "shard": clip.shard, "detail": problem.detail})
    content: dict[str, tuple[bytes, int]] = {}
    for names in batches({name: len(audio) for name, audio in heard.items()}, batch_seconds * vae.config.sample_rate):
        content |= _encode([heard[name] for name in names], names, vae, patch_size)
    rows = []
    with TarWriter(dataset / tar_name(unit.unit_id)) as tar:
        for clip in unit.clips:
            if clip.clip_id in content:
                latent, num_frames = content[clip.clip_id]
                member = tar.add(f"{clip.clip_id}.safetensors", latent)
                rows.append([clip.clip_id, member.offset, member.size, member.sha256, num_frames])
    write_atomically(result_path(dataset, unit.unit_id), to_json({"rows": rows, "failed": failed}))


def _decode(clip: Source, dataset: Path, rate: int) -> "np.ndarray":
    """A clip as float32 [samples] at `rate`. Raises AudioProblem for other content than the index names."""
    from model.generation.prompt_audio import to_rate

    content = read_member(dataset, clip.shard, clip.offset, clip.size)
    if sha256_bytes(content) != clip.sha256:
        raise AudioProblem("changed", "its bytes are not those that clips.parquet names")
    samples_T, clip_rate = decode_flac(content)
    check(samples_T, clip_rate, min_seconds=1 / clip_rate, silent_peak=0)
    return to_rate(samples_T, clip_rate, rate=rate)


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


def _encode(
    audio: list["np.ndarray"], names: list[str], vae: "AudioVAE", patch_size: int
) -> dict[str, tuple[bytes, int]]:
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


def gather(units: Sequence[EncodeUnit], dataset: Path, space: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of `latents.parquet` in the dataset's order, and the clips that could not be encoded."""
    rows: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for unit in units:
        result = json.loads(result_path(dataset, unit.unit_id).read_bytes())
        failed += result["failed"]
        for clip_id, offset, size, sha256, num_frames in result["rows"]:
            rows.append(
                {
                    "clip_id": clip_id,
                    "shard": tar_name(unit.unit_id),
                    "offset": offset,
                    "size": size,
                    "sha256": sha256,
                    "num_frames": num_frames,
                    "latent_space": space,
                }
            )
    return rows, failed
