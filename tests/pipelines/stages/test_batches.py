"""Batches that go across the windows of a unit: what each window gets is what it would get alone."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from annotation.audio.segmentation import SegmentationConfig, SpeechSegmenter
from annotation.speech.language_changes import may_change
from annotation.speech.transcription import TranscriptionConfig
from annotation.speech.whisper import WhisperRecogniser
from pipelines.annotate import GPU_BATCH_SECONDS, GPU_UNIT_SECONDS, settle
from pipelines.config import AnnotateConfig
from pipelines.stages.base import BatchStage, StageContext, WindowAudio, WindowInput, WindowOutput, model_source
from pipelines.units.workspace import Workspace
from samples import bad_input
from tests.pipelines.engine.made_results import result_of
from voxmill.core.assets import asset_path
from voxmill.core.errors import UserError
from voxmill.data.records import StageName, WorkUnit


@pytest.fixture(scope="module")
def speech() -> list[np.ndarray]:
    """Turns of two recordings, of 2 to 9 s, float32 at 16 kHz."""
    return [bad_input.turn(name, number).astype(np.float32) for name in ("en-1", "it-1") for number in range(3)]


@pytest.fixture(scope="module")
def recogniser() -> WhisperRecogniser:
    return WhisperRecogniser(TranscriptionConfig(batch_seconds=25.0), asset_path("whisper-base"))


def test_windows_of_all_recordings_share_the_segmenters_batches(speech: list[np.ndarray]) -> None:
    segmenter = SpeechSegmenter(
        SegmentationConfig(), model_source("embedded", "pyannote-segmentation", "pytorch_model.bin")
    )
    recordings = [np.concatenate(speech[:3]), speech[3], speech[4]]
    alone = [segmenter([recording])[0] for recording in recordings]
    sizes: list[int] = []
    segmenter.model.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    together = segmenter(recordings)
    windows = [max(-(-(len(one) - 160_000) // 80_000), 0) + 1 for one in recordings]
    assert max(sizes) <= segmenter.batch_size and sum(sizes) == sum(windows) > 3
    assert len(sizes) == -(-sum(windows) // segmenter.batch_size) < len(recordings)
    assert [[dataclasses.astuple(s) for s in one.segments] for one in together] == [
        [dataclasses.astuple(s) for s in one.segments] for one in alone
    ]


def test_languages_of_all_clips_come_from_few_calls_of_the_encoder(
    speech: list[np.ndarray], recogniser: WhisperRecogniser, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [recogniser.listen([one])[0].probabilities for one in speech]
    shapes: list[tuple[int, ...]] = []
    encode = recogniser.whisper.encode

    def counted(pieces: Sequence[np.ndarray], seconds: float) -> np.ndarray:
        encoded = encode(pieces, seconds)
        shapes.append(encoded.shape)
        return encoded

    monkeypatch.setattr(recogniser.whisper, "encode", counted)
    heard = recogniser.listen(speech)
    together = [one.probabilities for one in heard]
    assert [recogniser.languages[int(np.argmax(one))] for one in together] == ["en"] * 3 + ["it"] * 3
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert len(shapes) < len(speech) and sum(shape[0] for shape in shapes) == len(speech)
    assert all(shape[0] == 1 or shape[0] * shape[1] <= 50 * recogniser.config.batch_seconds for shape in shapes)
    before = len(shapes)
    recogniser.transcribe(heard[:3], ["en"] * 3)
    assert len(shapes) == before


def test_a_glance_at_stretches_needs_no_encoder_and_finds_a_change(
    speech: list[np.ndarray], recogniser: WhisperRecogniser, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed, pure = np.concatenate([speech[0], speech[3]]), np.concatenate(speech[:2])
    heard = recogniser.listen([mixed, pure])
    monkeypatch.setattr(recogniser.whisper, "encode", None)
    found = [
        may_change(recogniser.glance(one, [(0, len(speech[0])), (len(speech[0]), len(clip))]), one.probabilities)
        for one, clip in zip(heard, (mixed, pure), strict=True)
    ]
    assert found == [True, False]


def test_a_batch_of_transcripts_depends_on_its_clips_alone(
    speech: list[np.ndarray], recogniser: WhisperRecogniser
) -> None:
    clips = speech[:3]
    first = recogniser.transcribe_batch(clips, "en")
    with pytest.raises(ValueError, match="xx"):
        recogniser.transcribe_batch(clips, "xx")
    recogniser.transcribe_batch(speech[3:], "it")
    assert recogniser.transcribe_batch(clips[::-1], "en")[::-1] == first
    assert all(transcript.text and transcript.words for transcript in first)
    alone = [recogniser.transcribe_batch([clip], "en")[0] for clip in clips]
    mixed = recogniser.transcribe(recogniser.listen(speech), ["en"] * 3 + ["it"] * 3)[:3]
    for others in (alone, mixed):
        assert [one.text for one in others] == [one.text for one in first]
        assert [w.end for one in others for w in one.words] == [w.end for one in first for w in one.words]
        probabilities = [np.array([one.mean_log_probability for one in side], float) for side in (others, first)]
        np.testing.assert_allclose(probabilities[0], probabilities[1], atol=1e-4)


class Together(BatchStage):
    """Doubles the samples of all windows at once; one that is named so breaks the batch that it is in."""

    name = StageName.SEGMENTATION

    def __init__(self, context: StageContext | None = None) -> None:
        self.batches: list[int] = []

    def windows(self, given: Sequence[WindowInput]) -> list[WindowOutput]:
        self.batches.append(len(given))
        if any(one.result.window.name == "odd" for one in given):
            raise ValueError("odd audio")
        return [WindowOutput(result, WindowAudio(samples=2 * audio.samples), 1) for result, audio in given]


def test_a_window_that_breaks_a_batch_ends_alone() -> None:
    audio = tuple(WindowAudio(samples=np.full(2, value, dtype=np.float32)) for value in (1, 2, 3))
    stage = Together()
    whole = stage.run(WorkUnit(unit_id="u", results=tuple(map(result_of, "abc")), costs={}), audio)
    assert stage.batches == [3] and whole.calls == 3
    assert [sound.samples.tolist() for sound in whole.audio] == [[2, 2], [4, 4], [6, 6]]
    ended = stage.end(result_of("b"), "no_segment").result
    unit = WorkUnit(unit_id="u", results=(result_of("a"), ended, result_of("c")), costs={})
    assert stage.run(unit, audio).unit.results[1].ending == ended.ending and stage.batches[-1] == 2
    broken = WorkUnit(unit_id="u", results=(result_of("a"), result_of("odd"), result_of("c")), costs={})
    output = stage.run(broken, audio)
    first, second, third = output.unit.results
    assert first.ending is None and third.ending is None and output.calls == 2
    assert second.ending is not None and second.ending.reason == "model_error"
    assert stage.batches[-4:] == [3, 1, 1, 1]


def test_lengths_of_units_and_batches_are_those_that_out_was_begun_with(tmp_path: Path, ray_here: None) -> None:
    out = tmp_path / "out"
    with_gpu = AnnotateConfig.model_validate({"run": {"gpus": 1}})
    begun = settle(out, with_gpu)
    assert (begun.unit_seconds, begun.transcription.batch_seconds) == (GPU_UNIT_SECONDS, GPU_BATCH_SECONDS)
    default = settle(out, AnnotateConfig())
    assert (default.unit_seconds, default.transcription.batch_seconds) == (60.0, 120.0)
    with Workspace(out).claim(begun):
        assert settle(out, AnnotateConfig()) == begun
    asked = AnnotateConfig.model_validate({"label": {"transcription": {"batch_seconds": 30}}})
    changed = settle(out, asked)
    assert (changed.unit_seconds, changed.transcription.batch_seconds) == (GPU_UNIT_SECONDS, 30.0)
    with pytest.raises(UserError, match="batch_seconds"), Workspace(out).claim(changed):
        pass
