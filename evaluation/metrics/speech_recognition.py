"""Transcripts of a system's speech: Whisper through faster-whisper, or Paraformer for Chinese.

One clip at a time: in a batch Whisper's answer depends on the neighbours' lengths, and a score must not. Audio over
30 s is cut at its quietest moments and transcribed whole, where the official scripts transcribe the first 30 s.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from voxmill.core.assets import asset_path, asset_sha256
from voxmill.core.config import Config
from voxmill.core.errors import UserError
from voxmill.core.hashing import sha256_file
from voxmill.core.local_copies import local_model
from voxmill.data.languages import base_language


class RecognitionConfig(Config):
    """`model`: embedded (Whisper base), a folder of a CTranslate2 Whisper model or a hub id such as `large-v3`.

    `chinese`: `paraformer` transcribes Chinese by FunASR (`pip install voxmill[funasr]`), as the official scorers do.
    """

    model: str = "embedded"
    """`embedded` (Whisper base), or a CTranslate2 Whisper folder or hub id such as `large-v3`."""
    compute_type: str = "int8"
    """Number format of CTranslate2, such as int8, float16 or float32."""
    beam_size: int = 5
    """Beams of the decoder."""
    chinese: Literal["whisper", "paraformer"] = "whisper"
    """Recogniser of Chinese; `paraformer` is the official one and needs `voxmill[funasr]`."""


@dataclass(frozen=True)
class ModelName:
    """`name` is for people, `identity` for cache keys: the weights' checksum and how they are used."""

    name: str
    identity: str


def recogniser_name(config: RecognitionConfig, language: str) -> ModelName:
    """Which recogniser transcribes a language; loads no model, but a hub id is downloaded for its checksum.

    Raises:
        UserError: the model is no folder of CTranslate2 weights and cannot be fetched.
    """
    if config.chinese == "paraformer" and base_language(language) == "zh":
        return ModelName("paraformer-zh (FunASR)", "paraformer-zh:1")
    embedded = config.model == "embedded"
    digest = asset_sha256("whisper-base") if embedded else _digest(config.model)
    name = f"Whisper {'base (embedded)' if embedded else config.model}"
    return ModelName(name, f"whisper:{digest}:{config.compute_type}:beam{config.beam_size}:1")


class Recogniser(Protocol):
    """Texts from audio."""

    def __call__(self, samples: np.ndarray, language: str) -> str:
        """The transcript of float32 [T] at 16 kHz; `language` as in `voxmill.data.languages`."""


WHISPER_CODES = {"zh-yue": "yue"}


class Whisper:
    """faster-whisper, greedy in temperature, with the repository's own second decoding where in doubt."""

    def __init__(self, config: RecognitionConfig, device: str = "cpu", threads: int = 1):
        from annotation.speech.transcription import TranscriptionConfig
        from annotation.speech.whisper import WhisperRecogniser

        place = str(asset_path("whisper-base")) if config.model == "embedded" else local_model(config.model)
        # One piece at a time: in a batch the text of one depends on the others' lengths.
        decoding = TranscriptionConfig(
            model=config.model, compute_type=config.compute_type, beam_size=config.beam_size, batch_seconds=1.0
        )
        self._recogniser = WhisperRecogniser(decoding, place, device, threads)

    def __call__(self, samples: np.ndarray, language: str) -> str:
        code = WHISPER_CODES.get(language, base_language(language))
        # For a language that this Whisper does not know it chooses one itself.
        heard = self._recogniser.listen([samples])
        known = self._recogniser.languages
        if code not in known:
            code = known[int(np.argmax(heard[0].probabilities))]
        return self._recogniser.transcribe(heard, [code])[0].text


class Paraformer:
    """FunASR's paraformer-zh, what the official Chinese scores were made with. Not run by this project's own tests."""

    def __init__(self, device: str = "cpu"):
        try:
            from funasr import AutoModel
        except ImportError:
            raise UserError(
                "recognition.chinese=paraformer needs FunASR; run: pip install voxmill[funasr], or use whisper"
            ) from None
        self._model: Any = AutoModel(model="paraformer-zh", device=device, disable_update=True)

    def __call__(self, samples: np.ndarray, language: str) -> str:
        return str(self._model.generate(input=samples, batch_size_s=300)[0]["text"])


class Recognition:
    """The recogniser of each language."""

    def __init__(self, config: RecognitionConfig, device: str = "cpu", threads: int = 1):
        self._whisper = Whisper(config, device, threads)
        self._chinese = Paraformer(device) if config.chinese == "paraformer" else None

    def of(self, language: str) -> Recogniser:
        """The recogniser of this language."""
        return self._chinese if self._chinese and base_language(language) == "zh" else self._whisper


@cache
def _digest(model: str) -> str:
    """sha256 of a model folder's weights; a hub id is downloaded first, unless it is cached."""
    folder = Path(local_model(model))
    try:
        if not folder.is_dir():
            from faster_whisper.utils import download_model

            folder = Path(download_model(model))
        return sha256_file(folder / "model.bin")
    except (OSError, ValueError) as error:
        why = str(error).strip().splitlines()[0]
        raise UserError(
            f"recognition.model={model}: no CTranslate2 Whisper model there or on the hub ({why[:120]})"
        ) from None
