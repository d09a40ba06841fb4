"""Transcripts of a system's speech: Whisper by CTranslate2, or Paraformer for Chinese.

Whisper decodes as the official scripts do: greedily, over 30 s of input, once, without timestamps and without anything
that keeps it from repeating itself. What repairs a transcript for annotation would repair a system's errors here. One
clip at a time: in a batch Whisper's answer depends on the neighbours' lengths, and a score must not. Audio over 30 s is
cut at its quietest moments and transcribed whole, where the official scripts transcribe the first 30 s.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from pydantic import Field

from voxmill.core.assets import asset_path, asset_sha256
from voxmill.core.config import Config
from voxmill.core.errors import UserError
from voxmill.core.hashing import sha256_file
from voxmill.core.local_copies import local_model
from voxmill.data.languages import base_language, to_whisper
from voxmill.data.scripts import joined

if TYPE_CHECKING:
    from faster_whisper.tokenizer import Tokenizer


class RecognitionConfig(Config):
    """`model`: embedded (Whisper base), a folder of a CTranslate2 Whisper model or a hub id such as `large-v3`.

    `chinese`: `paraformer` transcribes Chinese by FunASR (`pip install voxmill[funasr]`), as the official scorers do.
    """

    model: str = "embedded"
    """`embedded` (Whisper base), or a CTranslate2 Whisper folder or hub id such as `large-v3`."""
    compute_type: str = "int8"
    """Number format of CTranslate2, such as int8, float16 or float32."""
    beam_size: int = Field(1, ge=1)
    """Beams of the decoder; 1 is greedy, as the official scripts decode."""
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
    beams = "" if config.beam_size == 1 else f", {config.beam_size} beams"
    name = f"Whisper {'base (embedded)' if embedded else config.model}{beams}"
    return ModelName(name, f"whisper:{digest}:{config.compute_type}:beam{config.beam_size}:plain")


class Recogniser(Protocol):
    """Texts from audio."""

    def __call__(self, samples: np.ndarray, language: str) -> str:
        """The transcript of float32 [T] at 16 kHz; `language` as in `voxmill.data.languages`."""


class Whisper:
    """The weights of annotation's transcriber without its repairs: no crop of the input, no second decoding."""

    def __init__(self, config: RecognitionConfig, device: str = "cpu", threads: int = 1):
        from annotation.speech.cropped_whisper import CroppedWhisper

        place = str(asset_path("whisper-base")) if config.model == "embedded" else local_model(config.model)
        self._weights = CroppedWhisper(place, config.compute_type, device, threads)
        self._beam_size = config.beam_size
        self._tokenizers: dict[str, Tokenizer] = {}

    def __call__(self, samples: np.ndarray, language: str) -> str:
        from annotation.speech.cropped_whisper import FULL_SECONDS
        from annotation.speech.whisper import piece_bounds

        pieces = [samples[start:end] for start, end in piece_bounds(samples)]
        encoded = [self._weights.encode([piece], FULL_SECONDS) for piece in pieces]
        known = self._weights.languages
        code = to_whisper(language, known)
        if code is None:
            # For a language that this Whisper does not know it chooses one itself.
            probabilities_NL = [self._weights.language_probabilities(own_BFD)[0] for own_BFD in encoded]
            weights = [len(piece) for piece in pieces]
            code = known[int(np.argmax(np.average(probabilities_NL, axis=0, weights=weights)))]
        return joined(self._decode(own_BFD, code) for own_BFD in encoded)

    def _decode(self, encoded_BFD: np.ndarray, code: str) -> str:
        """The text of one encoded piece."""
        from ctranslate2 import StorageView
        from faster_whisper.tokenizer import Tokenizer
        from faster_whisper.transcribe import get_suppressed_tokens

        whisper = self._weights.model
        if code not in self._tokenizers:
            self._tokenizers[code] = Tokenizer(
                whisper.hf_tokenizer, whisper.model.is_multilingual, task="transcribe", language=code
            )
        tokenizer = self._tokenizers[code]
        (result,) = whisper.model.generate(
            StorageView.from_array(np.ascontiguousarray(encoded_BFD, dtype=np.float32)),
            [whisper.get_prompt(tokenizer, [], without_timestamps=True)],
            beam_size=self._beam_size,
            length_penalty=1,
            max_length=whisper.max_length,
            suppress_tokens=get_suppressed_tokens(tokenizer, [-1]),
            sampling_temperature=0.0,
        )
        return str(tokenizer.decode([token for token in result.sequences_ids[0] if token < tokenizer.eot])).strip()


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
