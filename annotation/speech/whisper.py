"""The recogniser that is embedded: Whisper through faster-whisper, in batches of like lengths.

Apart from `transcription.py`, so that reading its configuration imports no model.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from faster_whisper import WhisperModel

from annotation.speech.cropped_whisper import CroppedPipeline, cpu_parts, kept_frames, padded_seconds
from annotation.speech.text_checks import compression_ratio
from annotation.speech.transcription import CHUNK_SECONDS, RATE, Transcript, TranscriptionConfig
from voxmill.core.audio import batches_by_length
from voxmill.core.errors import UserError
from voxmill.data.records import Word


@dataclass(slots=True)
class _Decoded:
    """One piece of at most 30 s as Whisper decoded it; words are (word, start, end, probability) in its seconds."""

    text: str = ""
    words: list[tuple[str, float, float, float]] = field(default_factory=list)
    mean_log_probability: float = -9.0
    no_speech_probability: float = 1.0
    redecoded: bool = False


class WhisperRecogniser:
    """A `Recogniser`: faster-whisper over batches of clips of like length.

    Args:
        model: folder of a CTranslate2 Whisper model or a hub id.
        threads: CPU threads of one worker.
    """

    def __init__(self, config: TranscriptionConfig, model: str | Path, device: str = "cpu", threads: int = 1):
        try:
            self.model = WhisperModel(
                str(model), device=device, compute_type=config.compute_type, cpu_threads=threads, num_workers=1
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(f"transcription.model={model}: faster-whisper cannot load it ({error})") from error
        self.pipeline = CroppedPipeline(self.model)
        self.config = config

    def detect_languages(self, recordings: Iterable[np.ndarray]) -> list[tuple[str, float]]:
        """Language of each recording by a majority of evenly spaced windows, and the winners' mean probability.

        Args:
            recordings: float32 [samples] at 16 kHz each, speech only; one is taken at a time, and its windows kept.
        """
        # Copies, so that no recording is kept.
        windows = {
            (len(window), number, start): window.copy()
            for number, audio in enumerate(recordings)
            for start, window in _spread(audio, self.config.language_windows)
        }
        votes: dict[int, list[tuple[str, float]]] = {}
        lengths = {name: padded_seconds(name[0] / RATE) for name in windows}
        for batch in batches_by_length(lengths, self.config.batch_seconds):
            answers = self._window_languages([windows[name] for name in batch])
            for (_, number, _), answer in zip(batch, answers, strict=True):
                votes.setdefault(number, []).append(answer)
        return [_majority(votes[number]) for number in sorted(votes)]

    def _window_languages(self, windows: Sequence[np.ndarray]) -> list[tuple[str, float]]:
        """Most probable Whisper language code of each of these windows of at most 30 s, and its probability."""
        frames = kept_frames(max(len(window) for window in windows) / RATE)
        features = np.stack(
            [
                self.model.feature_extractor(np.pad(window, (0, max(frames * 160 - len(window), 0))))[..., :frames]
                for window in windows
            ]
        )
        answers = []
        for part in cpu_parts(features, self.model.model.device):
            for ranking in self.model.model.detect_language(self.model.encode(np.ascontiguousarray(features[part]))):
                token, probability = ranking[0]
                answers.append((token.strip("<|>"), float(probability)))
        return answers

    def transcribe_batch(self, clips: Sequence[np.ndarray], language: str) -> list[Transcript]:
        """Transcripts of clips (float32 [samples] at 16 kHz, any length) that share a Whisper language code.

        A clip over 30 s is decoded in pieces cut at its quietest moments and put together again.
        """
        pieces = [(index, start, end) for index, clip in enumerate(clips) for start, end in _pieces(clip)]
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
        parts: list[list[tuple[int, _Decoded]]] = [[] for _ in clips]
        for (index, start, _), piece in zip(pieces, decoded, strict=True):
            parts[index].append((start, piece))
        return [_join(own, len(clip) / RATE) for own, clip in zip(parts, clips, strict=True)]

    def _is_doubtful(self, piece: _Decoded) -> bool:
        return (
            piece.mean_log_probability < self.config.redecode_below
            or compression_ratio(piece.text) > self.config.redecode_compression
        )

    def _decode(self, pieces: Sequence[np.ndarray], language: str, beam_size: int, **options: Any) -> list[_Decoded]:
        """Pieces of at most 30 s, decoded in batches of like length: a batch costs what its longest piece costs."""
        lengths = {(len(piece), number, 0): padded_seconds(len(piece) / RATE) for number, piece in enumerate(pieces)}
        decoded: dict[int, _Decoded] = {}
        for batch in batches_by_length(lengths, self.config.batch_seconds):
            numbers = [number for _, number, _ in batch]
            together = self._decode_batch([pieces[number] for number in numbers], language, beam_size, **options)
            decoded |= dict(zip(numbers, together, strict=True))
        return [decoded[number] for number in range(len(pieces))]

    def _decode_batch(self, audio: list[np.ndarray], language: str, beam_size: int, **options: Any) -> list[_Decoded]:
        results = [_Decoded() for _ in audio]
        # Half a second of silence between pieces keeps their bounds apart once they lie in one array.
        gap = np.zeros(RATE // 2, dtype=np.float32)
        bounds, parts, position = [], [], 0
        for piece in audio:
            bounds.append({"start": position / RATE, "end": (position + len(piece)) / RATE})
            parts += [piece, gap]
            position += len(piece) + len(gap)
        # Left over from a batch that failed, it would move words of this one.
        self.pipeline.last_speech_timestamp = 0.0
        segments, _ = self.pipeline.transcribe(
            np.concatenate(parts).astype(np.float32),
            language=language,
            beam_size=beam_size,
            temperature=0.0,
            word_timestamps=True,
            without_timestamps=True,
            clip_timestamps=bounds,
            batch_size=len(audio),
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


def _spread(audio: np.ndarray, most: int) -> list[tuple[int, np.ndarray]]:
    """(start, samples) of up to `most` evenly spaced windows of 30 s."""
    size = int(CHUNK_SECONDS * RATE)
    num = max(min(most, -(-len(audio) // size)), 1)
    starts = np.linspace(0, max(len(audio) - size, 0), num).astype(int).tolist()
    return [(start, audio[start : start + size]) for start in starts]


def _majority(votes: Sequence[tuple[str, float]]) -> tuple[str, float]:
    ranking = Counter(language for language, _ in votes)
    winner = max(ranking, key=lambda code: (ranking[code], sum(p for c, p in votes if c == code)))
    return winner, float(np.mean([p for c, p in votes if c == winner]))


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
