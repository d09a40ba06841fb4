"""Chunks of several recordings in one batch give what demucs' own inference gives of each recording."""

import numpy as np
import pytest
import torch

from annotation.audio.separation import RATE, Separator
from voxmill.core.assets import asset_path


@pytest.fixture
def separator(monkeypatch: pytest.MonkeyPatch) -> Separator:
    """A separator around two small random Demucs networks that are one model, as `htdemucs_ft` is of four."""
    import demucs.pretrained
    from demucs.apply import BagOfModels
    from demucs.htdemucs import HTDemucs

    torch.manual_seed(0)
    small = {"channels": 16, "depth": 2, "t_layers": 1, "t_heads": 2, "nfft": 1024, "segment": 0.5, "samplerate": RATE}
    networks = [HTDemucs(["drums", "vocals"], **small).eval() for _ in range(2)]
    bag = BagOfModels(networks, [[1.0, 3.0], [1.0, 1.0]])
    monkeypatch.setattr(demucs.pretrained, "get_model", lambda *_, **__: bag)
    made = Separator("small")
    made.bag = bag  # type: ignore[attr-defined]
    return made


def test_a_batch_across_recordings_equals_demucs_own_inference(separator: Separator) -> None:
    from demucs.apply import apply_model

    random = np.random.default_rng(0)
    recordings = [(random.standard_normal(size).astype(np.float32) * 0.1, RATE) for size in (15_000, 75_000, 50_000)]
    expected = []
    for audio, _ in recordings:
        mix_BCT = torch.from_numpy(audio).expand(1, 2, -1)
        with torch.inference_mode():
            stems = apply_model(separator.bag, mix_BCT, shifts=0, split=True, overlap=0.1)  # type: ignore[attr-defined]
        expected.append(stems[0, 1].mean(0).numpy())
    for batch_size in (1, 3, 100):
        separator.batch_size = batch_size
        sizes: list[int] = []
        hook = separator.bag.models[0].register_forward_hook(  # type: ignore[attr-defined]
            lambda _, given, __, sizes=sizes: sizes.append(len(given[0]))
        )
        voices = list(separator(iter(recordings)))
        hook.remove()
        assert max(sizes) == min(batch_size, 8) and sum(sizes) == 8
        for voice, right in zip(voices, expected, strict=True):
            assert voice.shape == right.shape and np.abs(voice - right).max() < 1e-5


def test_the_embedded_separator_equals_demucs_own_inference() -> None:
    from demucs.apply import apply_model

    separator = Separator("embedded", asset_path("spleeter-2stems"))
    network = separator._networks[0]._network
    audio = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.1
    with torch.inference_mode():
        stems = apply_model(network, torch.from_numpy(audio).expand(1, 2, -1), shifts=0, split=True, overlap=0.1)
    (voice,) = separator([(audio, RATE)])
    assert np.abs(voice - stems[0, 0].mean(0).numpy()).max() < 1e-6
