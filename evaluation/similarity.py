"""SIM: the cosine of a clip's and its reference's speaker embeddings (report 4.1).

The report's numbers come from WavLM-large with an ECAPA-TDNN head; the embedded encoder is CAM++, whose cosines are other
numbers. `encoder_name` says which one it was and stands beside every score; compare only what has the same one.
"""

import hashlib
from functools import cache
from pathlib import Path

import numpy as np

from annotation.speaker import SpeakerConfig, SpeakerEncoder
from evaluation.speech_recognition import ModelName
from voxmill.weights import asset_path, asset_sha256


def encoder_name(config: SpeakerConfig) -> ModelName:
    """Which encoder a configuration names; loads nothing."""
    embedded = config.model == "embedded"
    digest = asset_sha256("speaker-campplus") if embedded else _digest(Path(config.model))
    name = "CAM++ (embedded)" if embedded else config.model
    return ModelName(name, f"speaker:{digest}:{config.min_seconds}:{config.max_seconds}:1")


class Similarity:
    """Cosines between clips.

    Args:
        config: `config.model` is `embedded`, a CAM++ weight file (3D-Speaker), or an x-vector model of transformers by
            path or hub id (WavLM and the like).
    """

    def __init__(self, config: SpeakerConfig, device: str = "cpu"):
        embedded = config.model == "embedded"
        self._encoder = SpeakerEncoder(config, asset_path("speaker-campplus") if embedded else None, device)
        self._references: dict[str, np.ndarray | None] = {}

    def __call__(self, samples: np.ndarray, reference: np.ndarray, reference_hash: str) -> float | None:
        """Cosine in -1..1 of two clips, float32 [T] at 16 kHz; None where one is too short or silent to have a voice.

        `reference_hash` names the reference, which is embedded once.
        """
        if reference_hash not in self._references:
            self._references[reference_hash] = self._embed(reference)
        voice, own = self._references[reference_hash], self._embed(samples)
        return None if voice is None or own is None else float(np.dot(voice, own))

    def _embed(self, samples: np.ndarray) -> np.ndarray | None:
        found = self._encoder([samples])[0]
        return None if found.reason else found.vector


@cache
def _digest(path: Path) -> str:
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    weights = sorted([*path.glob("*.safetensors"), *path.glob("*.bin")]) if path.is_dir() else []
    if not weights:
        return f"hub:{path}"
    digest = hashlib.sha256()
    for file_path in weights:
        digest.update(file_path.read_bytes())
    return digest.hexdigest()
