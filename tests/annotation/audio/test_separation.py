"""Chunks of several recordings in one batch give what demucs' own inference gives of each recording."""

from pathlib import Path

import numpy as np
import pytest
import torch

from annotation.audio.separation import (
    RATE,
    SeparationConfig,
    Separator,
    check_separator,
    plan_separation,
    separator_name,
)
from voxmill.core.assets import asset_path
from voxmill.core.errors import UserError
from voxmill.data.records import Background, Events, Stretch


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

    separator = Separator("spleeter", asset_path("spleeter-2stems"))
    network = separator._networks[0]._network
    audio = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.1
    with torch.inference_mode():
        stems = apply_model(network, torch.from_numpy(audio).expand(1, 2, -1), shifts=0, split=True, overlap=0.1)
    (voice,) = separator([(audio, RATE)])
    assert np.abs(voice - stems[0, 0].mean(0).numpy()).max() < 1e-6


def test_each_background_has_its_model() -> None:
    backgrounds: tuple[Background, ...] = ("music", "noise")
    for config, names in (
        (SeparationConfig(), ["spleeter", "deepfilternet3"]),
        (SeparationConfig(noise_model=None), ["spleeter", "spleeter"]),
        (SeparationConfig(model="htdemucs"), ["htdemucs", "deepfilternet3"]),
        (SeparationConfig(model="htdemucs", noise_model=None), ["htdemucs", "htdemucs"]),
    ):
        assert [separator_name(config, background) for background in backgrounds] == names
    stretches = tuple(
        Stretch(start=start, end=start + 20, music_share=music, snr_db=snr)
        for start, music, snr in (
            (0.0, 0.5, 30.0),
            (20.0, 0.5, 3.0),
            (40.0, 0.1, 3.0),
            (60.0, 0.0, 3.0),
            (80.0, 0.0, 30.0),
        )
    )
    events = Events(speech_seconds=90, music_share=0.2, singing_share=0, snr_db=9, stretches=stretches)
    plan = plan_separation(config, events)
    assert plan.wanted_in == ((0.0, 40.0), (40.0, 80.0)) and plan.backgrounds == ("music", "noise")


def test_names_that_demucs_knows_are_checked_before_any_weights_are_fetched(tmp_path: Path) -> None:
    for name in ("htdemucs", "htdemucs_ft", "htdemucs_6s", "hdemucs_mmi", "mdx", "mdx_extra_q", "955717e8", "spleeter"):
        check_separator(name, "label.separation.model")
    check_separator("hf://somebody/some-model", "label.separation.model")
    with pytest.raises(UserError, match=r"label.separation.model=HTDemucs-ft: .* did you mean htdemucs_ft\?"):
        check_separator("HTDemucs-ft", "label.separation.model")
    with pytest.raises(UserError, match="demucs has such a model; there are .*htdemucs"):
        check_separator("sam-audio", "label.separation.noise_model")
    (tmp_path / "own-1234abcd.th").write_bytes(b"")
    check_separator(f"{tmp_path}/own", "label.separation.model")
    for name in (f"{tmp_path}/other", f"{tmp_path}/nowhere/own"):
        with pytest.raises(UserError, match=r"is no folder with \w+.yaml or"):
            check_separator(name, "label.separation.model")


def test_a_model_that_demucs_exits_over_or_that_has_no_vocals_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="separation.model=/nowhere/own: demucs cannot load it"):
        Separator("/nowhere/own")
    import demucs.pretrained
    from demucs.htdemucs import HTDemucs

    drums = HTDemucs(["drums", "bass"], channels=4, depth=1, t_layers=1, t_heads=2, nfft=256, segment=0.5)
    monkeypatch.setattr(demucs.pretrained, "get_model", lambda *_, **__: drums)
    with pytest.raises(UserError, match="it separates drums, bass and no vocals"):
        Separator("drums")
