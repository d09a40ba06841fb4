"""The audio of a dataset's clips, decoded into memory."""

from pathlib import Path

import torch
from torch import Tensor

from voxmill.core.audio import resample
from voxmill.data.dataset import Dataset


def audio_by_clip(dataset: Path, rate: int) -> dict[str, Tensor]:
    """All clips at `rate` hertz, [T] fp32, by `clip_id`."""
    source = Dataset.open(dataset)
    return {clip.clip_id: torch.from_numpy(resample(*source.audio(clip), rate)) for clip in source.clips()}
