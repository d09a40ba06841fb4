"""Transcription as a stage: languages of clips, clips cut where the language changes, languages that are not known."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from annotation.speech.aligners.aligner import load_aligner
from annotation.speech.aligners.config import AlignmentConfig
from annotation.speech.letter_times import ALIGNER
from annotation.speech.text_checks import error_rate
from annotation.speech.transcription import Transcript
from pipelines.config import LabelConfig, VoiceAttributesConfig
from pipelines.stages import transcribe
from pipelines.stages.base import StageContext, WindowAudio, WindowInput, WindowOutput
from pipelines.stages.segment import clip_id
from pipelines.stages.transcribe import Transcribe
from samples.turns import RATE, Turn, sample_turns
from tests.annotation.speech.aligners.saved_ctc import WAV2VEC2, save_ctc
from voxmill.data.records import Candidate, SourceInfo, Window, WindowResult

PAUSE = np.zeros(int(0.3 * RATE), dtype=np.float32)
FIRST_SAMPLE = 5 * RATE


@pytest.fixture(scope="module")
def stage() -> Transcribe:
    context = StageContext(
        out=Path(), label=LabelConfig(), voice_attributes=VoiceAttributesConfig(), threads=1, device="cpu"
    )
    return Transcribe(context)


@pytest.fixture(scope="module")
def sentences() -> dict[str, list[Turn]]:
    """Sentences of 2 to 5 s by language; the English and the Spanish voice are one."""
    by_language: dict[str, list[Turn]] = {}
    for turn in sample_turns():
        if 2 * RATE <= len(turn.audio) <= 5 * RATE:
            by_language.setdefault(turn.language, []).append(turn)
    return by_language


def window_of(clips: list[list[Turn]], language: str | None = None, name: str = "a.flac") -> WindowInput:
    """A window of clips, each of some sentences with short pauses between them, cut as segmentation would."""
    parts, bounds, position = [], [], 0
    for clip in clips:
        start = position
        for turn in clip:
            parts += [turn.audio, PAUSE]
            position += len(turn.audio) + len(PAUSE)
        bounds.append((start, position))
    window = Window(
        recording_id="r" * 32,
        name=name,
        path=name,
        start_sample=FIRST_SAMPLE,
        end_sample=FIRST_SAMPLE + position,
        sample_rate=RATE,
        source=SourceInfo(session=name, language=language),
    )
    candidates = tuple(
        Candidate(clip_id=clip_id(window, a, b), start_sample=a, end_sample=b, turn=0, cut="pause")
        for a, b in ((FIRST_SAMPLE + start, FIRST_SAMPLE + end) for start, end in bounds)
    )
    return WindowInput(WindowResult(window=window, candidates=candidates), WindowAudio(samples=np.concatenate(parts)))


def said(output: WindowOutput) -> list[tuple[str, str]]:
    return [(candidate.language, candidate.text) for candidate in output.result.candidates]


def is_right(candidate: Candidate, *turns: Turn) -> bool:
    wer = error_rate(" ".join(turn.text for turn in turns), candidate.text, turns[0].language)
    return candidate.language == turns[0].language and wer is not None and wer < 0.5


def assert_right(output: WindowOutput, turns: list[Turn]) -> None:
    for candidate, turn in zip(output.result.candidates, turns, strict=True):
        assert is_right(candidate, turn), said(output)


def test_every_clip_has_the_language_that_is_spoken_in_it(stage: Transcribe, sentences: dict[str, list[Turn]]) -> None:
    """Spanish and French turns among English ones were kept as English, with their translation."""
    english, spanish, french = (sentences[language] for language in ("en", "es", "fr"))
    turns = [*english[:3], spanish[1], *english[3:5], french[0], english[5]]
    (output,) = stage.windows([window_of([[turn] for turn in turns])])
    assert_right(output, turns)
    for candidate in output.result.candidates:
        assert candidate.transcript is not None and candidate.transcript.language_confidence > 0.7


def test_a_clip_is_cut_where_its_language_changes(stage: Transcribe, sentences: dict[str, list[Turn]]) -> None:
    english, spanish = sentences["en"], sentences["es"]
    given = window_of([[english[0], spanish[1]], [english[1], english[2]]])
    (output,) = stage.windows([given])
    first, second, third = output.result.candidates
    assert is_right(first, english[0]) and is_right(second, spanish[1]), said(output)
    assert is_right(third, english[1], english[2])
    assert (first.cut, second.cut, third.cut) == ("language", "pause", "pause")
    whole = given.result.candidates[0]
    assert (first.start_sample, second.end_sample) == (whole.start_sample, whole.end_sample)
    assert first.end_sample == second.start_sample
    edge = FIRST_SAMPLE + len(english[0].audio)
    assert 0 <= first.end_sample - edge <= len(PAUSE)
    assert first.clip_id == clip_id(given.result.window, first.start_sample, first.end_sample)
    assert [len(clip) for clip in output.audio.clips] == [
        c.end_sample - c.start_sample for c in output.result.candidates
    ]


def test_what_was_cut_in_vain_is_put_together_again(
    stage: Transcribe, sentences: dict[str, list[Turn]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of ten clips with pauses seems to change its language in one of them."""
    turns = sentences["it"][:2]
    given = window_of([turns, [sentences["it"][2]]])
    monkeypatch.setattr(transcribe, "may_change", lambda *_: True)
    monkeypatch.setattr(transcribe, "changes", lambda heard_NL: [len(heard_NL) - 1])
    (output,) = stage.windows([given])
    assert [one.clip_id for one in output.result.candidates] == [one.clip_id for one in given.result.candidates]
    assert [one.cut for one in output.result.candidates] == ["pause", "pause"]
    assert is_right(output.result.candidates[0], *turns), said(output)


def test_a_given_language_gives_way_to_what_is_spoken(stage: Transcribe, sentences: dict[str, list[Turn]]) -> None:
    """All of the Spanish samples, decoded as English because the manifest said so, were kept as translations."""
    turns = sentences["es"][1:4]
    (output,) = stage.windows([window_of([[turn] for turn in turns], language="en")])
    assert_right(output, turns)


def test_a_dialect_that_is_given_keeps_its_name(stage: Transcribe, sentences: dict[str, list[Turn]]) -> None:
    (output,) = stage.windows([window_of([[sentences["es"][1]]], language="es-MX")])
    assert output.result.candidates[0].language == "es-MX"


def test_a_language_that_the_model_does_not_know_ends_its_recording_alone(
    stage: Transcribe, sentences: dict[str, list[Turn]]
) -> None:
    turn = sentences["en"][0]
    unknown, known = stage.windows([window_of([[turn]], language="eo", name="b.flac"), window_of([[turn]])])
    assert unknown.result.ending is not None and unknown.result.ending.reason == "unknown_language"
    assert "eo" in unknown.result.ending.detail
    assert known.result.ending is None and is_right(known.result.candidates[0], turn)


@pytest.mark.slow
def test_a_unit_is_transcribed_alike_whatever_the_order_of_calls(
    stage: Transcribe, sentences: dict[str, list[Turn]]
) -> None:
    given = [window_of([[sentences["it"][0]], [sentences["ru"][0]]]), window_of([[sentences["fr"][1]]], name="b.flac")]
    first = [output.result for output in stage.windows(given)]
    stage.windows(given[1:])
    assert [output.result for output in stage.windows(given)] == first
    assert all(dataclasses.is_dataclass(candidate.transcript) for one in first for candidate in one.candidates)


def test_words_are_placed_by_the_configured_aligner(
    stage: Transcribe, sentences: dict[str, list[Turn]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CTC model of Latin letters: it cannot place a Russian clip, which says so."""
    folder = save_ctc(tmp_path, WAV2VEC2)
    alignment = AlignmentConfig(backend="ctc", model=folder)
    monkeypatch.setattr(stage, "label", LabelConfig(alignment=alignment))
    monkeypatch.setattr(stage, "aligner", load_aligner(alignment, "cpu", 1))
    (output,) = stage.windows([window_of([[sentences["en"][0]], [sentences["ru"][0]]])])
    english, russian = output.result.candidates
    assert english.transcript is not None and english.transcript.aligner == f"ctc ({folder})"
    assert russian.transcript is not None and russian.transcript.aligner == Transcript(text="").aligner
    assert " ".join(word.word for word in english.words) == english.text and is_right(english, sentences["en"][0])


def test_words_lie_in_their_turns_and_say_how_they_were_timed(
    stage: Transcribe, sentences: dict[str, list[Turn]]
) -> None:
    """A window of half a minute trains letters, a shorter one does not."""
    turns = [turn for turn in sample_turns() if turn.language == "it"]
    clips = [turns[number : number + 3] for number in range(0, 15, 3)]
    long, short = stage.windows([window_of(clips), window_of([[sentences["it"][0]]], name="b.flac")])
    assert {one.transcript.aligner for one in long.result.candidates if one.transcript} == {ALIGNER}
    assert {one.transcript.aligner for one in short.result.candidates if one.transcript} == {
        Transcript(text="").aligner
    }
    starts, ends = [], []
    for candidate, clip in zip(long.result.candidates, clips, strict=True):
        begin = 0.0
        for turn in clip:
            end = begin + len(turn.audio) / RATE
            inside = [word for word in candidate.words if begin <= (word.start + word.end) / 2 < end]
            if inside:
                starts.append(abs(inside[0].start - begin))
                ends.append(abs(inside[-1].end - end))
            begin = end + len(PAUSE) / RATE
    assert len(starts) >= 14 and np.median(starts) <= 0.12 and np.median(ends) <= 0.12
