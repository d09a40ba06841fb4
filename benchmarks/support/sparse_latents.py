"""A dataset of many clips whose latents are in place for some of them: the other bytes of its shards are holes.

What plans or reads as one rank of many meets the index of all clips, and the latents of its own.
"""

import json
import random
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from samples.turns import sample_texts
from voxmill.core.hashing import sha256_bytes
from voxmill.data.records import MODES
from voxmill.data.schemas import CLIPS, LATENTS, write_index
from voxmill.data.shards import latent_bytes

CHANNELS, FRAMES_A_SECOND, PATCH = 64, 25, 4
WORDS_A_SECOND = 2.7
CLIPS_A_SHARD = 450
REFERENCES = 5
LANGUAGES = ("en", "zh", "de", "fr", "es", "ja")
HEADER = 512
"""Bytes before each member of a tar."""


class SparseLatents:
    """`clips.parquet`, `latents.parquet` and shards of `count` clips in `folder`.

    Args:
        median: seconds of a clip; a twelfth is over three times as long.
    """

    def __init__(self, folder: Path, count: int, seed: int, median: float) -> None:
        self.folder, self._count = folder, count
        lengths = np.random.default_rng(seed).lognormal(np.log(median), 0.8, count).clip(1.0, 120.0)
        self._frames = (np.round(lengths * FRAMES_A_SECOND / PATCH).astype(int) * PATCH).tolist()
        self._pool_LD = torch.randn(
            max(self._frames) + count, CHANNELS, generator=torch.Generator().manual_seed(seed)
        ).to(torch.bfloat16)
        self._sums = ["0" * 64] * count
        self._places: list[tuple[str, int, int]] = []
        offset = 0
        for number, frames in enumerate(self._frames):
            if number % CLIPS_A_SHARD == 0:
                offset = 0
            size = _size(frames)
            self._places.append((f"latents/latents-{number // CLIPS_A_SHARD:06d}.tar", offset + HEADER, size))
            offset += HEADER + -(-size // HEADER) * HEADER
        self._write_clips(seed)
        self._write_latents()
        (folder / "latents.json").write_text(json.dumps({"latent_space": "random", "patch_size": PATCH}))

    def put(self, clips: Iterable[int]) -> int:
        """Puts the latents of these clips in their places; returns their bytes."""
        written = 0
        (self.folder / "latents").mkdir(exist_ok=True)
        for clip in sorted(clips):
            shard, offset, size = self._places[clip]
            content = latent_bytes(self._latent(clip))
            assert len(content) == size
            path = self.folder / shard
            path.touch()
            with open(path, "r+b") as file:
                file.seek(offset)
                file.write(content)
            self._sums[clip] = sha256_bytes(content)
            written += size
        self._write_latents()
        return written

    def _latent(self, clip: int) -> Tensor:
        return self._pool_LD[clip : clip + self._frames[clip]]

    def _write_latents(self) -> None:
        rows = [
            {
                "clip_id": f"c{number:08d}",
                "shard": shard,
                "offset": offset,
                "size": size,
                "sha256": self._sums[number],
                "num_frames": self._frames[number],
                "latent_space": "random",
            }
            for number, (shard, offset, size) in enumerate(self._places)
        ]
        write_index(self.folder / "latents.parquet", LATENTS, rows)

    def _write_clips(self, seed: int) -> None:
        choose, words = random.Random(seed), " ".join(sample_texts()).split()
        rows: list[dict[str, object]] = []
        for number, frames in enumerate(self._frames):
            seconds = frames / FRAMES_A_SECOND
            near = range(max(number - 20, 0), min(number + 20, self._count))
            rows.append(
                {
                    "clip_id": f"c{number:08d}",
                    "session": f"s{number // 40}",
                    "duration": seconds,
                    "text": " ".join(choose.choices(words, k=max(round(seconds * WORDS_A_SECOND), 1))),
                    "language": LANGUAGES[number // 1000 % len(LANGUAGES)],
                    "origin": "native",
                    "references": [
                        {"clip_id": f"c{other:08d}", "similarity": 0.8}
                        for other in choose.sample(near, min(REFERENCES, len(near)))
                        if other != number
                    ],
                    "descriptions": [
                        _description(axis, " ".join(choose.choices(words, k=12))) for axis in ("design", "style")
                    ],
                    "modes": list(MODES),
                    "stage_modes": [{"stage": 2, "modes": list(MODES)}],
                }
            )
        write_index(self.folder / "clips.parquet", CLIPS, rows)


@cache
def _size(frames: int) -> int:
    return len(latent_bytes(torch.zeros(frames, CHANNELS)))


def _description(axis: str, text: str) -> dict[str, object]:
    return {"axis": axis, "text": text, "granularity": "phrase", "verdicts": []}
