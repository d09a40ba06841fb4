"""DistillMOS gives its package's own scores, and hears what it should."""

import sys

import numpy as np
import pytest
import soundfile
import torch

from annotation.audio.distillmos import RATE, DistillMos, MosConfig
from samples.turns import SAMPLES
from voxmill.core.errors import UserError
from voxmill.data.records import Label


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    audio, _ = soundfile.read(SAMPLES / "recordings" / "en-1.flac", frames=24 * RATE, dtype="float32")
    return np.asarray(audio)


def test_scores_are_those_of_the_package(speech: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    import distillmos

    ours = DistillMos(MosConfig())
    assert capsys.readouterr().out == ""
    published = distillmos.ConvTransformerSQAModel().eval()
    for seconds in (3.0, 8.5):
        clip = speech[: round(seconds * RATE)]
        with torch.inference_mode():
            expected = float(published(torch.from_numpy(clip)[None]))
        assert ours([clip])[0].value == pytest.approx(expected, abs=1e-4)


def test_noise_and_crackle_are_heard_and_long_clips_measured_at_few_places(speech: np.ndarray) -> None:
    meter = DistillMos(MosConfig(max_hops=1))
    seen = []
    meter._network.register_forward_hook(lambda *_: seen.append(1))
    noisy = speech + np.random.default_rng(0).normal(0, 0.05, len(speech)).astype(np.float32)
    clipped = np.clip(20 * speech, -0.3, 0.3)
    scores = [label.value for label in meter([speech, noisy, clipped])]
    assert len(seen) == 3 and None not in scores
    assert scores[0] > max(scores[1:]) + 0.5  # type: ignore[operator, type-var]


def test_what_cannot_be_scored_has_a_reason(speech: np.ndarray) -> None:
    labels = DistillMos(MosConfig())([speech[:100], np.zeros(RATE, dtype=np.float32)])
    assert labels == [Label(reason="too_short"), Label(reason="silent")]


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distillmos", None)
    with pytest.raises(UserError, match=r"pip install voxmill\[distillmos\]"):
        DistillMos(MosConfig())
