"""What one row of `encode`'s graph is: clips whose latents go into one tar, named by what they are made of.

A unit lies in one bucket of the dataset. It ends where its length says so or where a clip's own hash does, so a clip
that joins or leaves the dataset changes the units near it and no others. Free of Ray.
"""

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from pipelines.config import EncodeConfig
from voxmill.core.audio import AudioProblem, Samples, batches_by_length, resample
from voxmill.core.files import write_atomically
from voxmill.core.hashing import fingerprint
from voxmill.data.dataset import Dataset, StoredClip
from voxmill.data.layout import bucket_name
from voxmill.data.records import Latent
from voxmill.data.shards import TarWriter, latent_bytes, to_json

if TYPE_CHECKING:
    from model.codec.audio_vae import AudioVAE

ENDS_ONE_IN = 256
"""One clip in so many ends its unit."""
BATCHES_AHEAD = 2
"""Batches whose audio is decoded while another is encoded."""


class FailedClip(TypedDict):
    """A clip that could not be encoded, and why."""

    clip_id: str
    shard: str
    detail: str


@dataclass(frozen=True, slots=True)
class EncodeUnit:
    """Clips of one bucket, in the index's order."""

    unit_id: str
    bucket: int
    clips: tuple[StoredClip, ...]

    @property
    def seconds(self) -> float:
        return sum(clip.duration for clip in self.clips)


def plan_units(
    clips: Sequence[StoredClip], space: str, patch_size: int, config: EncodeConfig, bucket: int = 0
) -> list[EncodeUnit]:
    """All units of a bucket, whether done or not; the same clips give the same units."""
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
    return [_unit(group, bucket, space, patch_size, config.batch_seconds) for group in groups if group]


def _unit(clips: list[StoredClip], bucket: int, space: str, patch_size: int, batch_seconds: float) -> EncodeUnit:
    content = [[clip.clip_id, clip.sha256] for clip in clips]
    return EncodeUnit(fingerprint([space, patch_size, batch_seconds, content])[:24], bucket, tuple(clips))


def tar_name(unit: EncodeUnit) -> str:
    """The unit's latents, below the dataset."""
    return f"latents/{bucket_name(unit.bucket)}/latents-{unit.unit_id}.tar"


def results_folder(dataset: Path, bucket: int) -> Path:
    """Where the finished units of a bucket list their content."""
    return dataset / "work" / "latents" / bucket_name(bucket)


def result_path(dataset: Path, unit: EncodeUnit) -> Path:
    """Where a finished unit lists its content; it is written after the tar, so a unit that has it is done."""
    return results_folder(dataset, unit.bucket) / f"{unit.unit_id}.json"


def encode_unit(
    unit: EncodeUnit, dataset: Dataset, vae: "AudioVAE", *, patch_size: int, batch_seconds: float, threads: int = 1
) -> None:
    """Writes the unit's tar and then its result: a row a clip, and every clip that could not be encoded, with why.

    Batches depend on the unit alone. Only the audio of a few of them is held at once.

    Args:
        threads: that decode the next batches while one is encoded.

    Raises:
        OSError: a clip shard cannot be read, or the tar cannot be written.
    """
    rate = vae.config.sample_rate
    clips = {clip.clip_id: clip for clip in unit.clips}
    lengths = {name: round(clip.duration * rate) for name, clip in clips.items()}
    failed: dict[str, FailedClip] = {}
    content: dict[str, tuple[bytes, int]] = {}
    for decoded in _decoded(dataset, clips, list(batches_by_length(lengths, batch_seconds * rate)), rate, threads):
        audio = {}
        for name, samples_T in decoded.items():
            if isinstance(samples_T, AudioProblem):
                failed[name] = {"clip_id": name, "shard": clips[name].shard, "detail": samples_T.detail}
            else:
                audio[name] = samples_T
        if audio:
            content |= _encode(list(audio.values()), list(audio), vae, patch_size)
    rows = []
    with TarWriter(dataset.path / tar_name(unit)) as tar:
        for clip in unit.clips:
            if clip.clip_id in content:
                latent, num_frames = content[clip.clip_id]
                member = tar.add(f"{clip.clip_id}.safetensors", latent)
                rows.append([clip.clip_id, member.offset, member.size, member.sha256, num_frames])
    result = {"rows": rows, "failed": [failed[name] for name in clips if name in failed]}
    write_atomically(result_path(dataset.path, unit), to_json(result))


def _decoded(
    dataset: Dataset, clips: Mapping[str, StoredClip], batches: Sequence[list[str]], rate: int, threads: int
) -> Iterator[dict[str, Samples | AudioProblem]]:
    """Audio of every batch at `rate`, or why there is none; the batches after it are decoded meanwhile."""

    def decode(name: str) -> Samples | AudioProblem:
        try:
            return resample(*dataset.audio(clips[name]), rate)
        except AudioProblem as problem:
            return problem

    # libsndfile and soxr let go of the interpreter's lock while they work.
    pool = ThreadPoolExecutor(threads)
    try:
        waiting: deque[dict[str, Future[Samples | AudioProblem]]] = deque()
        for batch in batches:
            waiting.append({name: pool.submit(decode, name) for name in batch})
            if len(waiting) > BATCHES_AHEAD:
                yield {name: future.result() for name, future in waiting.popleft().items()}
        while waiting:
            yield {name: future.result() for name, future in waiting.popleft().items()}
    finally:
        pool.shutdown(cancel_futures=True)


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
        result = json.loads(result_path(dataset, unit).read_bytes())
        failed += result["failed"]
        for clip_id, offset, size, sha256, num_frames in result["rows"]:
            rows.append(
                Latent(
                    clip_id=clip_id,
                    shard=tar_name(unit),
                    offset=offset,
                    size=size,
                    sha256=sha256,
                    num_frames=num_frames,
                    latent_space=space,
                )
            )
    return rows, failed
