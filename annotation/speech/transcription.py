"""Transcripts with word times: what is configured, and what a recogniser gives.

Whisper's word times come from its cross-attention (DTW); `word_edges` moves them out of pauses, and `letter_times`
aligns the letters of a window. Other aligners (`aligners/`) place words anew. Every clip's `aligner` says which it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from annotation.speech.recognisers.config import RecogniserConfig
from annotation.speech.text_checks import compression_ratio, normalise, repeated_ngram, text_language
from voxmill.core.errors import UserError
from voxmill.data.languages import language_code
from voxmill.data.records import TranscriptChecks, Word

RATE = 16000
CHUNK_SECONDS = 30.0
ATTENTION = "none (whisper cross-attention, pauses cut)"
"""What `aligner` says of words that Whisper alone has placed."""


class TranscriptionConfig(RecogniserConfig):
    """What is decoded how.

    `transcribe_from`: what is decoded where a recording was separated. Whisper knows music better than what separation
    leaves of a voice (`docs/truth.md`).
    """

    renamed: ClassVar[dict[str, str]] = {"hear": "transcribe_from", "batch_size": "batch_seconds"}

    by_language: dict[str, RecogniserConfig] = {}
    """Recognisers of single languages or dialects, such as `zh: {backend: funasr, model: paraformer-zh}`."""
    language_id_model: str = "embedded"
    """Of another backend: the Whisper that tells languages and places words, `embedded` or for faster-whisper."""
    compute_type: str = "int8"
    """Number format of CTranslate2, such as int8, float16 or float32."""
    beam_size: int = 2
    """Beams of the decoder."""
    batch_seconds: float = Field(120.0, gt=0)
    """Seconds of padded audio decoded together, at least one piece; not given, 960 where there are GPUs."""
    language: str | None = None
    """Code of the language of all recordings; null detects it in each."""
    transcribe_from: Literal["original", "separated"] = "original"
    """Where a recording was separated, decode the original audio or the separated voice."""
    redecode_below: float = -0.8
    """A piece with a lower mean log probability is decoded again, over the whole 30 s and with more beams."""
    redecode_compression: float = 2.4
    """A piece whose text has a higher zlib compression ratio is decoded again, likewise."""

    @field_validator("by_language")
    @classmethod
    def _names_languages(cls, given: dict[str, RecogniserConfig]) -> dict[str, RecogniserConfig]:
        named = {}
        for name, config in given.items():
            try:
                code = language_code(name)
            except UserError as error:
                raise ValueError(str(error)) from None
            if code is None or code in named:
                raise ValueError(f"{name!r} is not one language, or one that is named twice")
            named[code] = config
        return named


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """Text of one clip; log probability is the mean over tokens, and None where the recogniser tells none.

    redecoded_for: why it was decoded twice: `doubt`, `cut_short`, `language`. agreement: of both decodings, 0..1.
    seconds_after_words: of sound, behind the last word as the recogniser placed it.
    """

    text: str
    words: tuple[Word, ...] = ()
    mean_log_probability: float | None = None
    no_speech_probability: float | None = None
    redecoded_for: tuple[str, ...] = ()
    agreement: float | None = None
    seconds_after_words: float = 0.0
    aligner: str = ATTENTION
    recogniser: str = ""

    def check(self, language: str, seconds: float) -> TranscriptChecks:
        """Measures of the transcript of a clip of this language code and length."""
        text_code, probability = text_language(self.text)
        return TranscriptChecks(
            compression_ratio=compression_ratio(self.text),
            repeated_ngram=repeated_ngram(self.text, language),
            characters_per_second=len(normalise(self.text).replace(" ", "")) / max(seconds, 1e-3),
            text_language=text_code,
            text_language_probability=probability,
            mean_log_probability=self.mean_log_probability,
            no_speech_probability=self.no_speech_probability,
            redecoded=bool(self.redecoded_for),
            aligner=self.aligner,
            recogniser=self.recogniser,
            redecoded_for="+".join(self.redecoded_for),
            agreement=self.agreement,
            seconds_after_words=self.seconds_after_words,
        )


def clamp_words(words: Sequence[Word], speech_start: float, speech_end: float) -> list[Word]:
    """Words moved inside the clip's speech, in order and never of negative length."""
    result: list[Word] = []
    floor = speech_start
    for word in words:
        start = float(np.clip(word.start, floor, speech_end))
        end = float(np.clip(word.end, start, speech_end))
        result.append(Word(word.word.strip(), start, end, word.probability))
        floor = start
    return [word for word in result if word.word]
