"""LoRA: the oracle's losses, save, load and merge, and every adapter that does not fit."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.flow.losses import LossSums
from model.layers.attention import Bidirectional
from model.lora import (
    LoRAConfig,
    add_lora,
    load_lora,
    lora_state,
    merge_lora,
    read_lora_config,
    save_lora,
    set_lora_enabled,
)
from model.voxcpm2 import VoxCPM2
from samples.dense import compact, rows_of
from samples.released import is_installed
from tests.model.test_oracle import batch_of, flow_noise_of
from tests.support.oracle import error, read_oracle
from voxmill.core.errors import UserError

ALL = read_lora_config(read_oracle().lora)
LM_LAYERS = read_oracle().config.lm_config.num_hidden_layers + read_oracle().config.residual_lm_num_layers


@pytest.fixture
def model() -> VoxCPM2:
    return read_oracle().core()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the oracle's adapter to damage."""
    return Path(shutil.copytree(read_oracle().lora, tmp_path / "lora"))


def losses(model: VoxCPM2) -> tuple[Tensor, Tensor]:
    batch = batch_of(read_oracle())
    flow_noise = rows_of(flow_noise_of(read_oracle(), 0.0), batch.loss_BT.flatten() > 0)
    sums: LossSums = model(compact(batch), flow_noise=flow_noise)
    return sums.mean()


def stir(model: VoxCPM2) -> None:
    """Adapters that change something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in lora_state(model).values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2)


def total(model: VoxCPM2) -> Tensor:
    return torch.stack(losses(model)).sum()


def test_oracle_losses(model: VoxCPM2) -> None:
    oracle = read_oracle()
    plain = total(model)
    load_lora(model, oracle.lora)
    diffusion, stop = losses(model)
    assert error(diffusion, oracle["lora.loss_diff"]) <= 1e-5
    assert error(stop, oracle["lora.loss_stop"]) <= 1e-5
    assert error(diffusion + stop, plain) > 1e-3  # the adapter has an effect
    assert set(lora_state(model)) == set(oracle.json["lora.trainable"])


def test_only_adapters_train_and_start_as_nothing(model: VoxCPM2) -> None:
    plain = total(model)
    names = add_lora(model, ALL)
    assert error(total(model), plain) <= 1e-6
    total(model).backward()
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert trained == set(lora_state(model)) == {f"{name}.lora_{part}" for name in names for part in "AB"}
    # B starts at zero, so in the first step A has no gradient yet, and B has.
    assert all(value.grad is not None for name, value in model.named_parameters() if name in trained)
    gradients = [value.grad for name, value in lora_state(model).items() if name.endswith("B")]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
    with pytest.raises(ValueError, match="has LoRA already"):
        add_lora(model, ALL)


@pytest.mark.parametrize(
    ("enabled", "inside", "count"),
    [
        ({"enable_lm": True}, ("base_lm", "residual_lm"), 4 * LM_LAYERS),
        ({"enable_dit": True}, ("feat_decoder.estimator.decoder",), 4 * read_oracle().config.dit_config.num_layers),
        ({"enable_proj": True}, ("enc_to_lm_proj", "lm_to_dit_proj", "res_to_dit_proj", "fusion_concat_proj"), 4),
        ({"enable_lm": True, "target_modules_lm": ("up_proj",)}, ("base_lm", "residual_lm"), LM_LAYERS),
        ({"enable_dit": True, "target_modules_dit": ("cond_proj",)}, ("feat_decoder.estimator.cond_proj",), 1),
    ],
)
def test_targets(
    model: VoxCPM2, enabled: dict[str, bool | tuple[str, ...]], inside: tuple[str, ...], count: int
) -> None:
    names = add_lora(model, LoRAConfig.model_validate(enabled))
    assert len(names) == count and all(name.startswith(inside) for name in names)


@torch.no_grad()
def test_merge_and_switch(model: VoxCPM2) -> None:
    before, plain = {name: value.clone() for name, value in model.state_dict().items()}, total(model)
    add_lora(model, ALL)
    stir(model)
    adapted = total(model)
    set_lora_enabled(model, False)
    assert error(total(model), plain) <= 1e-6
    set_lora_enabled(model, True)
    assert error(total(model), adapted) <= 1e-6 and error(adapted, plain) > 1e-3
    merge_lora(model)
    assert model.state_dict().keys() == before.keys() and not lora_state(model)
    assert error(total(model), adapted) <= 1e-5
    assert all(value.requires_grad for value in model.parameters())


def test_dropout_is_for_training_only(model: VoxCPM2) -> None:
    add_lora(model, ALL.model_copy(update={"dropout": 0.5}))
    stir(model)
    hidden = torch.randn(2, 3, read_oracle().config.lm_config.hidden_size)
    stack = model.base_lm

    def twice() -> bool:
        return torch.equal(stack(hidden, Bidirectional()), stack(hidden, Bidirectional()))

    assert twice()
    model.train()
    assert not twice()


def test_round_trip(model: VoxCPM2, tmp_path: Path) -> None:
    add_lora(model, ALL)
    stir(model)
    save_lora(tmp_path / "out", model, ALL, base_model="ckpt")
    other = read_oracle().core()
    assert load_lora(other, tmp_path / "out") == ALL == read_lora_config(tmp_path / "out")
    assert error(total(other), total(model)) <= 1e-6
    load_lora(other, read_oracle().lora)  # into adapters of the same form
    assert error(losses(other)[0], read_oracle()["lora.loss_diff"]) <= 1e-5
    written, original = (
        json.loads((place / "lora_config.json").read_text()) for place in (tmp_path / "out", read_oracle().lora)
    )
    assert written == original and isinstance(written["lora_config"]["alpha"], int)
    with pytest.raises(ValueError, match="do not match the configuration"):
        save_lora(tmp_path / "b", model, ALL.model_copy(update={"r": ALL.r + 1}), base_model="ckpt")


@pytest.mark.skipif(not is_installed(), reason="the released code (voxcpm) is not installed")
def test_released_code_loads_what_we_write(model: VoxCPM2, tmp_path: Path) -> None:
    import transformers  # noqa: F401  (before voxcpm: it must not meet a half-imported torchaudio)
    from voxcpm.model.voxcpm2 import LoRAConfig as ReleasedConfig
    from voxcpm.model.voxcpm2 import VoxCPM2Model

    add_lora(model, ALL)
    stir(model)
    save_lora(tmp_path, model, ALL, base_model="ckpt")
    values = json.loads((tmp_path / "lora_config.json").read_text())["lora_config"]
    peer = VoxCPM2Model.from_local(
        str(read_oracle().checkpoint), optimize=False, device="cpu", lora_config=ReleasedConfig(**values)
    )
    loaded, skipped = peer.load_lora_weights(str(tmp_path))
    assert not skipped and set(loaded) == set(lora_state(model))
    expected = peer.get_lora_state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in lora_state(model).items())


def refusal(model: VoxCPM2, folder: Path) -> str:
    """The error that loading gives: one line, and the model has the tensors that it had before."""
    before = set(model.state_dict())
    with pytest.raises(UserError) as raised:
        load_lora(model, folder)
    assert "\n" not in str(raised.value) and set(model.state_dict()) == before
    return str(raised.value)


def rewrite(folder: Path, **values: object) -> None:
    path = folder / "lora_config.json"
    content = json.loads(path.read_text())
    content["lora_config"] |= values
    path.write_text(json.dumps(content))


def test_rank_mismatch(model: VoxCPM2, folder: Path) -> None:
    size, other = read_oracle().config.lm_config.hidden_size, ALL.model_copy(update={"r": 2 * ALL.r})
    wrong = f"[{ALL.r}, {size}] instead of [{other.r}, {size}]"
    rewrite(folder, r=other.r)
    assert f"base_lm.layers.0.self_attn.q_proj.lora_A is {wrong}" in refusal(model, folder)
    add_lora(model, other)
    message = refusal(model, read_oracle().lora)
    assert f"is {wrong}" in message and "the model has other adapters" in message


def test_target_mismatch(model: VoxCPM2, folder: Path) -> None:
    rewrite(folder, target_proj_modules=["enc_to_lm_proj"])
    assert "unexpected fusion_concat_proj.lora_A" in refusal(model, folder)
    rewrite(folder, target_proj_modules=["enc_to_lm_proj", "wrong_proj"])
    wrong = "target_proj_modules: 'wrong_proj' is no linear layer of the model; choose from enc_to_lm_proj"
    assert wrong in refusal(model, folder)
    rewrite(folder, enable_lm=False, enable_dit=False, enable_proj=False)
    assert "adapts nothing" in refusal(model, folder)
    shutil.rmtree(folder)
    shutil.copytree(read_oracle().lora, folder)
    weights = load_file(folder / "lora_weights.safetensors")
    weights.pop("enc_to_lm_proj.lora_B")
    save_file(weights, folder / "lora_weights.safetensors")
    assert "missing enc_to_lm_proj.lora_B" in refusal(model, folder)


def test_scale_mismatch(model: VoxCPM2, folder: Path) -> None:
    add_lora(model, ALL.model_copy(update={"alpha": 40.0 * ALL.r}))
    assert f"alpha / r is {ALL.alpha / ALL.r:g}, the model's 40" in refusal(model, folder)


def test_missing_and_broken_files(model: VoxCPM2, folder: Path) -> None:
    rewrite(folder, r=0)
    assert "lora_config.json: r = 0" in refusal(model, folder)
    rewrite(folder, r=4, rank=4)
    assert "lora_config.json: rank = 4: Extra inputs" in refusal(model, folder)
    (folder / "lora_config.json").write_text("[]")
    assert "has no lora_config" in refusal(model, folder)
    (folder / "lora_config.json").write_text("{")
    assert "not valid JSON" in refusal(model, folder)
    (folder / "lora_config.json").unlink()
    assert "lora_config.json: cannot be read" in refusal(model, folder)
    shutil.copy(read_oracle().lora / "lora_config.json", folder)
    (folder / "lora_weights.safetensors").unlink()
    assert "neither lora_weights.safetensors nor lora_weights.ckpt" in refusal(model, folder)


def test_older_file_name(model: VoxCPM2, folder: Path) -> None:
    weights = load_file(folder / "lora_weights.safetensors")
    (folder / "lora_weights.safetensors").unlink()
    torch.save({"state_dict": weights}, folder / "lora_weights.ckpt")
    load_lora(model, folder)
    assert all(torch.equal(value, weights[name]) for name, value in lora_state(model).items())
