"""Text, language and word times of every candidate clip, batched over the whole unit by language; the clips are cut."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annotation.speech.text_checks import error_rate
from annotation.speech.transcription import Transcriber, clamp_words
from annotation.speech.word_edges import tighten
from pipelines.stages.base import Stage, StageContext, UnitOutput, WindowAudio, clip_slice, model_source
from voxmill.core.audio import RATE_16K, resample
from voxmill.data.languages import from_whisper
from voxmill.data.records import Candidate, ClipId, StageName, WindowResult, WorkUnit


@dataclass(frozen=True, slots=True)
class _Piece:
    """A clip at 16 kHz: `speech` is what is transcribed, `clip` what is written and has the word edges."""

    candidate: Candidate
    speech: np.ndarray
    clip: np.ndarray


class Transcribe(Stage):
    """Transcripts of a unit's candidates; where a recording was separated, of its original sound if so configured."""

    name = StageName.TRANSCRIPTION

    def __init__(self, context: StageContext) -> None:
        self.config = context.label.transcription
        model = model_source(self.config.model, "whisper-base")
        self.transcriber = Transcriber(self.config, model, context.device, context.threads)

    def run(self, unit: WorkUnit, audio: Sequence[WindowAudio]) -> UnitOutput:
        by_language: dict[str, list[_Piece]] = {}
        calls = 0
        for result, sound in zip(unit.results, audio, strict=True):
            if result.ending is None:
                calls += self._collect(result, sound, by_language)
        transcribed: dict[ClipId, Candidate] = {}
        for language, pieces in sorted(by_language.items()):
            calls += len(pieces)
            transcribed |= {candidate.clip_id: candidate for candidate in self._transcribe(pieces, language)}
        results = tuple(
            result if result.ending is not None else _with_candidates(result, transcribed) for result in unit.results
        )
        # Later stages ask for the clips alone.
        clips = tuple(_cut(result, sound) for result, sound in zip(results, audio, strict=True))
        return UnitOutput(dataclasses.replace(unit, results=results), clips, calls)

    def _collect(self, result: WindowResult, audio: WindowAudio, by_language: dict[str, list[_Piece]]) -> int:
        """Adds a window's clips under their Whisper language code; returns the number of model calls."""
        window = result.window
        clips = resample(audio.samples, window.sample_rate, RATE_16K)
        speech = audio.original if len(audio.original) else clips
        scale = RATE_16K / window.sample_rate
        bounds = [
            slice(
                round((candidate.start_sample - window.start_sample) * scale),
                round((candidate.end_sample - window.start_sample) * scale),
            )
            for candidate in result.candidates
        ]
        given = window.source.language or self.config.language
        if given:
            code, probability = given.split("-")[0], 1.0
        else:
            code, probability = self.transcriber.detect_language(np.concatenate([speech[piece] for piece in bounds]))
        language = window.source.language or from_whisper(code)
        for candidate, piece in zip(result.candidates, bounds, strict=True):
            known = dataclasses.replace(candidate, language=language, language_probability=probability)
            by_language.setdefault(code, []).append(_Piece(known, speech[piece], clips[piece]))
        return 0 if given else 1

    def _transcribe(self, pieces: list[_Piece], code: str) -> list[Candidate]:
        transcripts = self.transcriber.transcribe([piece.speech for piece in pieces], code)
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


def _cut(result: WindowResult, audio: WindowAudio) -> WindowAudio:
    clips = tuple(audio.samples[clip_slice(result, c.start_sample, c.end_sample)] for c in result.clips)
    return WindowAudio(clips=clips, step=audio.step)


def _with_candidates(result: WindowResult, transcribed: dict[ClipId, Candidate]) -> WindowResult:
    """The window with its transcribed candidates, compared with the manifest's text where there is one.

    A given text describes the recording; against the joined text of its clips every word counts once.
    """
    candidates = tuple(transcribed[candidate.clip_id] for candidate in result.candidates)
    given = result.window.source.text
    if given:
        joined = " ".join(candidate.text for candidate in candidates)
        wer = error_rate(given, joined, candidates[0].language)
        candidates = tuple(_with_wer(candidate, wer) for candidate in candidates)
    return dataclasses.replace(result, candidates=candidates)


def _with_wer(candidate: Candidate, wer: float | None) -> Candidate:
    assert candidate.transcript is not None
    return dataclasses.replace(candidate, transcript=dataclasses.replace(candidate.transcript, given_wer=wer))
