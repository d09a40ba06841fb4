"""The clips of a corpus are kept as they are."""

import json
from pathlib import Path

import numpy as np
import soundfile

from pipelines.config import LabelConfig, VoiceAttributesConfig
from pipelines.stages.base import StageContext, WindowAudio
from pipelines.stages.decode import Decode
from tests.pipelines.inputs.corpora.made_corpora import RATE, TURNS, ends, planned, warnings
from voxmill.data.records import WindowResult


def test_clips_of_a_corpus_keep_their_bounds_and_long_ones_end(tmp_path: Path) -> None:
    audio = np.concatenate([said.audio for said in TURNS] * 2)
    soundfile.write(tmp_path / "a.wav", audio, RATE)
    soundfile.write(tmp_path / "b.wav", audio[::-1], RATE)
    rows = [
        (0.0, 2.0),
        (2.5, 2.6),
        (2.7, 2.75),
        (1.5, 3.5),
        (len(audio) / RATE - 1, len(audio) / RATE + 0.05),
        (15.0, 99.0),
    ]
    lines = [{"path": "a.wav", "start": start, "end": end, "text": f"{start}"} for start, end in rows]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, [*lines, {"path": "b.wav", "text": "b"}])))
    label = LabelConfig(segmented=True, window_seconds=31.0)
    plan = planned(tmp_path / "list.jsonl", label)
    windows = [result.window for unit in plan.units for result in unit.results]
    bounds = {(one.name, clip.start / RATE, clip.end / RATE) for one in windows for clip in one.clips}
    seconds = len(audio) / RATE
    assert bounds == {
        ("a.wav", 0.0, 2.0),
        ("a.wav", 1.5, 3.5),
        ("a.wav", 2.5, 2.6),
        ("a.wav", seconds - 1, seconds),
        ("b.wav", 0.0, seconds),
    }
    assert [(one.start_sample, one.end_sample) for one in windows if one.name == "a.wav"][0] == (0, 56_000)
    assert warnings(plan) == {"a.wav": ["segments_overlap", "segment_outside", "segment_short"]}
    context = StageContext(
        out=Path(),
        label=LabelConfig(segmented=True).model_copy(update={"window_seconds": 15.0}),
        voice_attributes=VoiceAttributesConfig(),
        threads=1,
        device="cpu",
    )
    (whole,) = (one for one in windows if one.name == "b.wav")
    ending = Decode(context).window(WindowResult(window=whole), WindowAudio()).result.ending
    assert ending is not None and (ending.reason, ending.value, ending.threshold) == ("clip_too_long", seconds, 15.0)
    outside = {"path": "a.wav", "start": 90.0, "end": 99.0, "text": "x"}
    (tmp_path / "list.jsonl").write_text(json.dumps(outside))
    assert ends(planned(tmp_path / "list.jsonl")) == {"a.wav": "no_segment"}
    assert warnings(planned(tmp_path / "list.jsonl", LabelConfig())) == {"a.wav": ["segment_outside"]}
