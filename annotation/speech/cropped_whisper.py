"""Whisper without most of the padding: its encoder runs over 30 s however short a clip is.

Clips are 2 to 30 s long and mostly short, so three quarters of the encoder's work would be done on silence. A piece is
cropped to its own length and a margin, rounded up to a few sizes, and what is computed together has one size: so the
text of a clip depends on no other. The encoder runs once over a piece, for its language and its text. docs/log.md has
what other margins did to word error rates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ctranslate2 import DataType, StorageView
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens, merge_punctuations

from annotation.speech.recognisers.pieces import TimedWord
from voxmill.core.errors import UserError

RATE = 16000
# Whisper knows the end of speech by what is behind it: at 2 s and less of it words are lost and invented.
MARGIN_SECONDS = 5.0
SIZES_SECONDS = (10.0, 12.5, 15.0, 20.0, 30.0)
"""The encoder's inputs. CTranslate2 has been seen to corrupt memory at 2 s; nothing went wrong from 4 s on."""
FULL_SECONDS = SIZES_SECONDS[-1]
# To tell a language no silence is needed behind the speech (`docs/log.md`).
LANGUAGE_MARGIN_SECONDS = 0.5
LANGUAGE_SIZES_SECONDS = (4.0, 5.0, 6.0, 7.5, *SIZES_SECONDS)
FRAMES_PER_SECOND, FULL_FRAMES = 100, 3000
ENCODED_FRAMES_PER_SECOND = 50
# The encoder's attention grows with the square of the frames: over eight clips of 30 s it takes 0.6 GB in every
# worker, and two at a time are as fast on a core.
CPU_BATCH_SQUARES = 2 * FULL_FRAMES**2
# Punctuation that belongs to the word behind it, and before it.
PREPENDED, APPENDED = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"


def padded_seconds(seconds: float) -> float:
    """Seconds of the encoder's input for a piece of this length; `FULL_SECONDS` for all that is longer."""
    return next((size for size in SIZES_SECONDS if size >= seconds + MARGIN_SECONDS), FULL_SECONDS)


def language_seconds(seconds: float) -> float:
    """The same for a piece of which only the language is asked."""
    return next((size for size in LANGUAGE_SIZES_SECONDS if size >= seconds + LANGUAGE_MARGIN_SECONDS), FULL_SECONDS)


def cpu_parts(num: int, seconds: float, device: str) -> list[slice]:
    """`num` pieces of this padded length as they are computed: on a CPU few at a time, to save memory."""
    frames = round(seconds * FRAMES_PER_SECOND)
    size = max(CPU_BATCH_SQUARES // frames**2, 1) if device == "cpu" else num
    return [slice(first, first + size) for first in range(0, num, size)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """One piece of at most 30 s as Whisper decoded it."""

    text: str
    words: tuple[TimedWord, ...]
    mean_log_probability: float
    no_speech_probability: float


class CroppedWhisper:
    """A CTranslate2 Whisper model over batches of pieces of one padded length.

    Args:
        model: folder of the model or a hub id.
        threads: CPU threads.
        prompt: text before each piece, of which its last 223 tokens count.
    """

    def __init__(
        self, model: str | Path, compute_type: str, device: str, threads: int, prompt: str | None = None
    ) -> None:
        self._prompt = prompt
        try:
            self.model = WhisperModel(
                str(model), device=device, compute_type=compute_type, cpu_threads=threads, num_workers=1
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(f"transcription.model={model}: faster-whisper cannot load it ({error})") from error
        # faster-whisper lists those of large-v3 for every model.
        self.languages = tuple(
            code
            for code in self.model.supported_languages
            if not self.model.model.is_multilingual or self.model.hf_tokenizer.token_to_id(f"<|{code}|>") is not None
        )
        self._tokenizers: dict[str, Tokenizer] = {}

    def encode(self, pieces: Sequence[np.ndarray], seconds: float) -> np.ndarray:
        """The encoder's output [batch, 50 * seconds, D] over pieces [samples] padded to `seconds`."""
        frames = round(seconds * FRAMES_PER_SECOND)
        # Silence, as Whisper was trained with; faster-whisper's batches fill features with zeros, which are loud, and
        # words before them were lost.
        samples = round(seconds * RATE)
        features = np.stack(
            [
                self.model.feature_extractor(np.pad(piece, (0, max(samples - len(piece), 0))))[..., :frames]
                for piece in pieces
            ]
        )
        parts = (
            self.model.model.encode(_storage(features[part]), to_cpu=True)
            for part in cpu_parts(len(pieces), seconds, self.model.model.device)
        )
        return np.concatenate([_array(part) for part in parts])

    def language_probabilities(self, encoded: np.ndarray) -> np.ndarray:
        """Probabilities [batch, languages] by the audio alone, in the order of `languages`."""
        if not self.model.model.is_multilingual:
            return np.ones((len(encoded), 1), dtype=np.float32)
        rankings = [
            {token.strip("<|>"): probability for token, probability in ranking}
            for ranking in self.model.model.detect_language(_storage(encoded))
        ]
        return np.array([[ranking[code] for code in self.languages] for ranking in rankings], dtype=np.float32)

    def decode(self, encoded: np.ndarray, seconds: Sequence[float], language: str, beam_size: int) -> list[Decoded]:
        """Text and words of encoded pieces [batch, frames, D] of one language.

        Args:
            seconds: of each piece, without its padding.
        """
        tokenizer = self._tokenizer(language)
        padded = encoded.shape[1] / ENCODED_FRAMES_PER_SECOND
        decoded: list[Decoded] = []
        for part in cpu_parts(len(encoded), padded, self.model.model.device):
            decoded += self._decode_part(_storage(encoded[part]), seconds[part], tokenizer, beam_size)
        return decoded

    def _decode_part(
        self, encoded: StorageView, seconds: Sequence[float], tokenizer: Tokenizer, beam_size: int
    ) -> list[Decoded]:
        results = self.model.model.generate(
            encoded,
            [self.model.get_prompt(tokenizer, self._before(tokenizer), without_timestamps=True)] * len(seconds),
            beam_size=beam_size,
            length_penalty=1,
            max_length=self.model.max_length,
            suppress_tokens=get_suppressed_tokens(tokenizer, [-1]),
            return_scores=True,
            return_no_speech_prob=True,
            sampling_temperature=0.0,
        )
        tokens = [[token for token in result.sequences_ids[0] if token < tokenizer.eot] for result in results]
        decoded = []
        for result, own, words in zip(results, tokens, self._words(encoded, seconds, tokens, tokenizer), strict=True):
            # The score is the mean over the tokens without the end of the text, which counts too.
            num = len(result.sequences_ids[0])
            decoded.append(
                Decoded(
                    text=tokenizer.decode(own).strip(),
                    words=words,
                    mean_log_probability=float(result.scores[0] * num / (num + 1)),
                    no_speech_probability=float(result.no_speech_prob),
                )
            )
        return decoded

    def align(
        self, encoded: np.ndarray, seconds: Sequence[float], texts: Sequence[str], language: str
    ) -> list[tuple[TimedWord, ...]]:
        """Words of texts that are said in encoded pieces [batch, frames, D] of one language, as this model places them.

        None of a text that is longer than the decoder. What `probability` says is this model's mind on the text.
        """
        tokenizer = self._tokenizer(language)
        tokens = [tokenizer.encode(" " + text) if text else [] for text in texts]
        tokens = [own if len(own) <= self.model.max_length // 2 else [] for own in tokens]
        padded = encoded.shape[1] / ENCODED_FRAMES_PER_SECOND
        words: list[tuple[TimedWord, ...]] = []
        for part in cpu_parts(len(encoded), padded, self.model.model.device):
            words += self._words(_storage(encoded[part]), seconds[part], tokens[part], tokenizer)
        return words

    def _words(
        self, encoded: StorageView, seconds: Sequence[float], tokens: Sequence[list[int]], tokenizer: Tokenizer
    ) -> list[tuple[TimedWord, ...]]:
        """The words of these tokens by cross-attention, with the punctuation beside them."""
        frames = [int(np.ceil(length * FRAMES_PER_SECOND)) for length in seconds]
        alignments = self.model.find_alignment(tokenizer, list(tokens), encoded, frames)
        for alignment in alignments:
            merge_punctuations(alignment, PREPENDED, APPENDED)
        return [
            tuple(
                TimedWord(
                    word=word["word"], start=word["start"], end=word["end"], probability=float(word["probability"])
                )
                for word in alignment
                if word["word"]
            )
            for alignment in alignments
        ]

    def _before(self, tokenizer: Tokenizer) -> list[int]:
        return tokenizer.encode(" " + self._prompt.strip()) if self._prompt else []

    def _tokenizer(self, language: str) -> Tokenizer:
        if language not in self._tokenizers:
            multilingual = self.model.model.is_multilingual
            self._tokenizers[language] = Tokenizer(
                self.model.hf_tokenizer, multilingual, task="transcribe", language=language
            )
        return self._tokenizers[language]


def _array(view: StorageView) -> np.ndarray:
    """A copy; half precision stays that, to save memory."""
    values = np.array(view.to(DataType.float32))
    return values.astype(np.float16) if view.dtype == DataType.float16 else values


def _storage(values: np.ndarray) -> StorageView:
    return StorageView.from_array(np.ascontiguousarray(values, dtype=np.float32))
