"""The recogniser that a recipe names, loaded."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from annotation.speech.recognisers.config import EMBEDDED, RecogniserConfig, recogniser_name
from annotation.speech.recognisers.pieces import PieceRecogniser
from annotation.speech.transcription import Transcript, TranscriptionConfig
from annotation.speech.whisper import Heard, WhisperRecogniser
from voxmill.core.assets import asset_path
from voxmill.core.errors import UserError
from voxmill.core.local_copies import local_model
from voxmill.data.languages import base_language, to_whisper


def load_recogniser(
    config: RecogniserConfig, of_all: TranscriptionConfig, device: str, threads: int
) -> PieceRecogniser | WhisperRecogniser:
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
    own = of_all.model_copy(update={"model": config.model, "prompt": config.prompt})
    return WhisperRecogniser(own, _whisper_place(config.model), device, threads)


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


@dataclass(frozen=True, slots=True)
class Writer:
    """A recogniser beside the Whisper that tells languages, and how clips name it."""

    name: str
    recogniser: PieceRecogniser | WhisperRecogniser

    def transcribe(
        self, told_by: WhisperRecogniser, heard: Sequence[Heard], languages: Sequence[str]
    ) -> list[Transcript]:
        """Transcripts of clips in our codes of their languages, which `told_by` has told."""
        if isinstance(self.recogniser, WhisperRecogniser):
            clips = [np.concatenate([piece.audio for piece in clip.pieces]) for clip in heard]
            codes = [_code(self.recogniser, language) for language in languages]
            transcripts = self.recogniser.transcribe(self.recogniser.listen(clips), codes)
        else:
            transcripts = told_by.transcribe_by(self.recogniser, heard, languages)
        return [replace(one, recogniser=self.name) for one in transcripts]


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
        for code, named in self._by_language.items():
            if named is not None and isinstance(named.recogniser, WhisperRecogniser):
                _code(named.recogniser, code)

    def of(self, language: str) -> Writer | None:
        """The writer of a language or dialect; None: the recogniser that tells languages."""
        for code in (language, base_language(language)):
            if code in self._by_language:
                return self._by_language[code]
        return self._default


def _code(whisper: WhisperRecogniser, language: str) -> str:
    code = to_whisper(language, whisper.languages)
    if code is None:
        raise UserError(
            f"transcription.by_language.{language}: {whisper.config.model} does not know it; name another model"
        )
    return code


def _whisper_place(model: str) -> str:
    return str(asset_path(EMBEDDED)) if model == "embedded" else local_model(model)
