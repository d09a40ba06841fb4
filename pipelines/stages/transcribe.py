"""Language, text and word times of every candidate clip, batched over the whole unit; the clips are cut."""

import dataclasses
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annotation.speech.language_changes import changes, parts, stretches
from annotation.speech.letter_times import ALIGNER, TimedClip, letter_times
from annotation.speech.spoken_languages import LanguageChoice, LanguageText, choose, decide, of_family
from annotation.speech.text_checks import text_language
from annotation.speech.transcription import Transcript, clamp_words
from annotation.speech.whisper import Heard, WhisperRecogniser
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
from pipelines.stages.segment import clip_id
from voxmill.core.audio import RATE_16K, resample
from voxmill.data.languages import from_whisper, language_name, same_family, to_whisper
from voxmill.data.records import Candidate, StageName, Window, WindowResult


@dataclass(frozen=True, slots=True)
class _Piece:
    """A clip at 16 kHz: `speech` is what is transcribed, `clip` what is written and has the word edges.

    place: of its window in the unit.
    """

    place: int
    window: Window
    candidate: Candidate
    speech: np.ndarray
    clip: np.ndarray


@dataclass(frozen=True, slots=True)
class _Given:
    """The language that a manifest gives for a recording: its name there, and the recogniser's code of it."""

    name: str
    code: str


class Transcribe(BatchStage):
    """Transcripts of a unit's candidates; where a recording was separated, of its original sound if so configured.

    A candidate in which the language changes is cut there first.
    """

    name = StageName.TRANSCRIPTION

    def __init__(self, context: StageContext) -> None:
        self.config = context.label.transcription
        model = model_source(self.config.model, "whisper-base")
        self.recogniser = WhisperRecogniser(self.config, model, context.device, context.threads)

    def windows(self, given: Sequence[WindowInput]) -> list[WindowOutput]:
        known = [place for place, one in enumerate(given) if self._unknown(one.result.window) is None]
        pieces = self._cut_at_changes([piece for place in known for piece in _pieces(place, *given[place])])
        transcribed, again_seconds = self._transcribe(pieces)
        candidates: dict[int, list[Candidate]] = {}
        for piece, candidate in zip(pieces, transcribed, strict=True):
            candidates.setdefault(piece.place, []).append(candidate)
        outputs = [self._output(one, candidates.get(place, [])) for place, one in enumerate(given)]
        # Of all windows together.
        return [outputs[0]._replace(again_seconds=again_seconds), *outputs[1:]]

    def _output(self, given: WindowInput, candidates: list[Candidate]) -> WindowOutput:
        unknown = self._unknown(given.result.window)
        if unknown is not None:
            detail = f"transcription.model knows no {language_name(unknown)}, which the manifest gives"
            return self.end(given.result, "unknown_language", detail=detail)
        result = dataclasses.replace(given.result, candidates=tuple(candidates))
        # Later stages ask for the clips alone.
        return WindowOutput(result, _cut(result, given.audio), len(candidates))

    def _unknown(self, window: Window) -> str | None:
        """The language that is given for a window, where the recogniser does not know it."""
        name = window.source.language or self.config.language
        return name if name and self._given(window) is None else None

    def _given(self, window: Window) -> _Given | None:
        """The language that the manifest or the configuration gives for a window, where the recogniser knows it."""
        name = window.source.language or self.config.language
        code = to_whisper(name, self.recogniser.languages) if name else None
        return _Given(name, code) if name and code else None

    def _cut_at_changes(self, pieces: list[_Piece]) -> list[_Piece]:
        """The same, those in which the language changes cut there."""
        bounds = [stretches(piece.speech) for piece in pieces]
        spoken = iter(
            self.recogniser.language_probabilities(
                [piece.speech[a:b] for piece, own in zip(pieces, bounds, strict=True) if len(own) > 1 for a, b in own]
            )
        )
        result = []
        for piece, own in zip(pieces, bounds, strict=True):
            changed_at = changes(np.stack([next(spoken) for _ in own])) if len(own) > 1 else []
            result += _parts(piece, parts(own, changed_at)) if changed_at else [piece]
        return result

    def _choices(self, pieces: list[_Piece], heard: list[Heard]) -> list[LanguageChoice]:
        """The languages that each piece may be in, by itself and the others of its window."""
        choices = []
        for _, group in itertools.groupby(zip(pieces, heard, strict=True), key=lambda one: one[0].place):
            together = list(group)
            given = self._given(together[0][0].window)
            choices += choose(
                np.stack([one.probabilities for _, one in together]),
                [one.seconds for _, one in together],
                None if given is None else self.recogniser.languages.index(given.code),
            )
        return choices

    def _transcribe(self, pieces: list[_Piece]) -> tuple[list[Candidate], float]:
        """The pieces as candidates with text and language, and the seconds that second decodings took.

        Near languages are both decoded.
        """
        before = self.recogniser.again_seconds
        languages = self.recogniser.languages
        heard = self.recogniser.listen([piece.speech for piece in pieces])
        choices = self._choices(pieces, heard)
        texts = [[one] for one in self.recogniser.transcribe(heard, [languages[one.places[0]] for one in choices])]
        again_seconds, clock = self.recogniser.again_seconds - before, time.perf_counter()
        others = [(number, place) for number, choice in enumerate(choices) for place in choice.places[1:]]
        again = self.recogniser.transcribe(
            [heard[number] for number, _ in others], [languages[place] for _, place in others]
        )
        for (number, _), transcript in zip(others, again, strict=True):
            texts[number].append(transcript)
        again_seconds += time.perf_counter() - clock
        candidates = [
            _candidate(*one, languages, self._given(one[0].window))
            for one in zip(pieces, heard, choices, texts, strict=True)
        ]
        if self.config.word_times == "letters":
            candidates = _with_letter_times(pieces, candidates)
        return candidates, again_seconds


def _with_letter_times(pieces: Sequence[_Piece], candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates with better word times where a window has enough of a language."""
    result = [*candidates]
    groups: dict[tuple[int, str], list[int]] = {}
    for number, (piece, candidate) in enumerate(zip(pieces, candidates, strict=True)):
        groups.setdefault((piece.place, candidate.language), []).append(number)
    for (_, language), numbers in groups.items():
        clips = [TimedClip(pieces[number].clip, candidates[number].words) for number in numbers]
        for number, words in zip(numbers, letter_times(clips, language) or [], strict=False):
            checks = candidates[number].transcript
            assert checks is not None
            checks = dataclasses.replace(checks, aligner=ALIGNER)
            result[number] = dataclasses.replace(candidates[number], words=words, transcript=checks)
    return result


def _candidate(
    piece: _Piece,
    heard: Heard,
    choice: LanguageChoice,
    texts: Sequence[Transcript],
    languages: Sequence[str],
    given: _Given | None,
) -> Candidate:
    """A clip with its language and, of the texts in the languages that it may be in, the one in that."""
    verdict = decide(choice, [_language_text(*one) for one in zip(texts, _codes(choice, languages), strict=True)])
    transcript, place = texts[verdict.number], choice.places[verdict.number]
    if len(texts) > 1:
        transcript = dataclasses.replace(transcript, redecoded_for=(*transcript.redecoded_for, "language"))
    language = from_whisper(languages[place])
    if given is not None and given.code == languages[place]:
        # A dialect, say, of what the recogniser has one code for.
        language = given.name
    probability, second, second_probability = of_family(heard.probabilities, languages, place)
    duration = len(piece.speech) / RATE_16K
    words = tighten(clamp_words(transcript.words, 0.0, duration), piece.clip)
    checks = dataclasses.replace(
        transcript.check(language, duration),
        second_language=from_whisper(languages[second]),
        second_language_probability=second_probability,
        language_confidence=verdict.confidence,
    )
    return dataclasses.replace(
        piece.candidate,
        text=transcript.text,
        words=tuple(words),
        language=language,
        language_probability=probability,
        transcript=checks,
    )


def _codes(choice: LanguageChoice, languages: Sequence[str]) -> list[str]:
    return [from_whisper(languages[place]) for place in choice.places]


def _language_text(transcript: Transcript, language: str) -> LanguageText:
    """How well a text fits the language that it was recognised in."""
    code, probability = text_language(transcript.text)
    agreement = probability if same_family(code, language) else -probability
    return LanguageText(log_probability=transcript.mean_log_probability, agreement=agreement)


def _pieces(place: int, result: WindowResult, audio: WindowAudio) -> list[_Piece]:
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
        pieces.append(_Piece(place, window, candidate, speech[start:end], clips[start:end]))
    return pieces


def _parts(piece: _Piece, bounds: Sequence[tuple[int, int]]) -> list[_Piece]:
    """A clip cut at changes of its language: `bounds` are samples of it at 16 kHz, the last one those of its end."""
    scale, whole = piece.window.sample_rate / RATE_16K, piece.candidate
    result = []
    for start, end in bounds:
        is_last = end == bounds[-1][1]
        first = whole.start_sample + round(start * scale)
        last = whole.end_sample if is_last else whole.start_sample + round(end * scale)
        candidate = dataclasses.replace(
            whole,
            clip_id=clip_id(piece.window, first, last),
            start_sample=first,
            end_sample=last,
            cut=whole.cut if is_last else "language",
        )
        result.append(
            dataclasses.replace(piece, candidate=candidate, speech=piece.speech[start:end], clip=piece.clip[start:end])
        )
    return result


def _cut(result: WindowResult, audio: WindowAudio) -> WindowAudio:
    clips = tuple(audio.samples[clip_slice(result, c.start_sample, c.end_sample)] for c in result.clips)
    return WindowAudio(clips=clips, step=audio.step)
