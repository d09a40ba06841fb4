"""Transcription by a recogniser of its own for a language: what its clips say, and what is not made up for them."""

from pathlib import Path

import pytest

from annotation.audio.long_clips import is_sure
from annotation.speech.transcription import ATTENTION, TranscriptionConfig
from pipelines.config import LabelConfig, VoiceAttributesConfig
from pipelines.corpus.trust import fits
from pipelines.stages.base import Stage, StageContext, WindowAudio, WindowOutput
from pipelines.stages.transcribe import Transcribe
from samples.turns import sample_turns
from tests.annotation.speech.made_fits import made_fit
from tests.annotation.speech.recognisers.test_endpoint import RECORDED, TEXT
from tests.pipelines.stages.test_transcribe import is_right, said, window_of
from tests.support.saved_recogniser import save_ctc
from tests.support.transcription_server import Answer, transcription_server
from voxmill.core.errors import JobError, UserError
from voxmill.data.records import StageName, WindowResult, WorkUnit


def stage(**transcription: object) -> Transcribe:
    label = LabelConfig(transcription=TranscriptionConfig.model_validate(transcription))
    return Transcribe(
        StageContext(out=Path(), label=label, voice_attributes=VoiceAttributesConfig(), threads=1, device="cpu")
    )


def test_each_language_is_written_by_its_recogniser_and_clips_say_by_which(tmp_path: Path) -> None:
    english, spanish, italian, french = (
        next(turn for turn in sample_turns() if turn.language == code and len(turn.audio) > 32_000)
        for code in ("en", "es", "it", "fr")
    )
    path = save_ctc(tmp_path / "ctc", "ESTANO")
    with transcription_server(lambda *_: Answer(body={"text": TEXT, "segments": RECORDED["segments"]})) as server:
        by_language = {
            "spanish": {"backend": "transformers", "model": path},
            "it": {"backend": "endpoint", "model": "whisper-1", "endpoint": {"url": server.url}},
        }
        by_language["fr"] = {"model": "embedded", "prompt": "Annonces."}
        given = [window_of([[english], [spanish], [italian], [french]])]
        (output,) = stage(by_language=by_language).windows(given)
    first, second, third, fourth = output.result.candidates
    assert (
        is_right(first, english)
        and is_right(fourth, french)
        and [one[0] for one in said(output)] == ["en", "es", "it", "fr"]
    )
    checks = [one.transcript for one in output.result.candidates if one.transcript is not None]
    assert [one.recogniser for one in checks] == [
        "whisper-base", f"transformers {path}", "endpoint whisper-1", "whisper-base"
    ]  # fmt: skip
    assert [one.aligner for one in checks] == [ATTENTION, "ctc of transformers", ATTENTION, ATTENTION]
    assert checks[0].mean_log_probability is not None and checks[1].mean_log_probability is None
    assert checks[2].mean_log_probability == -0.5155 and checks[1].language_confidence > 0.7
    # The endpoint gave no times: the words of its text lie in the clip all the same, without a probability.
    assert third.text == TEXT and " ".join(word.word for word in third.words) == TEXT
    assert {word.probability for word in third.words} == {None}
    assert third.words[-1].end <= len(italian.audio) / 16_000 + 1
    # No fit of another recogniser says how true they are, and unknown figures speak neither for nor against them.
    fit = made_fit(recogniser="whisper-base")
    assert [fits(fit, one) for one in output.result.candidates] == [True, False, False, True]
    config = TranscriptionConfig()
    assert is_sure(first, config) and is_sure(second, config)


def test_a_recogniser_of_all_languages_leaves_the_languages_to_whisper() -> None:
    turn = next(turn for turn in sample_turns() if turn.language == "es" and len(turn.audio) > 32_000)
    with transcription_server(lambda *_: Answer(body=RECORDED)) as server:
        own = stage(backend="endpoint", model="large-v3", endpoint={"url": server.url})
        (output,) = own.windows([window_of([[turn]])])
    assert said(output) == [("es", TEXT)] and server.seen[0].fields["language"] == ["es"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"backend": "funasr"}, "backend funasr needs a model"),
        ({"backend": "funasr", "model": "paraformer-zh", "prompt": "Hi"}, "take no prompt"),
        ({"by_language": {"qqqish": {"model": "large-v3"}}}, "is no language"),
        ({"by_language": {"mul": {"model": "large-v3"}}}, "is not one language"),
        ({"by_language": {"zh": {"model": "a"}, "Chinese": {"model": "b"}}}, "named twice"),
        ({"by_language": {"zh": {"backend": "whisper"}}}, "faster-whisper"),
        ({"by_language": {"zh": {"by_language": {}}}}, "Extra inputs"),
    ],
)
def test_recipes_that_cannot_be_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TranscriptionConfig.model_validate(wrong)


def test_a_model_that_is_not_there_or_of_other_languages_is_named(tmp_path: Path) -> None:
    for backend in ("faster-whisper", "transformers"):
        with pytest.raises(UserError, match=r"transcription\.model=.*nowhere"):
            stage(by_language={"es": {"backend": backend, "model": str(tmp_path / "nowhere")}})
    with pytest.raises(UserError, match=r"by_language\.eo: embedded does not know it"):
        stage(by_language={"esperanto": {"prompt": "Saluton."}})


class Unanswered(Stage):
    """A stage whose server does not answer."""

    name = StageName.TRANSCRIPTION

    def __init__(self) -> None:
        pass

    def window(self, result: WindowResult, audio: WindowAudio) -> WindowOutput:
        raise JobError("whisper-1 at http://127.0.0.1:1/v1 cannot be reached")


def test_a_server_that_does_not_answer_is_no_recordings_fault() -> None:
    turn = next(iter(sample_turns()))
    given = window_of([[turn]])
    unit = WorkUnit(unit_id="u", bucket=0, results=(given.result,), costs={})
    with pytest.raises(JobError, match="cannot be reached"):
        Unanswered().run(unit, [given.audio])
