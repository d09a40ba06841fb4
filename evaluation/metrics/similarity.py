"""SIM: the cosine of a clip's and its reference's speaker embeddings (report 4.1).

The report's numbers come from WavLM-large with an ECAPA-TDNN head (Seed-TTS-Eval) and ERes2Net (CV3-Eval), whose files
a user names; the embedded encoder is CAM++, whose cosines are other numbers. The name of the encoder stands beside
every score: compare only scores of the same one.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from annotation.voice.campplus import log_mel
from annotation.voice.speaker import Backend, SpeakerConfig, SpeakerEncoder
from evaluation.metrics.speech_recognition import ModelName
from voxmill.core.assets import asset_path, asset_sha256
from voxmill.core.config import Config
from voxmill.core.errors import UserError
from voxmill.core.hashing import sha256_file
from voxmill.core.local_copies import local_model

PUBLISHED = {"wavlm": "WavLM-large SV", "eres2net": "ERes2Net"}
"""Encoders of the official scorers, by the kind that `--sim KIND=PATH` names."""
LONGEST = {"speaker": 12.0, "wavlm": 60.0, "eres2net": 60.0}
"""Seconds of a clip that are embedded, its middle. The official scorers embed all; attention over more needs too much
memory."""


class SimilarityConfig(Config):
    """Which encoder measures SIM; `--sim KIND=PATH` sets `encoder` and `model`.

    `encoder`: wavlm or eres2net with the published weight file as `model`; speaker with `model` as the annotation job's
    encoder has it (embedded, CAM++ weights, or an x-vector model of transformers by path or hub id).
    """

    encoder: Literal["speaker", "wavlm", "eres2net"] = "speaker"
    """Speaker encoder of SIM: the annotation job's, or a published one."""
    model: str = "embedded"
    """Weights of the encoder; `embedded` for the annotation job's."""
    min_seconds: float = Field(0.5, gt=0)
    """A shorter clip has no SIM."""
    max_seconds: float | None = Field(None, gt=0)
    """Of a longer clip the middle this many seconds are used; null: 12, of published encoders 60."""

    @property
    def embedded_seconds(self) -> float:
        """Seconds of a clip that are embedded at most."""
        return LONGEST[self.encoder] if self.max_seconds is None else self.max_seconds


def read_sim(named: str) -> SimilarityConfig:
    """The encoder of `--sim KIND=PATH`.

    Raises:
        UserError: no such kind, or no path.
    """
    kind, equals, path = named.partition("=")
    if kind not in PUBLISHED or not path:
        raise UserError(f"--sim {named!r}: write KIND=PATH with KIND one of {', '.join(PUBLISHED)} and its weight file")
    return SimilarityConfig(encoder="wavlm" if kind == "wavlm" else "eres2net", model=path)


def encoder_name(config: SimilarityConfig) -> ModelName:
    """Which encoder a configuration names; loads nothing.

    Raises:
        UserError: the weight file is not there.
    """
    rest = f"{config.min_seconds}:{config.embedded_seconds}:1"
    if config.encoder != "speaker":
        path = Path(local_model(config.model))
        if not path.is_file():
            raise UserError(f"--sim {config.encoder}={config.model}: no such file; name the weights of the encoder")
        digest = weights_digest(config.model)
        name = f"{PUBLISHED[config.encoder]} ({path.name}, sha256 {digest[:12]})"
        return ModelName(name, f"{config.encoder}:{digest}:{rest}")
    embedded = config.model == "embedded"
    digest = asset_sha256("speaker-campplus") if embedded else weights_digest(config.model)
    name = "CAM++ (embedded)" if embedded else config.model
    return ModelName(name, f"speaker:{digest}:{rest}")


class Similarity:
    """Cosines between clips.

    Raises:
        UserError: the weights cannot be read or are another model's.
    """

    def __init__(self, config: SimilarityConfig, device: str = "cpu"):
        embedded = config.encoder == "speaker" and config.model == "embedded"
        speaker = SpeakerConfig(model=config.model, min_seconds=config.min_seconds, max_seconds=config.embedded_seconds)
        weights = asset_path("speaker-campplus") if embedded else None
        self._encoder = SpeakerEncoder(speaker, weights, device, _published(config, device))
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
        return self._encoder([samples])[0].value


def _published(config: SimilarityConfig, device: str) -> Backend | None:
    """The network of an official scorer with its features; None for the encoders of the annotation job."""
    path = Path(local_model(config.model))
    if config.encoder == "wavlm":
        from evaluation.metrics.encoders.wavlm_speaker import WavLMSpeaker

        wavlm = WavLMSpeaker.load(path).to(device)
        return lambda waves: wavlm(torch.from_numpy(np.stack(waves)).to(device))
    if config.encoder == "eres2net":
        from evaluation.metrics.encoders.eres2net import ERes2Net

        eres2net = ERes2Net.load(path).to(device)
        return lambda waves: eres2net(torch.stack([log_mel(wave) for wave in waves]).to(device))
    return None


@cache
def weights_digest(model: str) -> str:
    """sha256 (hex) of a model's weights by its file or folder; of a hub id its name, as nothing is loaded."""
    path = Path(local_model(model))
    if path.is_file():
        return sha256_file(path)
    weights = (
        sorted(file for kind in ("safetensors", "bin", "pt") for file in path.glob(f"*.{kind}"))
        if path.is_dir()
        else []
    )
    if not weights:
        return f"hub:{path}"
    digest = hashlib.sha256()
    for file_path in weights:
        digest.update(file_path.read_bytes())
    return digest.hexdigest()
