"""The sound of a dataset's clips, decoded into memory."""

import io
from pathlib import Path

import soundfile
import torch
from torch import Tensor

from model.generation.prompt_audio import to_rate
from pipelines.encode import read_clips
from voxmill.data.shards import read_member


def audio_by_clip(dataset: Path, rate: int) -> dict[str, Tensor]:
    """All clips at `rate` hertz, [T] fp32, by `clip_id`."""
    found = {}
    for clip in read_clips(dataset):
        content = read_member(dataset, clip.shard, clip.offset, clip.size)
        samples, found_rate = soundfile.read(io.BytesIO(content), dtype="float32")
        found[clip.clip_id] = torch.from_numpy(to_rate(samples, found_rate, rate=rate))
    return found
