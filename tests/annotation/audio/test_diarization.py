"""A diarization pipeline in place of the segmentation network: pyannote's own code on the published layout."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotation.audio.diarization import FRAME_SECONDS, DiarizationSegmenter
from annotation.audio.segmentation import SegmentationConfig, SpeechSegmenter, cut
from samples.turns import RATE, sample_turns
from tests.support.saved_diarization import save_pipeline
from voxmill.core.assets import asset_path
from voxmill.core.errors import UserError
from voxmill.core.machine.devices import limit_threads


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Two voices with a pause between them, 7 s: what the network takes at once."""
    limit_threads(1)
    english, russian = (
        next(turn.audio for turn in sample_turns() if turn.language == code and len(turn.audio) > 4 * RATE)
        for code in ("en", "ru")
    )
    return np.concatenate([english[: 3 * RATE], np.zeros(RATE, np.float32), russian[: 3 * RATE]])


def test_clips_are_cut_from_the_pipelines_own_turns(tmp_path: Path, speech: np.ndarray) -> None:
    import torch
    from pyannote.audio import Pipeline
    from pyannote.core import Segment

    path, config = save_pipeline(tmp_path / "pipeline"), SegmentationConfig()
    segmenter = DiarizationSegmenter(config, path)
    active_FS = segmenter.activity(speech)
    published: Any = Pipeline.from_pretrained(path)
    turns = published({"waveform": torch.from_numpy(speech)[None], "sample_rate": RATE}).speaker_diarization
    heard = turns.crop(Segment(0, len(speech) / RATE))
    seconds = [heard.label_duration(label) for label in sorted(heard.labels())]
    np.testing.assert_allclose(active_FS.sum(axis=0) * FRAME_SECONDS, seconds, atol=0.02 * len(heard))
    # Its segmentation network is the embedded one: the same speech is found.
    found = cut(active_FS, FRAME_SECONDS, len(speech) / RATE, config)
    (known,) = SpeechSegmenter(config, asset_path("pyannote-segmentation") / "pytorch_model.bin")([speech])
    assert found.speech_seconds == pytest.approx(known.speech_seconds, abs=0.3) and found.segments
    assert all(0 <= one.start < one.end <= len(speech) / RATE for one in found.segments)
    # Nothing is said, or hardly for a moment.
    silent, short = segmenter([np.zeros(3 * RATE, np.float32), speech[: RATE // 10]])
    assert silent.segments == [] and short.segments == []


def test_what_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("pipeline: {name: pyannote.audio.pipelines.NoSuchPipeline}")
    (tmp_path / "empty").mkdir()
    for place in (tmp_path, tmp_path / "empty"):
        with pytest.raises(UserError, match=r"segmentation\.pipeline=.*pyannote\.audio cannot load it"):
            DiarizationSegmenter(SegmentationConfig(), place)
