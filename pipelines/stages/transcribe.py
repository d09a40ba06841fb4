"""Text, language and word times of every candidate clip, batched over the whole unit by language; the clips are cut."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annotation.speech.text_checks import error_rate_within
from annotation.speech.transcription import Recogniser, clamp_words
from annotation.speech.whisper import WhisperRecogniser
from annotation.speech.word_edges import tighten
from pipelines.stages.base import (
    BatchStage,
    StageContext,
    WindowAudio,
    WindowInput,
    WindowOutput,
    clip_slice,
    model_source,
)
from voxmill.core.audio import RATE_16K, resample
from voxmill.data.languages import from_whisper
from voxmill.data.records import Candidate, ClipId, StageName, WindowResult


@dataclass(frozen=True, slots=True)
class _Piece:
    """A clip at 16 kHz: `speech` is what is transcribed, `clip` what is written and has the word edges."""

    candidate: Candidate
    speech: np.ndarray
    clip: np.ndarray


class Transcribe(BatchStage):
    """Transcripts of a unit's candidates; where a recording was separated, of its original sound if so configured."""

    name = StageName.TRANSCRIPTION

    def __init__(self, context: StageContext) -> None:
        self.config = context.label.transcription
        model = model_source(self.config.model, "whisper-base")
        self.recogniser: Recogniser = WhisperRecogniser(self.config, model, context.device, context.threads)

    def windows(self, given: Sequence[WindowInput]) -> list[WindowOutput]:
        pieces = [_pieces(*one) for one in given]
        named = [one.result.window.source.language or self.config.language for one in given]
        unnamed = (own for own, language in zip(pieces, named, strict=True) if not language)
        heard = iter(self.recogniser.detect_languages(np.concatenate([one.speech for one in own]) for own in unnamed))
        by_language: dict[str, list[_Piece]] = {}
        for own, language in zip(pieces, named, strict=True):
            code, probability = (language.split("-")[0], 1.0) if language else next(heard)
            for one in own:
                candidate = dataclasses.replace(
                    one.candidate, language=language or from_whisper(code), language_probability=probability
                )
                by_language.setdefault(code, []).append(dataclasses.replace(one, candidate=candidate))
        transcribed: dict[ClipId, Candidate] = {}
        for code, together in sorted(by_language.items()):
            transcribed |= {candidate.clip_id: candidate for candidate in self._transcribe(together, code)}
        outputs = []
        for (result, audio), language in zip(given, named, strict=True):
            done = _with_candidates(result, transcribed)
            calls = len(result.candidates) + (0 if language else 1)
            # Later stages ask for the clips alone.
            outputs.append(WindowOutput(done, _cut(done, audio), calls))
        return outputs

    def _transcribe(self, pieces: list[_Piece], code: str) -> list[Candidate]:
        transcripts = self.recogniser.transcribe_batch([piece.speech for piece in pieces], code)
        candidates = []
        for piece, transcript in zip(pieces, transcripts, strict=True):
            duration = len(piece.speech) / RATE_16K
            words = tighten(clamp_words(transcript.words, 0.0, duration), piece.clip)
            candidates.append(
                dataclasses.replace(
                    piece.candidate,
                    text=transcript.text,
                    words=tuple(words),
                    transcript=transcript.check(piece.candidate.language, duration),
                )
            )
        return candidates


def _pieces(result: WindowResult, audio: WindowAudio) -> list[_Piece]:
    """The clips of a window at 16 kHz."""
    window = result.window
    clips = resample(audio.samples, window.sample_rate, RATE_16K)
    speech = audio.original if len(audio.original) else clips
    scale = RATE_16K / window.sample_rate
    pieces = []
    for candidate in result.candidates:
        start, end = (
            round((bound - window.start_sample) * scale) for bound in (candidate.start_sample, candidate.end_sample)
        )
        pieces.append(_Piece(candidate, speech[start:end], clips[start:end]))
    return pieces


def _cut(result: WindowResult, audio: WindowAudio) -> WindowAudio:
    clips = tuple(audio.samples[clip_slice(result, c.start_sample, c.end_sample)] for c in result.clips)
    return WindowAudio(clips=clips, step=audio.step)


def _with_candidates(result: WindowResult, transcribed: dict[ClipId, Candidate]) -> WindowResult:
    """The window with its transcribed candidates, compared with the manifest's text where there is one."""
    candidates = tuple(transcribed[candidate.clip_id] for candidate in result.candidates)
    given = result.window.source.text
    if given:
        # A given text is that of the whole recording, of which the window and its clips may be a part.
        candidates = tuple(
            _with_wer(candidate, error_rate_within(given, candidate.text, candidate.language))
            for candidate in candidates
        )
    return dataclasses.replace(result, candidates=candidates)


def _with_wer(candidate: Candidate, wer: float | None) -> Candidate:
    assert candidate.transcript is not None
    return dataclasses.replace(candidate, transcript=dataclasses.replace(candidate.transcript, given_wer=wer))
