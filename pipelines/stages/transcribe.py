"""Language, text and word times of every candidate clip, batched over the whole unit; the clips are cut."""

import dataclasses
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annotation.speech.aligners.aligner import load_aligner
from annotation.speech.language_changes import changes, may_change, parts, stretches
from annotation.speech.letter_times import ALIGNER, TimedClip, letter_times
from annotation.speech.recognisers.config import recogniser_name
from annotation.speech.recognisers.loading import Writers, load_whisper
from annotation.speech.spoken_languages import LanguageChoice, LanguageText, choose, decide, of_family
from annotation.speech.text_checks import text_language
from annotation.speech.transcription import ATTENTION, Transcript, clamp_words
from annotation.speech.whisper import Heard
from annotation.speech.word_edges import tighten
from pipelines.stages.base import (
    BatchStage,
    StageContext,
    WindowAudio,
    WindowInput,
    WindowOutput,
    clip_slice,
)
from pipelines.stages.long_clips import with_long_clips
from pipelines.stages.segment import clip_id
from pipelines.stages.word_times import with_word_times, with_words
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
class _Part:
    """What has one text: a clip, or what lies between two changes of language in it.

    start, end: samples of the `whole` clip at 16 kHz. piece: what is cut out of it there.
    """

    whole: _Piece
    start: int
    end: int
    piece: _Piece
    heard: Heard


@dataclass(frozen=True, slots=True)
class _Given:
    """The language that a manifest gives for a recording: its name there, and the recogniser's code of it."""

    name: str
    code: str


@dataclass(frozen=True, slots=True)
class _Told:
    """What a part was found to be: its language by our code and by the recogniser's place, how sure, and its text."""

    language: str
    place: int
    confidence: float
    transcript: Transcript


class Transcribe(BatchStage):
    """Transcripts of a unit's candidates; where a recording was separated, of its original sound if so configured.

    A candidate in which the language seems to change is cut there first; parts that turn out to be in one language are
    put together again. In the end some neighbours are joined to long clips.
    """

    name = StageName.TRANSCRIPTION

    def __init__(self, context: StageContext) -> None:
        self.config, self.label = context.label.transcription, context.label
        self.recogniser = load_whisper(self.config, context.device, context.threads)
        self.writers = Writers(self.config, context.device, context.threads)
        self.aligner = load_aligner(self.label.alignment, context.device, context.threads)

    def windows(self, given: Sequence[WindowInput]) -> list[WindowOutput]:
        known = [place for place, one in enumerate(given) if self._unknown(one.result.window) is None]
        parts = self._cut_at_changes([piece for place in known for piece in _pieces(place, *given[place])])
        transcribed, again_seconds = self._transcribe(parts)
        candidates: dict[int, list[Candidate]] = {}
        for place, candidate in transcribed:
            candidates.setdefault(place, []).append(candidate)
        outputs = [self._output(one, candidates.get(place, [])) for place, one in enumerate(given)]
        # Of all windows together.
        return [outputs[0]._replace(again_seconds=again_seconds), *outputs[1:]]

    def _output(self, given: WindowInput, candidates: list[Candidate]) -> WindowOutput:
        unknown = self._unknown(given.result.window)
        if unknown is not None:
            key = "model" if self.config.backend == "faster-whisper" else "language_id_model"
            detail = f"transcription.{key} knows no {language_name(unknown)}, which the manifest gives"
            return self.end(given.result, "unknown_language", detail=detail)
        result = dataclasses.replace(given.result, candidates=tuple(candidates))
        result = with_long_clips(result, given.audio.samples, self.label)
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

    def _cut_at_changes(self, pieces: list[_Piece]) -> list[_Part]:
        """The same as the recogniser hears them, those in which the language changes cut there.

        Clips that a corpus has stay as they are.
        """
        heard = self.recogniser.listen([piece.speech for piece in pieces])
        bounds = [[] if piece.window.clips else stretches(piece.speech) for piece in pieces]
        searched = [
            len(own) > 1 and may_change(self.recogniser.glance(one, own), one.probabilities)
            for one, own in zip(heard, bounds, strict=True)
        ]
        spoken = iter(
            self.recogniser.language_probabilities(
                [
                    piece.speech[a:b]
                    for piece, own, is_searched in zip(pieces, bounds, searched, strict=True)
                    if is_searched
                    for a, b in own
                ]
            )
        )
        ranges = [
            parts(own, changes(np.stack([next(spoken) for _ in own]))) if is_searched else []
            for own, is_searched in zip(bounds, searched, strict=True)
        ]
        cut = iter(
            self._parts(
                [(piece, a, b) for piece, own in zip(pieces, ranges, strict=True) if len(own) > 1 for a, b in own]
            )
        )
        result: list[_Part] = []
        for piece, one, own in zip(pieces, heard, ranges, strict=True):
            whole = _Part(piece, 0, len(piece.speech), piece, one)
            result += [next(cut) for _ in own] if len(own) > 1 else [whole]
        return result

    def _parts(self, ranges: Sequence[tuple[_Piece, int, int]]) -> list[_Part]:
        """Sample ranges of clips at 16 kHz, cut out and heard."""
        pieces = [_cut_out(*one) for one in ranges]
        heard = self.recogniser.listen([piece.speech for piece in pieces])
        return [_Part(*one, piece, own) for one, piece, own in zip(ranges, pieces, heard, strict=True)]

    def _choices(self, parts: Sequence[_Part]) -> list[LanguageChoice]:
        """The languages that each part may be in, by itself and the others of its window."""
        choices = []
        for _, group in itertools.groupby(parts, key=lambda part: part.piece.place):
            together = list(group)
            given = self._given(together[0].piece.window)
            choices += choose(
                np.stack([part.heard.probabilities for part in together]),
                [part.heard.seconds for part in together],
                None if given is None else self.recogniser.languages.index(given.code),
            )
        return choices

    def _transcribe(self, parts: list[_Part]) -> tuple[list[tuple[int, Candidate]], float]:
        """The places of the windows and the clips in them, in order, and the seconds that second decodings took."""
        candidates, again_seconds = self._recognise(parts, self._choices(parts))
        runs = _runs_of_one_language(parts, candidates)
        if len(runs) < len(parts):
            clock = time.perf_counter()
            parts, candidates = self._put_together(parts, candidates, runs)
            again_seconds += time.perf_counter() - clock
        if self.label.alignment.letters and self.label.alignment.backend == "whisper":
            candidates = _with_letter_times([part.piece for part in parts], candidates)
        else:
            clips = [part.piece.clip for part in parts]
            candidates = with_word_times(clips, candidates, self.label.alignment, self.aligner)
        return [(part.piece.place, one) for part, one in zip(parts, candidates, strict=True)], again_seconds

    def _put_together(
        self, parts: Sequence[_Part], candidates: Sequence[Candidate], runs: Sequence[tuple[int, int]]
    ) -> tuple[list[_Part], list[Candidate]]:
        """Parts and their clips, each of the `runs` (first number and the one behind its last) one part."""
        broken = [run for run in runs if run[1] - run[0] > 1]
        whole = iter(self._parts([(parts[a].whole, parts[a].start, parts[b - 1].end) for a, b in broken]))
        joined = [parts[a] if b - a == 1 else next(whole) for a, b in runs]
        choices = self._choices(joined)
        places = [place for place, (a, b) in enumerate(runs) if b - a > 1]
        anew, _ = self._recognise([joined[place] for place in places], [choices[place] for place in places])
        of_place = dict(zip(places, anew, strict=True))
        return joined, [of_place.get(place) or candidates[a] for place, (a, _) in enumerate(runs)]

    def _recognise(self, parts: Sequence[_Part], choices: Sequence[LanguageChoice]) -> tuple[list[Candidate], float]:
        """Parts with text and language, and the seconds that second decodings took; near languages are all decoded."""
        before = self.recogniser.again_seconds
        languages, heard = self.recogniser.languages, [part.heard for part in parts]
        texts: list[list[Transcript]] = [[] for _ in parts]
        firsts = [
            number
            for number, (part, choice) in enumerate(zip(parts, choices, strict=True))
            if len(choice.places) > 1 or self.writers.of(self._name(part, choice.places[0])) is None
        ]
        decoded = self.recogniser.transcribe(
            [heard[number] for number in firsts], [languages[choices[number].places[0]] for number in firsts]
        )
        for number, transcript in zip(firsts, decoded, strict=True):
            texts[number].append(transcript)
        again_seconds, clock = self.recogniser.again_seconds - before, time.perf_counter()
        others = [(number, place) for number, choice in enumerate(choices) for place in choice.places[1:]]
        again = self.recogniser.transcribe(
            [heard[number] for number, _ in others], [languages[place] for _, place in others]
        )
        for (number, _), transcript in zip(others, again, strict=True):
            texts[number].append(transcript)
        again_seconds += time.perf_counter() - clock
        told = [self._told(*one) for one in zip(parts, choices, texts, strict=True)]
        for writer in self.writers.all:
            numbers = [number for number, one in enumerate(told) if self.writers.of(one.language) is writer]
            spoken = [told[number].language for number in numbers]
            written = writer.transcribe(self.recogniser, [heard[number] for number in numbers], spoken)
            for number, transcript in zip(numbers, written, strict=True):
                told[number] = dataclasses.replace(told[number], transcript=transcript)
        return [_candidate(*one, languages) for one in zip(parts, told, strict=True)], again_seconds

    def _told(self, part: _Part, choice: LanguageChoice, texts: Sequence[Transcript]) -> _Told:
        """The language of a part and, of its texts in the languages that it may be in, the one in that; none of one
        that another recogniser is to write."""
        told = [_language_text(*one) for one in zip(texts, self._codes(choice), strict=False)]
        verdict = decide(choice, told or [LanguageText(log_probability=0.0, agreement=0.0)])
        transcript = texts[verdict.number] if texts else Transcript(text="")
        if len(texts) > 1:
            transcript = dataclasses.replace(transcript, redecoded_for=(*transcript.redecoded_for, "language"))
        place = choice.places[verdict.number]
        return _Told(
            language=self._name(part, place),
            place=place,
            confidence=verdict.confidence,
            transcript=dataclasses.replace(transcript, recogniser=recogniser_name(self.config)),
        )

    def _name(self, part: _Part, place: int) -> str:
        """Our code of one of the recogniser's languages, as the manifest names it where that gives it."""
        given, code = self._given(part.piece.window), self.recogniser.languages[place]
        # A dialect, say, of what the recogniser has one code for.
        return given.name if given is not None and given.code == code else from_whisper(code)

    def _codes(self, choice: LanguageChoice) -> list[str]:
        return [from_whisper(self.recogniser.languages[place]) for place in choice.places]


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
            aligner = ALIGNER if checks.aligner == ATTENTION else f"letters of its window, from {checks.aligner}"
            result[number] = with_words(candidates[number], words, aligner)
    return result


def _candidate(part: _Part, told: _Told, languages: Sequence[str]) -> Candidate:
    """A clip with its language and text; `languages`: of the recogniser that tells them."""
    piece, transcript = part.piece, told.transcript
    probability, second, second_probability = of_family(part.heard.probabilities, languages, told.place)
    duration = len(piece.speech) / RATE_16K
    words = tighten(clamp_words(transcript.words, 0.0, duration), piece.clip)
    checks = dataclasses.replace(
        transcript.check(told.language, duration),
        second_language=from_whisper(languages[second]),
        second_language_probability=second_probability,
        language_confidence=told.confidence,
    )
    return dataclasses.replace(
        piece.candidate,
        text=transcript.text,
        words=tuple(words),
        language=told.language,
        language_probability=probability,
        transcript=checks,
    )


def _language_text(transcript: Transcript, language: str) -> LanguageText:
    """How well a text fits the language that it was recognised in."""
    assert transcript.mean_log_probability is not None
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


def _cut_out(piece: _Piece, start: int, end: int) -> _Piece:
    """Samples `start` to `end` at 16 kHz of a clip, a clip by itself."""
    scale, whole = piece.window.sample_rate / RATE_16K, piece.candidate
    is_last = end == len(piece.speech)
    first = whole.start_sample + round(start * scale)
    last = whole.end_sample if is_last else whole.start_sample + round(end * scale)
    candidate = dataclasses.replace(
        whole,
        clip_id=clip_id(piece.window, first, last),
        start_sample=first,
        end_sample=last,
        cut=whole.cut if is_last else "language",
    )
    return dataclasses.replace(piece, candidate=candidate, speech=piece.speech[start:end], clip=piece.clip[start:end])


def _runs_of_one_language(parts: Sequence[_Part], candidates: Sequence[Candidate]) -> list[tuple[int, int]]:
    """Neighbouring parts of a clip that turned out to be in one language: first number, and the one behind the last."""
    firsts = [
        number
        for number, (part, candidate) in enumerate(zip(parts, candidates, strict=True))
        if number == 0
        or part.whole is not parts[number - 1].whole
        or candidate.language != candidates[number - 1].language
    ]
    return list(zip(firsts, [*firsts[1:], len(parts)], strict=True))


def _cut(result: WindowResult, audio: WindowAudio) -> WindowAudio:
    clips = tuple(audio.samples[clip_slice(result, c.start_sample, c.end_sample)] for c in result.clips)
    return WindowAudio(clips=clips, step=audio.step)
