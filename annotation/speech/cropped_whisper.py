"""faster-whisper's batches without most of the padding: its encoder runs over 30 s however short the clips are.

Clips are 2 to 30 s long and mostly short, so three quarters of the encoder's work would be done on silence. A batch is
cropped to its longest clip and a margin; docs/log.md has what other margins did to word error rates.
"""

from typing import Any

import numpy as np
from faster_whisper import BatchedInferencePipeline

# Whisper knows the end of speech by the silence behind it: at 2 s and less of it words are lost and invented.
MARGIN_SECONDS = 5.0
# CTranslate2 has been seen to corrupt memory at 2 s; nothing went wrong from 4 s on.
FLOOR_SECONDS = 10.0
FRAMES_PER_SECOND, FULL_FRAMES = 100, 3000
# The encoder's attention grows with the square of the frames: over eight clips of 30 s it takes 0.6 GB in every
# worker, and two at a time are as fast on a core.
CPU_BATCH_SQUARES = 2 * FULL_FRAMES**2


def kept_frames(seconds: float) -> int:
    """Mel frames of 10 ms, even because the encoder halves them, that a clip of this length needs."""
    wanted = max(seconds + MARGIN_SECONDS, FLOOR_SECONDS)
    return min(2 * round(wanted * FRAMES_PER_SECOND / 2), FULL_FRAMES)


def padded_seconds(seconds: float) -> float:
    """Seconds that a clip of this length takes of a batch whose longest it is."""
    return kept_frames(seconds) / FRAMES_PER_SECOND


def cpu_parts(features: np.ndarray, device: str) -> list[slice]:
    """A batch of features [batch, mels, frames] as it is computed: on a CPU few at a time, to save memory."""
    size = max(CPU_BATCH_SQUARES // features.shape[-1] ** 2, 1) if device == "cpu" else len(features)
    return [slice(first, first + size) for first in range(0, len(features), size)]


class CroppedPipeline(BatchedInferencePipeline):  # type: ignore[misc]
    """faster-whisper's batched pipeline, the features of every batch cropped; batch what is about equally long."""

    def forward(self, features: np.ndarray, tokenizer: Any, chunks_metadata: list[Any], options: Any) -> Any:
        """Cropped features [batch, mels, frames] take the usual way."""
        frames = kept_frames(max(chunk["duration"] for chunk in chunks_metadata))
        cropped = features[..., :frames]
        segments: list[Any] = []
        for part in cpu_parts(cropped, self.model.model.device):
            batch = np.ascontiguousarray(cropped[part])
            segments += super().forward(batch, tokenizer, chunks_metadata[part], options)
        return segments
