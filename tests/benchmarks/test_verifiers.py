"""The arithmetic of the verifiers' figures."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.verifiers import accuracy, over_speakers, read_labelled, wilson
from voxmill.core.errors import UserError


def test_wilsons_interval_has_its_known_values() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-3)
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-3)
    assert wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-3)
    assert wilson(0, 0) is None


def test_abstentions_are_neither_right_nor_wrong() -> None:
    found = accuracy(["a", "a", "b", "c"], ["x", "x", "y", "y"], ["x", None, "x", "y"])
    assert (found.clips, found.answered, found.right) == (4, 3, 2)
    nothing = accuracy(["a"], ["x"], [None])
    assert nothing.answered == 0 and nothing.over_clips is None and nothing.over_speakers is None


def test_one_bad_voice_of_three_widens_the_interval_over_speakers_alone() -> None:
    speakers = ["a"] * 20 + ["b"] * 20 + ["c"] * 20
    right = [True] * 40 + [False] * 20
    low, high = over_speakers(speakers, right) or (0.5, 0.5)
    assert low == 0.0 and high == 1.0
    assert over_speakers(["a", "b"], [True, False]) is None
    # Nothing that varies: a bootstrap would claim certainty.
    assert over_speakers(["a", "b", "c"], [True] * 3) is None


def test_a_manifest_is_read_and_a_bad_line_is_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((800, 2)), 8000)
    rows = [{"path": "a.wav", "speaker": "s", "gender": "male"}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    clip = read_labelled(tmp_path / "m.jsonl")[0]
    assert clip.labels == {"gender": "male"} and clip.audio.shape == (1600,)
    (tmp_path / "m.jsonl").write_text('{"path": "a.wav"}')
    with pytest.raises(UserError, match="m.jsonl:1"):
        read_labelled(tmp_path / "m.jsonl")
