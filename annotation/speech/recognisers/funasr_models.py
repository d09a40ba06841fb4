"""SenseVoice and Paraformer by FunASR, whose own code loads and runs them.

They tell no probabilities. Paraformer's versions with time stamps and SenseVoice place their words; SenseVoice knows
five languages, and clips in others get no text.
"""

import contextlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from annotation.speech.recognisers.config import FunasrConfig
from annotation.speech.recognisers.pieces import PieceText, TimedWord
from voxmill.core.errors import UserError
from voxmill.core.local_copies import local_model
from voxmill.data.languages import base_language

SENSE_VOICE_LANGUAGES = {"zh": "zh", "zh-yue": "yue", "en": "en", "ja": "ja", "ko": "ko"}
"""Our codes, and SenseVoice's own."""
_TAG = re.compile(r"<\|[^|<>]*\|>")
_WIDE = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3000-\u303f\uff00-\uff65"
_SPACE = re.compile(rf"(?<=[{_WIDE}])\s+|\s+(?=[{_WIDE}])")


class FunasrRecogniser:
    """A model of FunASR over pieces, one at a time, so that no text depends on what is beside it.

    Args:
        model: folder, URI, or a name that FunASR or the hub knows, such as `paraformer-zh` or `iic/SenseVoiceSmall`.

    Raises:
        UserError: FunASR is not installed, or it cannot load the model whole.
    """

    def __init__(self, model: str, config: FunasrConfig, device: str = "cpu", threads: int = 1):
        try:
            from funasr import AutoModel
        except ImportError:
            raise UserError("transcription.backend=funasr needs FunASR; run: pip install 'voxmill[funasr]'") from None
        said = io.StringIO()
        try:
            # It prints what it cannot load, and goes on with weights drawn at random.
            with contextlib.redirect_stdout(said):
                self._model: Any = AutoModel(
                    model=local_model(model),
                    punc_model=None if config.punctuation is None else local_model(config.punctuation),
                    hub=config.hub,
                    device=device,
                    ncpu=threads,
                    disable_update=True,
                    disable_pbar=True,
                    disable_log=True,
                    check_latest=False,
                    ignore_init_mismatch=False,
                )
        except (OSError, RuntimeError, ValueError, KeyError, AssertionError, TypeError, ImportError) as error:
            raise _not_loaded(model, _last_line(said.getvalue()) or _last_line(str(error))) from error
        parts = [self._model.kwargs] + ([self._model.punc_kwargs] if config.punctuation is not None else [])
        for part in parts:
            weights = part.get("init_param")
            if not weights or not Path(weights).exists():
                raise _not_loaded(model, f"{part.get('model_path')} has no model.pt")
        missing = [line for line in said.getvalue().splitlines() if "miss key in ckpt" in line]
        if missing:
            raise _not_loaded(model, f"its weights lack {len(missing)} tensors, such as {missing[0].split(': ')[-1]}")
        self._is_sense_voice = "SenseVoice" in type(self._model.model).__name__
        self.aligner = "sensevoice ctc" if self._is_sense_voice else "paraformer"

    def __call__(self, pieces: Sequence[np.ndarray], languages: Sequence[str]) -> list[PieceText]:
        return [self._text(piece, language) for piece, language in zip(pieces, languages, strict=True)]

    def _text(self, piece: np.ndarray, language: str) -> PieceText:
        options: dict[str, object] = {"return_raw_text": True}
        if self._is_sense_voice:
            code = SENSE_VOICE_LANGUAGES.get(language) or SENSE_VOICE_LANGUAGES.get(base_language(language))
            if code is None:
                return PieceText(text="", words=())
            options = {"language": code, "use_itn": True, "output_timestamp": True}
        try:
            said = self._generate(piece, options)
        except (IndexError, RuntimeError):
            if not self._is_sense_voice:
                raise
            # FunASR loses count of the tokens of some texts when it places them (its issues 2333 and 2637).
            said = self._generate(piece, {**options, "output_timestamp": False})
        return piece_text(said, len(piece) / 16000)

    def _generate(self, piece: np.ndarray, options: dict[str, object]) -> dict[str, Any]:
        import torch

        with torch.random.fork_rng():
            # Its features are of the sound and a little noise.
            torch.manual_seed(0)
            said = self._model.generate(input=piece, **options)
        return said[0] if said else {"text": ""}


def piece_text(said: dict[str, Any], seconds: float) -> PieceText:
    """What FunASR answers, without its tags and the spaces between characters.

    Args:
        said: `text`, and of models with time stamps `timestamp` in milliseconds and `words`, or `raw_text` of as many
            words before it was punctuated.
    """
    text = _SPACE.sub("", " ".join(_TAG.sub(" ", str(said.get("text", ""))).split()))
    if not text:
        return PieceText(text="", words=())
    bounds = said.get("timestamp")
    names = said.get("words") or str(said.get("raw_text") or said.get("text", "")).split()
    if not bounds or len(bounds) != len(names):
        return PieceText(text=text)
    words: list[TimedWord] = []
    for name, (start, end) in zip(names, bounds, strict=True):
        first = min(max(float(start) / 1000, words[-1].start if words else 0.0), seconds)
        words.append(TimedWord(word=str(name), start=first, end=min(max(float(end) / 1000, first), seconds)))
    return PieceText(text=text, words=tuple(words))


def _not_loaded(model: str, reason: str) -> UserError:
    return UserError(
        f"transcription.model={model}: FunASR cannot load it ({reason[:200]}); see transcription.funasr.hub"
    )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
