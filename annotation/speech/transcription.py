"""Transcripts with word times by faster-whisper, clips of one language decoded together in batches.

Whisper's word times come from its cross-attention (DTW); `word_edges` moves them out of pauses. No forced aligner is
embedded, and every clip's `aligner` names that.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from annotation.speech.text_checks import compression_ratio, normalise, repeated_ngram, text_language
from voxmill.core.config import Config
from voxmill.core.errors import UserError
from voxmill.data.records import TranscriptChecks, Word

RATE = 16000
CHUNK_SECONDS = 30.0


class TranscriptionConfig(Config):
    """What is decoded how. `language_windows` windows of 30 s a recording vote for its language.

    `transcribe_from`: what is decoded where a recording was separated. Whisper knows music better than what separation
    leaves of a voice (`docs/truth.md`).
    """

    renamed: ClassVar[dict[str, str]] = {"hear": "transcribe_from"}

    model: str = "embedded"
    """`embedded` (Whisper base), or a CTranslate2 Whisper folder or hub id such as `large-v3`."""
    compute_type: str = "int8"
    """Number format of CTranslate2, such as int8, float16 or float32."""
    beam_size: int = 2
    """Beams of the decoder."""
    batch_size: int = 8
    """Pieces of speech decoded together."""
    language: str | None = None
    """Code of the language of all recordings; null detects it in each."""
    language_windows: int = 3
    """Windows of 30 s in each recording that vote for its language."""
    transcribe_from: Literal["original", "separated"] = "original"
    """Where a recording was separated, decode the original audio or the separated voice."""
    redecode_below: float = -0.8
    """A piece with a lower mean log probability is decoded again with more beams."""
    redecode_compression: float = 2.4
    """A piece whose text has a higher zlib compression ratio is decoded again with more beams."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """Text of one clip; log probability is the mean over tokens, `redecoded` after a second, wider decoding."""

    text: str
    words: tuple[Word, ...] = ()
    mean_log_probability: float = 0.0
    no_speech_probability: float = 0.0
    redecoded: bool = False
    aligner: str = "none (whisper cross-attention, pauses cut)"

    def check(self, language: str, seconds: float) -> TranscriptChecks:
        """Measures of the transcript of a clip of this language code and length, `given_wer` left open."""
        text_code, probability = text_language(self.text)
        return TranscriptChecks(
            compression_ratio=compression_ratio(self.text),
            repeated_ngram=repeated_ngram(self.text, language),
            characters_per_second=len(normalise(self.text).replace(" ", "")) / max(seconds, 1e-3),
            text_language=text_code,
            text_language_probability=probability,
            mean_log_probability=self.mean_log_probability,
            no_speech_probability=self.no_speech_probability,
            redecoded=self.redecoded,
            aligner=self.aligner,
        )


@dataclass(slots=True)
class _Decoded:
    """One piece of at most 30 s as Whisper decoded it; words are (word, start, end, probability) in its seconds."""

    text: str = ""
    words: list[tuple[str, float, float, float]] = field(default_factory=list)
    mean_log_probability: float = -9.0
    no_speech_probability: float = 1.0
    redecoded: bool = False


class Transcriber:
    """faster-whisper over batches of clips.

    Args:
        model: folder of a CTranslate2 Whisper model or a hub id.
        threads: CPU threads of one worker.
    """

    def __init__(self, config: TranscriptionConfig, model: str | Path, device: str = "cpu", threads: int = 1):
        from faster_whisper import WhisperModel

        from annotation.speech.cropped_whisper import CroppedPipeline

        try:
            self.model = WhisperModel(
                str(model), device=device, compute_type=config.compute_type, cpu_threads=threads, num_workers=1
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(f"transcription.model={model}: faster-whisper cannot load it ({error})") from error
        self.pipeline = CroppedPipeline(self.model)
        self.config = config

    def detect_language(self, audio: np.ndarray) -> tuple[str, float]:
        """Language of a recording by a majority of evenly spaced 30 s windows, and the winners' mean probability.

        Args:
            audio: float32 [samples] at 16 kHz, speech only.
        """
        size = int(CHUNK_SECONDS * RATE)
        num = max(min(self.config.language_windows, -(-len(audio) // size)), 1)
        starts = np.linspace(0, max(len(audio) - size, 0), num).astype(int)
        votes: list[tuple[str, float]] = []
        for start in starts:
            votes.append(self._window_language(audio[start : start + size]))
        ranking = Counter(language for language, _ in votes)
        winner = max(ranking, key=lambda code: (ranking[code], sum(p for c, p in votes if c == code)))
        return winner, float(np.mean([p for c, p in votes if c == winner]))

    def _window_language(self, window: np.ndarray) -> tuple[str, float]:
        """Most probable Whisper language code of at most 30 s, and its probability."""
        from annotation.speech.cropped_whisper import kept_frames

        frames = kept_frames(len(window) / RATE)
        features = self.model.feature_extractor(np.pad(window, (0, max(frames * 160 - len(window), 0))))
        ranking = self.model.model.detect_language(self.model.encode(np.ascontiguousarray(features[..., :frames])))
        token, probability = ranking[0][0]
        return token.strip("<|>"), float(probability)

    def transcribe(self, clips: list[np.ndarray], language: str) -> list[Transcript]:
        """Transcripts of clips (float32 [samples] at 16 kHz, any length) that share a Whisper language code.

        A clip over 30 s is decoded in pieces cut at its quietest moments and put together again.
        """
        pieces = [(index, start, end) for index, clip in enumerate(clips) for start, end in _pieces(clip)]
        # A batch costs what its longest piece costs: equals together.
        pieces.sort(key=lambda piece: (piece[2] - piece[1], piece))
        decoded = self._decode([clips[i][a:b] for i, a, b in pieces], language, self.config.beam_size)
        doubtful = [k for k, d in enumerate(decoded) if self._is_doubtful(d)]
        if doubtful:
            audio = [clips[pieces[k][0]][pieces[k][1] : pieces[k][2]] for k in doubtful]
            again = self._decode(audio, language, self.config.beam_size + 3, no_repeat_ngram_size=4)
            for k, second in zip(doubtful, again, strict=True):
                better = second.mean_log_probability > decoded[k].mean_log_probability
                if better or compression_ratio(decoded[k].text) > 2.4:
                    decoded[k] = second
                decoded[k].redecoded = True
        results = []
        for index, clip in enumerate(clips):
            own = [(a, d) for (i, a, _), d in zip(pieces, decoded, strict=True) if i == index]
            results.append(_join(sorted(own, key=lambda piece: piece[0]), len(clip) / RATE))
        return results

    def _is_doubtful(self, piece: _Decoded) -> bool:
        return (
            piece.mean_log_probability < self.config.redecode_below
            or compression_ratio(piece.text) > self.config.redecode_compression
        )

    def _decode(self, audio: list[np.ndarray], language: str, beam_size: int, **options: Any) -> list[_Decoded]:
        results = [_Decoded() for _ in audio]
        # Half a second of silence between pieces keeps their bounds apart once they lie in one array.
        gap = np.zeros(RATE // 2, dtype=np.float32)
        bounds, parts, position = [], [], 0
        for piece in audio:
            bounds.append({"start": position / RATE, "end": (position + len(piece)) / RATE})
            parts += [piece, gap]
            position += len(piece) + len(gap)
        if not bounds:
            return results
        segments, _ = self.pipeline.transcribe(
            np.concatenate(parts).astype(np.float32),
            language=language,
            beam_size=beam_size,
            temperature=0.0,
            word_timestamps=True,
            without_timestamps=True,
            clip_timestamps=bounds,
            batch_size=self.config.batch_size,
            **options,
        )
        # `seek` is the piece's own start in Whisper's 10 ms frames; segment times are moved to words and may stray.
        by_seek = {int(bound["start"] * self.model.frames_per_second): index for index, bound in enumerate(bounds)}
        for segment in segments:
            index = by_seek[segment.seek]
            result = results[index]
            offset = bounds[index]["start"]
            result.text = (result.text + segment.text).strip()
            result.mean_log_probability = float(segment.avg_logprob)
            result.no_speech_probability = float(segment.no_speech_prob)
            result.words += [(w.word, w.start - offset, w.end - offset, w.probability) for w in segment.words or []]
        return results


def _pieces(clip: np.ndarray) -> list[tuple[int, int]]:
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


def _join(pieces: list[tuple[int, _Decoded]], duration: float) -> Transcript:
    words = tuple(
        Word(word, float(np.clip(start + a / RATE, 0, duration)), float(np.clip(end + a / RATE, 0, duration)), float(p))
        for a, piece in pieces
        for word, start, end, p in piece.words
    )
    return Transcript(
        text=" ".join(piece.text for _, piece in pieces if piece.text),
        words=words,
        mean_log_probability=float(np.mean([piece.mean_log_probability for _, piece in pieces])),
        no_speech_probability=float(np.max([piece.no_speech_probability for _, piece in pieces])),
        redecoded=any(piece.redecoded for _, piece in pieces),
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
