"""Clips by a whole diarization pipeline of pyannote.audio in place of its segmentation network alone.

The network tells speakers apart within ten seconds; a pipeline compares their voices too, so that a speaker of a window
is one and the same all through it. Its turns are cut into clips by the same rules.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from annotation.audio.segmentation import RATE, Segmentation, SegmentationConfig, cut
from voxmill.core.errors import UserError, first_line

FRAME_SECONDS = 0.01


class DiarizationSegmenter:
    """Speech regions, overlap and speakers of 16 kHz audio by a pyannote pipeline.

    Args:
        pipeline: folder with a `config.yaml`, that file, or a hub id.

    Raises:
        UserError: it cannot be loaded, or is no diarization pipeline.
    """

    def __init__(self, config: SegmentationConfig, pipeline: str | Path, device: str = "cpu"):
        os.environ.setdefault("PYANNOTE_METRICS_ENABLED", "0")
        import torch
        from pyannote.audio import Pipeline

        try:
            loaded: Any = Pipeline.from_pretrained(str(pipeline))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
            raise _not_loaded(pipeline, first_line(error)) from error
        if loaded is None:
            # It has printed a page about it.
            raise _not_loaded(pipeline, "it is not there, or its conditions have to be accepted on its hub page")
        self.config = config
        self._name, self._pipeline = pipeline, loaded.to(torch.device(device))

    def __call__(self, recordings: Sequence[np.ndarray]) -> list[Segmentation]:
        """Cuts recordings, each float32 [samples] at 16 kHz, one after another."""
        return [cut(self.activity(audio), FRAME_SECONDS, len(audio) / RATE, self.config) for audio in recordings]

    def activity(self, audio: np.ndarray) -> np.ndarray:
        """Speaker activity, bool [frames, speakers], speakers in the order of their names."""
        import torch

        waveform = torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))[None]
        output = self._pipeline({"waveform": waveform, "sample_rate": RATE})
        # Pipelines of version 3 and less give the turns alone.
        turns = getattr(output, "speaker_diarization", output)
        if not hasattr(turns, "itertracks"):
            raise UserError(
                f"segmentation.pipeline={self._name}: gives no speakers' turns; name a diarization pipeline"
            )
        speakers = {label: number for number, label in enumerate(sorted(turns.labels(), key=str))}
        active_FS = np.zeros(
            (max(int(np.ceil(len(audio) / RATE / FRAME_SECONDS)), 1), max(len(speakers), 1)), dtype=bool
        )
        for turn, _, label in turns.itertracks(yield_label=True):
            first, last = round(turn.start / FRAME_SECONDS), round(turn.end / FRAME_SECONDS)
            active_FS[max(first, 0) : last, speakers[label]] = True
        return active_FS


def _not_loaded(pipeline: str | Path, reason: str) -> UserError:
    return UserError(
        f"segmentation.pipeline={pipeline}: pyannote.audio cannot load it ({reason[:200]}); name a folder or "
        "hub id, and set HF_TOKEN where the hub asks for it"
    )
