"""Checkpoint folders are loaded and written whole, and bad ones are refused."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.checkpoint import load_checkpoint, load_vae, new_checkpoint, save_checkpoint
from model.codec.audio_vae import AudioVAE
from model.config import read_config
from model.presets import preset
from model.voxcpm2 import VoxCPM2
from samples.released import is_installed
from tests.support.oracle import read_oracle
from voxmill.core.errors import UserError

SHAPES = Path(__file__).resolve().parents[1] / "data" / "voxcpm2_shapes.json"
"""Names and shapes of all 889 tensors of the released checkpoint, the AudioVAE's under `audio_vae.`."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the oracle's checkpoint to damage."""
    return Path(shutil.copytree(read_oracle().checkpoint, tmp_path / "ckpt"))


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


def equal(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return actual.keys() == expected.keys() and all(torch.equal(actual[name], expected[name]) for name in expected)


def leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every leaf of nested JSON by its dotted name."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= leaves(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def test_full_size_module_tree_is_the_released_one() -> None:
    released = {name: tuple(shape) for name, shape in json.loads(SHAPES.read_text()).items()}
    config = preset("voxcpm2")
    with torch.device("meta"):
        model, vae = VoxCPM2(config), AudioVAE(config.audio_vae_config)
    loaded = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert len(loaded) == 577 and sum(value.numel() for value in model.parameters()) == 2_290_004_544
    loaded |= {f"audio_vae.{name}": tuple(value.shape) for name, value in vae.state_dict().items()}
    assert loaded == released
    assert vae.decoder.sr_bin_boundaries is not None and vae.decoder.sr_bin_boundaries.dtype == torch.int32
    assert sum(value.numel() for value in vae.state_dict().values()) == 94_213_957


def test_load() -> None:
    oracle = read_oracle()
    loaded = load_checkpoint(oracle.checkpoint)
    assert loaded.config == oracle.config
    assert equal(loaded.model.state_dict(), oracle.weights) and equal(loaded.vae.state_dict(), oracle.vae_weights)
    assert not loaded.model.training and not loaded.vae.training
    assert all(weight.requires_grad for weight in loaded.model.parameters())
    assert not any(weight.requires_grad for weight in loaded.vae.parameters())
    fresh = VoxCPM2(oracle.config)  # tables that no file holds
    tables = [(name, table) for name, table in fresh.named_buffers() if name.endswith("_LD")]
    assert tables and all(torch.equal(loaded.model.get_buffer(name), table) for name, table in tables)


def test_dtype_is_the_configurations_or_the_callers(folder: Path) -> None:
    rounded = load_checkpoint(folder, dtype=torch.bfloat16)
    assert {value.dtype for value in [*rounded.model.parameters(), *rounded.model.buffers()]} == {torch.bfloat16}
    assert rounded.vae.dtype == torch.float32
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"dtype": "bf16"}))
    assert next(load_checkpoint(folder).model.parameters()).dtype == torch.bfloat16
    assert next(load_checkpoint(folder, dtype=torch.float32).model.parameters()).dtype == torch.float32


def test_round_trip(tmp_path: Path) -> None:
    source = read_oracle().checkpoint
    first, target = load_checkpoint(source), tmp_path / "deep" / "copy"
    save_checkpoint(target, config=first.config, model=first.model, vae=first.vae, tokenizer_from=source)
    assert {path.name for path in target.iterdir()} == {path.name for path in source.iterdir()}
    assert not [path for path in target.parent.iterdir() if path != target]  # nothing half-written stays
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in [target, *target.iterdir()])  # others may read
    written, original = (json.loads((place / "config.json").read_text()) for place in (target, source))
    loaded = leaves(written)  # what was left to defaults is written too
    assert {name: loaded[name] for name in leaves(original)} == leaves(original)
    second = load_checkpoint(target)
    assert second.config == first.config
    assert equal(second.model.state_dict(), first.model.state_dict())
    assert equal(second.vae.state_dict(), first.vae.state_dict())
    assert second.tokenizer.encode("hello 你好") == first.tokenizer.encode("hello 你好")


def test_save_in_another_dtype(tmp_path: Path) -> None:
    source = read_oracle().checkpoint
    loaded = load_checkpoint(source)
    save_checkpoint(
        tmp_path / "half",
        config=loaded.config,
        model=loaded.model,
        vae=loaded.vae,
        tokenizer_from=source,
        dtype=torch.bfloat16,
    )
    stored = load_file(tmp_path / "half" / "model.safetensors")
    assert equal(stored, {name: value.bfloat16() for name, value in loaded.model.state_dict().items()})


def test_save_refuses(tmp_path: Path) -> None:
    source = read_oracle().checkpoint
    loaded = load_checkpoint(source)
    with pytest.raises(UserError, match="is not empty"):
        save_checkpoint(source, config=loaded.config, model=loaded.model, vae=loaded.vae, tokenizer_from=source)
    with pytest.raises(UserError, match="tokenizer.json: no such file"):
        save_checkpoint(
            tmp_path / "a", config=loaded.config, model=loaded.model, vae=loaded.vae, tokenizer_from=tmp_path
        )
    loaded.model.stop_head.register_parameter("lora_A", torch.nn.Parameter(torch.zeros(1)))
    with pytest.raises(ValueError, match=r"unexpected stop_head\.lora_A"):
        save_checkpoint(tmp_path / "b", config=loaded.config, model=loaded.model, vae=loaded.vae, tokenizer_from=source)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not is_installed(), reason="the released code (voxcpm) is not installed")
def test_released_code_loads_what_we_write(tmp_path: Path) -> None:
    import transformers  # noqa: F401  (before voxcpm: it must not meet a half-imported torchaudio)
    from voxcpm.model.voxcpm2 import VoxCPM2Model

    oracle, target = read_oracle(), tmp_path / "ours"
    ours = new_checkpoint(oracle.config, tokenizer_from=oracle.checkpoint, seed=3)
    save_checkpoint(target, config=ours.config, model=ours.model, vae=ours.vae, tokenizer_from=oracle.checkpoint)
    peer = VoxCPM2Model.from_local(str(target), optimize=False, device="cpu")
    expected = ours.model.state_dict() | {f"audio_vae.{name}": x for name, x in ours.vae.state_dict().items()}
    assert equal(dict(peer.state_dict()), expected)


def test_a_new_checkpoint_depends_on_its_seed_only() -> None:
    config, source = preset("tiny"), read_oracle().checkpoint
    state = torch.get_rng_state()
    first, second, other = (new_checkpoint(config, tokenizer_from=source, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert equal(first.model.state_dict(), second.model.state_dict())
    assert equal(first.vae.state_dict(), second.vae.state_dict())
    assert not equal(first.model.state_dict(), other.model.state_dict())


def without_residual_lm(weights: dict[str, Tensor]) -> None:
    for name in [name for name in weights if name.startswith("residual_lm")]:
        del weights[name]


def test_missing_extra_and_misshapen_tensors(folder: Path) -> None:
    path = folder / "model.safetensors"
    rewrite(path, lambda weights: weights.__delitem__("fsq_layer.in_proj.bias"))
    with pytest.raises(
        UserError, match=r"model\.safetensors: missing fsq_layer\.in_proj\.bias; copy the weights"
    ) as raised:
        load_checkpoint(folder)
    assert "\n" not in str(raised.value)
    rewrite(path, lambda weights: weights.update({"fsq_layer.in_proj.bias": torch.zeros(3), "stray": torch.zeros(1)}))
    size = read_oracle().config.scalar_quantization_latent_dim
    wrong = rf"fsq_layer\.in_proj\.bias is \[3\] instead of \[{size}\]"
    with pytest.raises(UserError, match=rf"unexpected stray; {wrong}"):
        load_checkpoint(folder)
    rewrite(path, without_residual_lm)
    with pytest.raises(UserError, match="and [0-9]+ more"):
        load_checkpoint(folder)


def test_missing_and_extra_tensors_of_the_audio_vae(folder: Path) -> None:
    weights = dict(read_oracle().vae_weights)
    weights["decoder.stray"] = weights.pop("encoder.fc_mu.bias")
    torch.save({"state_dict": weights}, folder / "audiovae.pth")
    with pytest.raises(UserError, match=r"audiovae\.pth: missing encoder\.fc_mu\.bias; unexpected decoder\.stray"):
        load_checkpoint(folder)


def test_a_large_model_is_several_files_that_must_fit_their_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_checkpoint(read_oracle().checkpoint)
    monkeypatch.setattr("model.checkpoint.LARGEST_FILE", 200_000)
    folder = tmp_path / "large"
    save_checkpoint(
        folder, config=loaded.config, model=loaded.model, vae=loaded.vae, tokenizer_from=read_oracle().checkpoint
    )
    parts = sorted(folder.glob("model-*.safetensors"))
    assert len(parts) > 2 and not (folder / "model.safetensors").exists()
    assert equal(load_checkpoint(folder).model.state_dict(), read_oracle().weights)
    whole = parts[1].read_bytes()
    parts[1].write_bytes(parts[0].read_bytes())
    with pytest.raises(UserError, match=r"model-00002.*: not what model.safetensors.index.json says"):
        load_checkpoint(folder)
    parts[1].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"model-00002.*: damaged"):
        load_checkpoint(folder)
    parts[1].unlink()
    with pytest.raises(UserError, match=r"model-00002.*"):
        load_checkpoint(folder)
    index = folder / "model.safetensors.index.json"
    for damage in ("{", "[]", '{"weight_map": {"stop_head.weight": "../model-00001-of-00004.safetensors"}}'):
        index.write_text(damage)
        with pytest.raises(UserError, match=r"model.safetensors.index.json: "):
            load_checkpoint(folder)


@pytest.mark.parametrize("wrapped", [True, False])
def test_pytorch_model_bin_is_the_second_choice(folder: Path, wrapped: bool) -> None:
    weights = {name: value + 1 for name, value in read_oracle().weights.items()}
    torch.save({"state_dict": weights} if wrapped else weights, folder / "pytorch_model.bin")
    assert equal(load_checkpoint(folder).model.state_dict(), read_oracle().weights)
    (folder / "model.safetensors").unlink()
    assert equal(load_checkpoint(folder).model.state_dict(), weights)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"neither model\.safetensors nor .* nor pytorch_model\.bin"):
        load_checkpoint(folder)


def test_audiovae_safetensors_is_the_first_choice(folder: Path) -> None:
    weights = {name: value + 1 for name, value in read_oracle().vae_weights.items()}
    save_file(weights, folder / "audiovae.safetensors")
    assert equal(load_vae(folder, read_config(folder)).state_dict(), weights)
    for name in ("audiovae.safetensors", "audiovae.pth"):
        (folder / name).unlink()
    with pytest.raises(UserError, match=r"neither audiovae\.safetensors nor audiovae\.pth"):
        load_checkpoint(folder)


class Code:
    """An object whose pickle runs code."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.proof,)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_refused_and_not_run(folder: Path, tmp_path: Path, zipped: bool) -> None:
    proof = tmp_path / "ran"
    if zipped:
        torch.save({"state_dict": {"a": Code(proof)}}, folder / "audiovae.pth")
    else:
        (folder / "audiovae.pth").write_bytes(pickle.dumps({"state_dict": Code(proof)}))
    with pytest.raises(UserError, match=r"audiovae\.pth: refused") as raised:
        load_checkpoint(folder)
    assert "\n" not in str(raised.value) and not proof.exists()


def test_damaged_files(folder: Path) -> None:
    vae = (folder / "audiovae.pth").read_bytes()
    for content in (vae[: len(vae) // 2], b"", b"no archive"):
        (folder / "audiovae.pth").write_bytes(content)
        with pytest.raises(UserError, match=r"audiovae\.pth: (damaged|refused)"):
            load_checkpoint(folder)
    torch.save([torch.zeros(1)], folder / "audiovae.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        load_checkpoint(folder)
    weights = (folder / "model.safetensors").read_bytes()
    for content in (weights[: len(weights) // 2], b""):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(UserError, match=r"model\.safetensors: damaged"):
            load_checkpoint(folder)


def test_tokenizer_larger_than_the_embedding(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    values["lm_config"]["vocab_size"] = 120
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"tokenizer\.json: has [0-9]+ ids and lm_config\.vocab_size is 120"):
        load_checkpoint(folder)
