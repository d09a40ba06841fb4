"""WavLM-large SV and ERes2Net against their published code, which was run once on drawn weights: see EXPECTED.

The code: s3prl's WavLM (ec8064b) under seed-tts-eval's ECAPA-TDNN (752f429), and 3D-Speaker's ERes2Net (09e7806). The
real weights were not at hand.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio.compliance.kaldi  # noqa: F401 - holds a tensor, which must not be made on `meta`
from torch import Tensor

from annotation.voice.campplus import log_mel
from evaluation.metrics.encoders.eres2net import ERes2Net, ERes2NetSize
from evaluation.metrics.encoders.wavlm_speaker import WavLMSpeaker, large, published_name
from evaluation.metrics.similarity import Similarity, SimilarityConfig, encoder_name, read_sim
from tests.evaluation.metrics.encoders.drawn_weights import drawn, wave
from voxmill.core.errors import UserError
from voxmill.core.tensor_files import check_state

TENSORS = Path(__file__).parent / "tensors"
HUGE = ERes2NetSize(expansion=4, scale=3, base_width=24)
# The first eight numbers and the norm of the embedding of `wave(1.3)` by the published code on `drawn` weights.
EXPECTED = {
    "base": [-0.859355, -1.053489, 2.686659, 1.473484, 1.017481, -1.763647, 1.875856, 0.021050, 25.662848],
    "two": [2.557624, -1.720954, 1.129345, -0.078630, 0.327815, 1.706260, -1.585505, -0.350779, 7.570645],
    "huge": [-1.225216, 0.424308, -1.573540, -0.040226, -2.330876, 1.635188, 0.877477, -0.353533, 36.889210],
    "wavlm": [-0.482886, 0.248867, -0.569277, -0.313320, -0.079302, 0.382321, -0.350262, -1.155199, 7.362359],
}
# Mean, deviation and one number of each hidden state of the small WavLM.
HIDDEN = [
    (0.063562, 1.123766, -0.987072),
    (0.070481, 1.647243, -0.198775),
    (0.163519, 1.822040, -1.215613),
    (-0.001051, 0.998229, -0.344270),
]


def published(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published network; `{2-5}` in a line stands for four of them."""
    shapes: dict[str, tuple[int, ...]] = {}
    for line in (TENSORS / f"{name}.txt").read_text().splitlines():
        pattern, shape = line.split(" ")
        several = re.search(r"\{(\d+)-(\d+)\}", pattern)
        numbers = range(int(several[1]), int(several[2]) + 1) if several else [None]
        for number in numbers:
            full = pattern if number is None else re.sub(r"\{.*\}", str(number), pattern)
            shapes[full] = tuple(int(size) for size in shape.split("x"))
    return shapes


def shapes_of(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items() if not name.endswith("num_batches_tracked")}


def small_wavlm() -> WavLMSpeaker:
    from transformers import WavLMConfig

    return WavLMSpeaker(
        WavLMConfig(
            hidden_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=96,
            conv_dim=(32,) * 7,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
            num_buckets=320,
            max_bucket_distance=800,
            layerdrop=0.0,
        )
    )


def saved_wavlm(path: Path, **more: Tensor) -> WavLMSpeaker:
    """A small model and its drawn weights in the published layout, as UniSpeech saves them."""
    model = small_wavlm()
    state = drawn({published_name(name): value.shape for name, value in model.state_dict().items()})
    torch.save({"model": state | more}, path)
    return WavLMSpeaker.load(path, model.wavlm.config)


def summary(embedding: Tensor) -> list[float]:
    return [*embedding[0, :8].tolist(), float(embedding.norm())]


def test_names_shapes_and_counts_are_those_of_the_published_networks() -> None:
    with torch.device("meta"):
        wavlm = WavLMSpeaker(large())
        base = ERes2Net(ERes2NetSize(embedding=512))
        wide = ERes2Net(ERes2NetSize(width=64, embedding=512))
        huge = ERes2Net(replace(HUGE, width=64))
    ours = {published_name(name): value for name, value in wavlm.state_dict().items()}
    assert shapes_of(ours) == published("wavlm_large_sv")
    assert shapes_of(wide.state_dict()) == published("eres2net_large")
    assert shapes_of(huge.state_dict()) == published("eres2net_200k")
    counts = [sum(one.numel() for one in model.parameters()) for model in (wavlm, base, wide, huge)]
    assert counts == [323_863_961, 9_887_808, 29_016_704, 55_165_024]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("base", ERes2NetSize()),
        ("two", ERes2NetSize(width=8, embedding=32, two_layers=True)),
        ("huge", replace(HUGE, width=8)),
    ],
)
def test_eres2net_gives_what_its_published_code_gives(name: str, size: ERes2NetSize, tmp_path: Path) -> None:
    path = tmp_path / "weights.ckpt"
    torch.save(drawn({key: value.shape for key, value in ERes2Net(size).state_dict().items()}), path)
    with torch.inference_mode():
        embedding = ERes2Net.load(path)(log_mel(wave(1.3))[None])
    assert summary(embedding) == pytest.approx(EXPECTED[name], abs=2e-4)


def test_wavlm_sv_gives_what_its_published_code_gives(tmp_path: Path) -> None:
    # The classifier of training, which the official scorer passes by too.
    model = saved_wavlm(tmp_path / "weights.pth", **{"loss_calculator.projection.weight": torch.zeros(3, 2)})
    audio = torch.from_numpy(wave(1.3))[None]
    with torch.inference_mode():
        embedding, hidden = model(audio), model.hidden_states(audio)
    assert summary(embedding) == pytest.approx(EXPECTED["wavlm"], abs=2e-4)
    moments = [(float(one.mean()), float(one.std()), float(one[0, 3, 5])) for one in hidden]
    assert np.allclose(moments, HIDDEN, atol=1e-4)


def test_the_hidden_states_are_those_of_torchaudio_too(tmp_path: Path) -> None:
    from torchaudio.models import wavlm_model

    model = saved_wavlm(tmp_path / "weights.pth")
    other = wavlm_model(
        "layer_norm",
        [(32, 10, 5), *[(32, 3, 2)] * 4, *[(32, 2, 2)] * 2],
        False,
        64,
        0.0,
        16,
        4,
        3,
        4,
        320,
        800,
        0.0,
        96,
        0.0,
        0.0,
        True,
        0.0,
        None,
    )
    other.load_state_dict(torchaudio_names(model.wavlm.state_dict()))
    audio = torch.from_numpy(wave(1.3))[None]
    normal = torch.nn.functional.layer_norm(audio, audio.shape[1:])
    with torch.inference_mode():
        ours = model.hidden_states(audio)
        theirs, _ = other.eval().extract_features(normal)
        theirs[-1] = other.encoder.transformer.layer_norm(theirs[-1])
    assert len(ours) == 4 and len(theirs) == 3
    for one, two in zip(ours[1:], theirs, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)


def torchaudio_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers' WavLM as torchaudio names it."""
    named: dict[str, Tensor] = {}
    for name, value in state.items():
        if name == "masked_spec_embed":
            continue
        new = name.replace("encoder.", "encoder.transformer.", 1)
        new = re.sub(r"^feature_projection", "encoder.feature_projection", new)
        new = re.sub(r"attention\.(out_proj)", r"attention.attention.\1", new)
        part = re.fullmatch(r"(.*\.attention)\.([qkv])_proj\.(weight|bias)", new)
        if part is None:
            named[new] = value
        elif part[2] == "q":
            parts = [state[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            named[f"{part[1]}.attention.in_proj_{part[3]}"] = torch.cat(parts)
    return named


def test_sim_is_measured_and_named_by_a_users_weights(tmp_path: Path) -> None:
    path = tmp_path / "mine.ckpt"
    torch.save(drawn({key: value.shape for key, value in ERes2Net(ERes2NetSize(width=8)).state_dict().items()}), path)
    config = read_sim(f"eres2net={path}")
    name = encoder_name(config)
    assert (
        name.name.startswith("ERes2Net (mine.ckpt, sha256 ")
        and name.identity != encoder_name(SimilarityConfig()).identity
    )
    measure = Similarity(config)
    tone, other = wave(1.0), np.random.default_rng(1).normal(0, 0.1, 16000).astype(np.float32)
    same, different = measure(tone, tone, "a"), measure(other, tone, "a")
    assert same == pytest.approx(1.0, abs=1e-5) and different is not None and different < 0.999
    assert measure(np.zeros(16000, dtype=np.float32), tone, "a") is None
    # Other weights are another model for the cache.
    torch.save(torch.load(path) | {"seg_1.bias": torch.zeros(192)}, tmp_path / "other.ckpt")
    assert encoder_name(read_sim(f"eres2net={tmp_path / 'other.ckpt'}")).identity != name.identity


class _Gadget:
    """What a hostile file would run."""

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        import os

        return os.mkdir, ("was-executed",)


def test_a_wrong_file_is_named_with_its_first_wrong_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = small_wavlm()
    good = {published_name(name): value for name, value in model.state_dict().items()}
    eres = ERes2Net(ERes2NetSize(width=8)).state_dict()
    files = {
        "gone": good | {},
        "more": good | {"feature_extract.model.encoder.layers.3.fc1.weight": torch.zeros(2)},
        "shape": good | {"linear.bias": torch.zeros(3)},
    }
    del files["gone"]["feature_extract.model.mask_emb"]
    messages = {
        "gone": "missing feature_extract.model.mask_emb; name the weights",
        "more": "unexpected feature_extract.model.encoder.layers.3.fc1.weight",
        "shape": r"linear.bias is \[3\] instead of \[256\]",
    }
    for name, state in files.items():
        torch.save({"model": state}, tmp_path / name)
        with pytest.raises(UserError, match=messages[name]) as caught:
            WavLMSpeaker.load(tmp_path / name, model.wavlm.config)
        assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)
    torch.save(good, tmp_path / "swapped")
    with pytest.raises(UserError, match="not the weights of ERes2Net: conv1.weight is missing"):
        ERes2Net.load(tmp_path / "swapped")
    torch.save({key: value for key, value in eres.items() if key != "bn1.bias"}, tmp_path / "part")
    with pytest.raises(UserError, match="missing bn1.bias"):
        ERes2Net.load(tmp_path / "part")
    (tmp_path / "text").write_text("no weights")
    torch.save({"model": _Gadget()}, tmp_path / "pickle")
    torch.save([torch.zeros(1)], tmp_path / "list")
    for name in ("text", "pickle", "list", "none"):
        with pytest.raises(UserError, match=f"--sim .*{name}") as caught:
            ERes2Net.load(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "was-executed").exists()
    # Counters of batch norms may be left out.
    check_state({k: v for k, v in eres.items() if "num_batches" not in k}, eres, tmp_path, what="ERes2Net")


@pytest.mark.parametrize("named", ["wavlm", "wavlm=", "campplus=x.pt", "=x"])
def test_sim_wants_a_kind_and_a_file(named: str) -> None:
    with pytest.raises(UserError, match="KIND=PATH"):
        read_sim(named)
    with pytest.raises(UserError, match="no such file"):
        encoder_name(SimilarityConfig(encoder="wavlm"))
