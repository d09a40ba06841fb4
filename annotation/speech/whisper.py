"""The recogniser that is embedded: Whisper through faster-whisper, in batches of like lengths.

Apart from `transcription.py`, so that reading its configuration imports no model.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from annotation.speech.completeness import seconds_after_words, seems_cut_short
from annotation.speech.cropped_whisper import (
    ENCODED_FRAMES_PER_SECOND,
    FULL_SECONDS,
    CroppedWhisper,
    Decoded,
    language_seconds,
    padded_seconds,
)
from annotation.speech.recognisers.pieces import PieceRecogniser, PieceText
from annotation.speech.text_checks import agreement, compression_ratio
from annotation.speech.transcription import ATTENTION, CHUNK_SECONDS, RATE, Transcript, TranscriptionConfig
from voxmill.core.audio import batches_by_length
from voxmill.data.languages import to_whisper
from voxmill.data.records import Word
from voxmill.data.scripts import joined

LOOP = 2.4
"""Whisper's own sign of a loop, in zlib compression."""
MORE_BEAMS = 3
"""Of a second decoding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """At most 30 s of a clip: `start` in seconds of the clip, `encoded` [frames, D] with its padding."""

    start: float
    audio: np.ndarray
    encoded: np.ndarray

    @property
    def seconds(self) -> float:
        return len(self.audio) / RATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A clip as the recogniser took it in: the encoder runs once over it, for its language and its text.

    probabilities: [languages], in the order of the recogniser's `languages`, by the sound alone.
    """

    seconds: float
    probabilities: np.ndarray
    pieces: tuple[_Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Text:
    """The text of a piece that counts; `agreement` with the other where it was decoded twice."""

    decoded: Decoded | PieceText
    reasons: tuple[str, ...] = ()
    agreement: float | None = None


class WhisperRecogniser:
    """faster-whisper over batches of clips of like length.

    What is computed together depends on the clips of one call alone, and not on what was transcribed before.

    Args:
        model: folder of a CTranslate2 Whisper model or a hub id.
        threads: CPU threads of one worker.

    Raises:
        UserError: the model cannot be loaded.
    """

    def __init__(self, config: TranscriptionConfig, model: str | Path, device: str = "cpu", threads: int = 1):
        self.whisper = CroppedWhisper(model, config.compute_type, device, threads, config.prompt)
        self.languages = self.whisper.languages
        self.config = config
        self.again_seconds = 0.0
        """Time that second decodings have taken so far."""

    def listen(self, clips: Sequence[np.ndarray]) -> list[Heard]:
        """Encodes clips and tells their languages, clips of all lengths in few batches."""
        bounds = [(index, start, end) for index, clip in enumerate(clips) for start, end in piece_bounds(clip)]
        audio = [clips[index][start:end] for index, start, end in bounds]
        encoded: dict[int, np.ndarray] = {}
        probabilities: dict[int, np.ndarray] = {}
        for numbers, seconds in self._batches(audio):
            together_BFD = self.whisper.encode([audio[number] for number in numbers], seconds)
            encoded |= dict(zip(numbers, together_BFD, strict=True))
            probabilities |= dict(zip(numbers, self.whisper.language_probabilities(together_BFD), strict=True))
        pieces: list[list[_Piece]] = [[] for _ in clips]
        spoken: list[list[tuple[float, np.ndarray]]] = [[] for _ in clips]
        for number, (index, start, _) in enumerate(bounds):
            piece = _Piece(start=start / RATE, audio=audio[number], encoded=encoded[number])
            pieces[index].append(piece)
            spoken[index].append((piece.seconds, probabilities[number]))
        return [
            Heard(
                seconds=len(clip) / RATE,
                probabilities=np.average([own for _, own in told], axis=0, weights=[length for length, _ in told]),
                pieces=tuple(parts),
            )
            for clip, parts, told in zip(clips, pieces, spoken, strict=True)
        ]

    def language_probabilities(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities [clips, languages] of clips of at most 30 s, by the sound alone."""
        spoken_NL = np.zeros((len(clips), len(self.languages)), dtype=np.float32)
        for numbers, seconds in self._batches(clips, language_seconds):
            encoded_BFD = self.whisper.encode([clips[number] for number in numbers], seconds)
            spoken_NL[numbers] = self.whisper.language_probabilities(encoded_BFD)
        return spoken_NL

    def glance(self, heard: Heard, bounds: Sequence[tuple[int, int]]) -> np.ndarray:
        """Probabilities [ranges, languages] of sample ranges of a clip, from what it was encoded as.

        A twentieth of the time of `language_probabilities`, and less true: a range knows of the sound beside it.
        """
        encoded_FD = np.concatenate(
            [piece.encoded[: math.ceil(piece.seconds * ENCODED_FRAMES_PER_SECOND)] for piece in heard.pieces]
        )
        ranges = [[bound * ENCODED_FRAMES_PER_SECOND // RATE for bound in own] for own in bounds]
        return np.concatenate(
            [
                self.whisper.language_probabilities(encoded_FD[None, first : max(last, first + 1)])
                for first, last in ranges
            ]
        )

    def transcribe(self, heard: Sequence[Heard], languages: Sequence[str]) -> list[Transcript]:
        """Transcripts of clips in one language each, by Whisper's codes.

        A piece whose text is doubtful or seems to lack its end is decoded again over the whole 30 s and with more
        beams. The likelier text counts, or the longer one where an end was missing.
        """
        pieces = [piece for clip in heard for piece in clip.pieces]
        codes = [language for clip, language in zip(heard, languages, strict=True) for _ in clip.pieces]
        first = self._decode(pieces, codes)
        reasons = [self._doubts(*one) for one in zip(first, pieces, strict=True)]
        doubtful = [number for number, own in enumerate(reasons) if own]
        clock = time.perf_counter()
        again = self._decode(
            [pieces[number] for number in doubtful], [codes[number] for number in doubtful], again=True
        )
        self.again_seconds += time.perf_counter() - clock
        texts = [_Text(decoded=decoded) for decoded in first]
        for number, second in zip(doubtful, again, strict=True):
            texts[number] = _better(first[number], second, reasons[number], codes[number])
        told = iter(texts)
        return [_join(clip, [next(told) for _ in clip.pieces]) for clip in heard]

    def transcribe_by(
        self, recogniser: PieceRecogniser, heard: Sequence[Heard], languages: Sequence[str]
    ) -> list[Transcript]:
        """Transcripts of clips by another recogniser, in our codes of their languages.

        Words that it gives no times are placed by this one's cross-attention.
        """
        pieces = [piece for clip in heard for piece in clip.pieces]
        codes = [language for clip, language in zip(heard, languages, strict=True) for _ in clip.pieces]
        texts = recogniser([piece.audio for piece in pieces], codes)
        placed = iter(self._placed(texts, pieces, codes))
        result, told = [], iter(texts)
        for clip in heard:
            own = [(next(told), next(placed)) for _ in clip.pieces]
            transcript = _join(clip, [_Text(decoded=text) for _, text in own])
            is_timed = all(text.words is not None for text, _ in own)
            result.append(replace(transcript, aligner=recogniser.aligner if is_timed else ATTENTION))
        return result

    def _placed(self, texts: Sequence[PieceText], pieces: Sequence[_Piece], codes: Sequence[str]) -> list[PieceText]:
        """The same with word times."""
        placed = list(texts)
        known = [to_whisper(code, self.languages) for code in codes]
        without = {n: code for n, code in enumerate(known) if code is not None and texts[n].words is None}
        order = list(without)
        for numbers, language in self._batches_by_language(
            [pieces[number] for number in order], list(without.values()), padded_seconds
        ):
            own = [order[number] for number in numbers]
            words = self.whisper.align(
                np.stack([pieces[number].encoded for number in own]),
                [pieces[number].seconds for number in own],
                [texts[number].text for number in own],
                language,
            )
            for number, said in zip(own, words, strict=True):
                # How probable this model finds the words of another is no probability of that one's.
                placed[number] = replace(texts[number], words=tuple(replace(word, probability=None) for word in said))
        return placed

    def transcribe_batch(self, clips: Sequence[np.ndarray], language: str) -> list[Transcript]:
        """Transcripts of clips (float32 [samples] at 16 kHz, any length) that share a Whisper language code."""
        return self.transcribe(self.listen(clips), [language] * len(clips))

    def _doubts(self, decoded: Decoded, piece: _Piece) -> tuple[str, ...]:
        """Why a piece is to be decoded again."""
        doubtful = (
            decoded.mean_log_probability < self.config.redecode_below
            or compression_ratio(decoded.text) > self.config.redecode_compression
        )
        short = seems_cut_short(decoded.text, decoded.words, piece.audio)
        return tuple(name for name, applies in (("doubt", doubtful), ("cut_short", short)) if applies)

    def _decode(self, pieces: Sequence[_Piece], languages: Sequence[str], *, again: bool = False) -> list[Decoded]:
        """Texts of pieces; `again`: over the encoder's whole input and with more beams."""
        beams = self.config.beam_size + (MORE_BEAMS if again else 0)
        length: Callable[[float], float] = (lambda _: FULL_SECONDS) if again else padded_seconds
        decoded: dict[int, Decoded] = {}
        for numbers, language in self._batches_by_language(pieces, languages, length):
            own = [pieces[number] for number in numbers]
            encoded_BFD = np.stack(self._encoded(own) if again else [piece.encoded for piece in own])
            together = self.whisper.decode(encoded_BFD, [piece.seconds for piece in own], language, beams)
            decoded |= dict(zip(numbers, together, strict=True))
        return [decoded[number] for number in range(len(pieces))]

    def _encoded(self, pieces: Sequence[_Piece]) -> list[np.ndarray]:
        """The encoder's output over the whole 30 s, [frames, D] each; that of long pieces is there."""
        short = [piece.audio for piece in pieces if padded_seconds(piece.seconds) < FULL_SECONDS]
        anew = iter(self.whisper.encode(short, FULL_SECONDS) if short else ())
        return [next(anew) if padded_seconds(piece.seconds) < FULL_SECONDS else piece.encoded for piece in pieces]

    def _batches_by_language(
        self, pieces: Sequence[_Piece], languages: Sequence[str], length: Callable[[float], float]
    ) -> Iterator[tuple[list[int], str]]:
        """Numbers of pieces of one language and padded length, and that language."""
        for language in sorted(set(languages)):
            own = [number for number, code in enumerate(languages) if code == language]
            for batch, _ in self._batches([pieces[number].audio for number in own], length):
                yield [own[place] for place in batch], language

    def _batches(
        self, audio: Sequence[np.ndarray], length: Callable[[float], float] = padded_seconds
    ) -> Iterator[tuple[list[int], float]]:
        """Numbers of pieces that are padded to one length, from short to long, and that length in seconds.

        As many together as the configuration allows; `length` gives that of a piece of so many seconds.
        """
        lengths = [length(len(piece) / RATE) for piece in audio]
        for padded in sorted(set(lengths)):
            # All cost the same; the names put them in an order that is theirs alone.
            own = {(len(audio[number]), number, 0): own for number, own in enumerate(lengths) if own == padded}
            for batch in batches_by_length(own, self.config.batch_seconds):
                yield [number for _, number, _ in batch], padded


def _better(first: Decoded, second: Decoded, reasons: tuple[str, ...], language: str) -> _Text:
    """Which of two decodings counts."""
    chosen = first
    if compression_ratio(second.text) <= LOOP:
        longer = len(second.text) > len(first.text)
        likelier = second.mean_log_probability > first.mean_log_probability
        looped = compression_ratio(first.text) > LOOP
        chosen = second if looped or (longer if "cut_short" in reasons else likelier) else first
    return _Text(decoded=chosen, reasons=reasons, agreement=agreement(first.text, second.text, language))


def piece_bounds(clip: np.ndarray) -> list[tuple[int, int]]:
    """Sample ranges of at most 30 s, cut at the quietest 50 ms of each last third."""
    limit, hop = int(CHUNK_SECONDS * RATE), RATE // 20
    start, result = 0, []
    while len(clip) - start > limit:
        low = start + limit * 2 // 3
        frames = np.square(clip[low : start + limit]).reshape(-1, hop).mean(axis=1)
        middle = low + int(np.argmin(frames)) * hop + hop // 2
        result.append((start, middle))
        start = middle
    return [*result, (start, len(clip))]


def _join(clip: Heard, texts: Sequence[_Text]) -> Transcript:
    """One transcript of the pieces of a clip."""
    words = tuple(
        Word(
            word.word,
            float(np.clip(piece.start + word.start, 0, clip.seconds)),
            float(np.clip(piece.start + word.end, 0, clip.seconds)),
            word.probability,
        )
        for piece, text in zip(clip.pieces, texts, strict=True)
        for word in text.decoded.words or ()
    )
    audio = np.concatenate([piece.audio for piece in clip.pieces])
    agreements = [text.agreement for text in texts if text.agreement is not None]
    return Transcript(
        text=joined(text.decoded.text for text in texts),
        words=words,
        mean_log_probability=_of_all([text.decoded.mean_log_probability for text in texts], np.mean),
        no_speech_probability=_of_all([text.decoded.no_speech_probability for text in texts], np.max),
        redecoded_for=tuple(sorted({reason for text in texts for reason in text.reasons})),
        agreement=min(agreements) if agreements else None,
        seconds_after_words=seconds_after_words(words, audio),
    )


def _of_all(values: Sequence[float | None], measure: Callable[[Sequence[float]], object]) -> float | None:
    """A measure of the values of all pieces; None where one has none."""
    known = [value for value in values if value is not None]
    return float(np.asarray(measure(known))) if len(known) == len(values) else None
