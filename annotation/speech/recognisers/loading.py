"""The recogniser that a recipe names, loaded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annotation.speech.recognisers.config import EMBEDDED, RecogniserConfig, recogniser_name
from annotation.speech.recognisers.pieces import PieceRecogniser, PieceText, TimedWord
from annotation.speech.transcription import TranscriptionConfig
from annotation.speech.whisper import WhisperRecogniser
from voxmill.core.assets import asset_path
from voxmill.core.errors import UserError
from voxmill.core.local_copies import local_model
from voxmill.data.languages import base_language, to_whisper


def load_recogniser(
    config: RecogniserConfig, of_all: TranscriptionConfig, device: str, threads: int
) -> PieceRecogniser:
    """The recogniser of `config`; what faster-whisper and batches are to be like says `of_all`.

    Raises:
        UserError: it cannot be loaded.
    """
    if config.backend == "transformers":
        from annotation.speech.recognisers.transformers_pipeline import TransformersRecogniser

        return TransformersRecogniser(
            config.model,
            config.prompt,
            device,
            beam_size=of_all.beam_size,
            batch_seconds=of_all.batch_seconds,
            threads=threads,
        )
    if config.backend == "funasr":
        from annotation.speech.recognisers.funasr_models import FunasrRecogniser

        return FunasrRecogniser(config.model, config.funasr, device, threads)
    if config.backend == "endpoint":
        from annotation.speech.recognisers.endpoint import EndpointRecogniser

        return EndpointRecogniser(config.endpoint, config.model, config.prompt)
    return AnotherWhisper(config, of_all, device, threads)


def load_whisper(config: TranscriptionConfig, device: str, threads: int) -> WhisperRecogniser:
    """The Whisper that tells languages and, where it is the recogniser, writes the text.

    Raises:
        UserError: it cannot be loaded.
    """
    is_recogniser = config.backend == "faster-whisper"
    model = config.model if is_recogniser else config.language_id_model
    # A prompt is the recogniser's: this one decodes only where languages are near.
    own = config if is_recogniser else config.model_copy(update={"prompt": None})
    return WhisperRecogniser(own, _whisper_place(model), device, threads)


class AnotherWhisper:
    """A second Whisper model of faster-whisper, for some languages; decodes again as the first one does."""

    aligner = "whisper cross-attention"

    def __init__(self, config: RecogniserConfig, of_all: TranscriptionConfig, device: str, threads: int):
        own = of_all.model_copy(update={"model": config.model, "prompt": config.prompt})
        self._name = config.model
        self._whisper = WhisperRecogniser(own, _whisper_place(config.model), device, threads)

    def __call__(self, pieces: Sequence[np.ndarray], languages: Sequence[str]) -> list[PieceText]:
        known = [to_whisper(language, self._whisper.languages) for language in languages]
        if None in known:
            raise UserError(
                f"transcription.model={self._name} knows no {languages[known.index(None)]}; "
                "see transcription.by_language"
            )
        codes = [code for code in known if code is not None]
        said = self._whisper.transcribe(self._whisper.listen(pieces), codes)
        return [
            PieceText(
                text=one.text,
                words=tuple(
                    TimedWord(word=word.word, start=word.start, end=word.end, probability=word.probability)
                    for word in one.words
                ),
                mean_log_probability=one.mean_log_probability,
                no_speech_probability=one.no_speech_probability,
            )
            for one in said
        ]


@dataclass(frozen=True, slots=True)
class Writer:
    """A recogniser beside the one that tells languages, and how clips name it."""

    name: str
    recogniser: PieceRecogniser


class Writers:
    """Which recogniser writes the text of which language, where it is not the one that tells languages.

    Raises:
        UserError: one cannot be loaded.
    """

    def __init__(self, config: TranscriptionConfig, device: str, threads: int) -> None:
        own = RecogniserConfig(**{key: getattr(config, key) for key in RecogniserConfig.model_fields})
        known: dict[str, Writer | None] = {}
        if config.backend == "faster-whisper":
            known[own.model_dump_json()] = None
        for wanted in (own, *config.by_language.values()):
            if wanted.model_dump_json() not in known:
                writer = Writer(recogniser_name(wanted), load_recogniser(wanted, config, device, threads))
                known[wanted.model_dump_json()] = writer
        self.all = [writer for writer in known.values() if writer is not None]
        self._default = known[own.model_dump_json()]
        self._by_language = {code: known[wanted.model_dump_json()] for code, wanted in config.by_language.items()}

    def of(self, language: str) -> Writer | None:
        """The writer of a language or dialect; None: the recogniser that tells languages."""
        for code in (language, base_language(language)):
            if code in self._by_language:
                return self._by_language[code]
        return self._default


def _whisper_place(model: str) -> str:
    return str(asset_path(EMBEDDED)) if model == "embedded" else local_model(model)
