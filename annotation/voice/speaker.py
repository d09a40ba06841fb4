"""Speaker embeddings: one unit vector a clip, whose cosine measures how alike two voices are.

Embedded is CAM++ (Wang et al. 2023, arXiv:2303.00332; released weights of 3D-Speaker, Apache-2.0): 80 mel bands in,
192 numbers out. The network below is written from the paper and the names of the released tensors. Its last layer is
linear, as in 3D-Speaker; the carrier's own class puts a ReLU there, which throws half of the vector away (equal error
8.2 % for 2.6 % on the sample voices) and moves the strangers' cosines up by 0.24. Production names an x-vector model by
hub id or path (WavLM-SV and the like), loaded by transformers' `AutoModelForAudioXVector`, or the path of other CAM++
weights (`*.pt`, `*.bin`). What a cosine of 0.7 means differs between encoders: see `benchmarks/speakers.py`. For the
embedded one, on the sample voices, it lets no stranger in, and with a recording's own clips four of five pairs pass.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from annotation.voice.audio_classifier import excerpts
from voxmill.core.config import Config
from voxmill.core.errors import UserError
from voxmill.core.local_copies import local_model
from voxmill.data.records import Label

if TYPE_CHECKING:
    from torch import Tensor

RATE = 16000


class SpeakerConfig(Config):
    """Which encoder, and how much of a clip it takes.

    `batch_size` 1 gives the same bits whatever else is in the call; more is for GPUs. A clip shorter than
    `min_seconds` has no embedding, of one longer than `max_seconds` the middle counts.
    """

    model: str = "embedded"
    """`embedded` (CAM++), CAM++ weights by path, or an x-vector model of transformers by path or hub id."""
    min_seconds: float = 0.5
    """A shorter clip has no speaker vector."""
    max_seconds: float = 12.0
    """Of a longer clip the middle this many seconds are used, of one three times as long those of its thirds."""
    batch_size: int = 1
    """Clips embedded together; 1 gives the same bits whatever else is in the call, more is for GPUs."""


class Backend(Protocol):
    """A network as `SpeakerEncoder` runs it."""

    def __call__(self, waves: list[np.ndarray]) -> "Tensor":
        """Embeddings [B,D] of waves of one length, float32 [samples] at 16 kHz."""


class _CamBackend:
    def __init__(self, path: Path, device: str):
        from annotation.voice.campplus import CamPlusPlus

        self.device = device
        self.network = CamPlusPlus.load(path).to(device)

    def __call__(self, waves: list[np.ndarray]) -> "Tensor":
        import torch

        from annotation.voice.campplus import log_mel

        embeddings_BD: Tensor = self.network(torch.stack([log_mel(wave) for wave in waves]).to(self.device))
        return embeddings_BD


class _XVectorBackend:
    """Any x-vector model of transformers, by hub id or path."""

    def __init__(self, model: str, device: str):
        from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

        self.device, place = device, local_model(model)
        try:
            extractors: Any = AutoFeatureExtractor
            self.extract = extractors.from_pretrained(place)
            self.network: Any = AutoModelForAudioXVector.from_pretrained(place)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"speaker.model={model}: transformers cannot load it as an x-vector model ({reason})"
            ) from error
        self.network.to(device).eval()

    def __call__(self, waves: list[np.ndarray]) -> "Tensor":
        inputs = self.extract(waves, sampling_rate=RATE, return_tensors="pt").to(self.device)
        embeddings_BD: Tensor = self.network(**inputs).embeddings
        return embeddings_BD


class SpeakerEncoder:
    """One voice vector a clip.

    Args:
        config: `config.model` is `embedded`, a CAM++ weight file, or a transformers x-vector model's hub id or path.
        weights: folder of the asset `speaker-campplus` (unused otherwise).
        backend: a network that is loaded already, in place of `config.model`.

    Raises:
        UserError: the model cannot be loaded.
    """

    def __init__(
        self, config: SpeakerConfig, weights: Path | None = None, device: str = "cpu", backend: Backend | None = None
    ):
        import torch

        self.config = config
        self._backend: Backend
        if backend is not None:
            self._backend = backend
        elif config.model == "embedded":
            assert weights is not None
            self._backend = _CamBackend(weights / "campplus_cn_en_common.pt", device)
        elif Path(config.model).suffix in (".pt", ".bin", ".pth"):
            self._backend = _CamBackend(Path(local_model(config.model)), device)
        else:
            self._backend = _XVectorBackend(config.model, device)
        with torch.inference_mode():
            self.size = int(self._backend([np.zeros(RATE, dtype=np.float32)]).shape[1])

    def __call__(self, clips: list[np.ndarray]) -> list[Label[np.ndarray]]:
        """Embeds clips, float32 [samples] at 16 kHz in -1..1: unit vectors, float32 [D], in the same order.

        Reasons of an abstention: `too_short`, `silent`.
        With `batch_size` above 1, lengths are rounded down to whole 0.5 s so that clips can share a batch.
        """
        import torch
        import torch.nn.functional as F

        results: list[Label[np.ndarray]] = [Label(reason="too_short")] * len(clips)
        by_length: dict[int, list[int]] = {}
        waves: dict[int, np.ndarray] = {}
        for index, clip in enumerate(clips):
            wave = self._middle(clip)
            if len(wave) < self.config.min_seconds * RATE or len(wave) < 400:
                continue
            if float(np.abs(wave).max()) < 1e-4:
                results[index] = Label(reason="silent")
                continue
            waves[index] = wave
            by_length.setdefault(len(wave), []).append(index)
        for indices in by_length.values():
            for first in range(0, len(indices), self.config.batch_size):
                batch = indices[first : first + self.config.batch_size]
                with torch.inference_mode():
                    vectors = F.normalize(self._backend([waves[i] for i in batch]).float(), dim=1).cpu().numpy()
                for index, vector in zip(batch, vectors, strict=True):
                    results[index] = Label(value=vector)
        return results

    def of_thirds(self, clips: list[np.ndarray]) -> list[Label[np.ndarray]]:
        """The same with clips that are much longer than what is embedded at once: the mean of their thirds."""
        parts = [excerpts(clip, self.config.max_seconds) for clip in clips]
        parts = [own if len(own) > 1 else [clip] for own, clip in zip(parts, clips, strict=True)]
        labels = iter(self([part for own in parts for part in own]))
        return [_mean([next(labels) for _ in own]) for own in parts]

    def _middle(self, clip: np.ndarray) -> np.ndarray:
        length = min(len(clip), round(self.config.max_seconds * RATE))
        if self.config.batch_size > 1 and length > RATE // 2:
            length -= length % (RATE // 2)
        start = (len(clip) - length) // 2
        return clip[start : start + length]


def _mean(labels: list[Label[np.ndarray]]) -> Label[np.ndarray]:
    """The mean of the vectors of a clip's parts, of length one; the first part's label where there is one or none."""
    vectors = [label.value for label in labels if label.value is not None]
    if len(labels) == 1 or not vectors:
        return labels[0]
    total = np.sum(vectors, axis=0)
    return Label(value=total / np.linalg.norm(total))
