"""LoRA in the released form: adapters on the attention of the LMs and of LocDiT, and on the projections (spec 3.6).

The released code skips tensors that match no layer, so an adapter of another rank or with other targets loads without
an error and without effect. Here every tensor of an adapter must match.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import Field, JsonValue, ValidationError
from torch import Tensor, nn

from model.voxcpm2 import VoxCPM2
from voxmill.core.config import Config
from voxmill.core.errors import UserError
from voxmill.core.tensor_files import differences, open_weights, shapes

CONFIG_FILE = "lora_config.json"
WEIGHT_FILES = ("lora_weights.safetensors", "lora_weights.ckpt")
"""The first that exists is read."""
ATTENTION = ("q_proj", "v_proj", "k_proj", "o_proj")
PROJECTIONS = ("enc_to_lm_proj", "lm_to_dit_proj", "res_to_dit_proj", "fusion_concat_proj")


class LoRAConfig(Config):
    """The adapted layers and the strength of the update, dropout(B A x) * alpha / r."""

    enable_lm: bool = False
    """Linears of TSLM and RALM whose last name is in `target_modules_lm`."""
    enable_dit: bool = False
    """Linears of LocDiT whose last name is in `target_modules_dit`."""
    enable_proj: bool = False
    """Linears between the stacks, named in `target_proj_modules`."""
    r: int = Field(default=8, ge=1)
    """Rank of the adapters."""
    alpha: float = Field(default=16.0, gt=0)
    """Strength of the adapters; the update is scaled by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the update that training sets to zero (0..1)."""
    target_modules_lm: tuple[str, ...] = ATTENTION
    """Last names of the linears adapted in TSLM and RALM."""
    target_modules_dit: tuple[str, ...] = ATTENTION
    """Last names of the linears adapted in LocDiT."""
    target_proj_modules: tuple[str, ...] = PROJECTIONS
    """Linears adapted between the stacks."""


class LoRALinear(nn.Module):
    """A linear layer under its old names `weight` and `bias`, plus `lora_A` [r, in] and `lora_B` [out, r]."""

    def __init__(self, linear: nn.Linear, config: LoRAConfig) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.lora_A = nn.Parameter(self.weight.new_empty(config.r, linear.in_features))
        self.lora_B = nn.Parameter(self.weight.new_zeros(linear.out_features, config.r))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scaling, self.dropout = config.alpha / config.r, config.dropout
        self.enabled = True

    def forward(self, hidden: Tensor) -> Tensor:
        result = F.linear(hidden, self.weight, self.bias)
        if not self.enabled:
            return result
        update = F.linear(F.linear(hidden, self.lora_A), self.lora_B)
        return result + F.dropout(update, self.dropout, self.training) * self.scaling

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain layer with the update inside its weight, summed in fp32 or better."""
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        update = self.lora_B.to(wide) @ self.lora_A.to(wide) * self.scaling
        size = self.weight.shape
        linear = nn.Linear(size[1], size[0], bias=self.bias is not None, device="meta")
        linear.weight = nn.Parameter((self.weight.to(wide) + update).to(self.weight.dtype))
        linear.bias = self.bias
        return linear


def add_lora(model: VoxCPM2, config: LoRAConfig) -> list[str]:
    """Puts adapters, which change nothing yet, into `model` and freezes everything else.

    Returns:
        Names of the adapted layers.

    Raises:
        UserError: nothing is enabled, or a target names no linear layer.
        ValueError: the model has adapters already.
    """
    if any(_adapted(model)):
        raise ValueError("the model has LoRA already; merge it or load the model again")
    targets = _targets(model, config)
    model.requires_grad_(False)
    for name, linear in targets.items():
        assert isinstance(linear, nn.Linear), f"{name} is adapted already"
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, LoRALinear(linear, config).train(model.training))
    return list(targets)


def lora_state(model: VoxCPM2) -> dict[str, Tensor]:
    """The adapters' tensors by their released names, as a fine-tuning saves them."""
    adapted = list(_adapted(model))
    return {f"{name}.{part}": getattr(layer, part) for name, layer in adapted for part in ("lora_A", "lora_B")}


def set_lora_enabled(model: VoxCPM2, enabled: bool) -> None:
    """Switches all adapters on or off; off, the model computes the same as without them."""
    for _, layer in _adapted(model):
        layer.enabled = enabled


def save_lora(folder: str | Path, model: VoxCPM2, config: LoRAConfig, *, base_model: str) -> None:
    """Writes `lora_weights.safetensors` and `lora_config.json` into `folder`.

    Args:
        config: the one given to `add_lora`.
        base_model: the adapted checkpoint, a path or a hub id.

    Raises:
        ValueError: the model's adapters are not those of `config`.
    """
    from safetensors.torch import save_file

    state = lora_state(model)
    wrong = differences(shapes(state), _expected(model, config))
    if wrong:
        raise ValueError(f"the adapters do not match the configuration: {wrong}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().contiguous() for name, tensor in state.items()}, folder / WEIGHT_FILES[0])
    (folder / WEIGHT_FILES[0]).chmod(0o644)  # safetensors makes the file readable by its owner alone
    values = config.model_dump(mode="json")
    if config.alpha.is_integer():
        values["alpha"] = int(config.alpha)  # the released code takes integers only
    text = json.dumps({"base_model": base_model, "lora_config": values}, indent=2, ensure_ascii=False)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def read_lora_config(folder: str | Path) -> LoRAConfig:
    """The configuration of a saved adapter.

    Raises:
        UserError: no such file, not JSON, or a wrong value; names file and value.
    """
    path = Path(folder) / CONFIG_FILE
    try:
        values: JsonValue = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name a LoRA folder") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); copy it again") from None
    if not isinstance(values, dict) or not isinstance(values.get("lora_config"), dict):
        raise UserError(f"{path}: has no lora_config; it must hold r, alpha and the targets")
    try:
        return LoRAConfig.model_validate(values["lora_config"])
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {field} = {first.get('input')!r}: {first['msg']}") from None


def load_lora(model: VoxCPM2, folder: str | Path) -> LoRAConfig:
    """Reads a saved adapter into `model`, adding the adapters where it has none yet.

    Raises:
        UserError: a file is missing or damaged; ranks, targets or sizes of the file, of its configuration and of the
            model differ; names the tensor. The model is then as it was.
    """
    folder = Path(folder)
    config = read_lora_config(folder)
    path = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise UserError(f"{folder}: has neither {' nor '.join(WEIGHT_FILES)}; name a LoRA folder")
    stored = open_weights(path)
    wrong = differences(stored.shapes(), _expected(model, config))
    if wrong:
        raise UserError(f"{path}: {wrong}; use the {CONFIG_FILE} it was saved with, and the model that it adapts")
    present = lora_state(model)
    if not present:
        add_lora(model, config)
        present = lora_state(model)
    wrong = differences(stored.shapes(), shapes(present))
    scalings = {layer.scaling for _, layer in _adapted(model)}
    if wrong or scalings != {config.alpha / config.r}:
        wrong = wrong or f"alpha / r is {config.alpha / config.r:g}, the model's {min(scalings):g}"
        raise UserError(f"{path}: {wrong}; the model has other adapters, load it again without them")
    with torch.no_grad():
        for name, tensor in stored.items():
            present[name].copy_(tensor)
    return config


def merge_lora(model: VoxCPM2) -> None:
    """Adds every adapter to its layer's weight and removes it: a plain model of the same outputs, all trainable."""
    for name, layer in list(_adapted(model)):
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer.merged().train(model.training))
    model.requires_grad_(True)


def _adapted(model: VoxCPM2) -> Iterator[tuple[str, LoRALinear]]:
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            yield name, module


def _targets(model: VoxCPM2, config: LoRAConfig) -> dict[str, nn.Linear | LoRALinear]:
    """The layers to adapt by name, adapted already or not."""
    stacks = {
        "target_modules_lm": ("base_lm.", "residual_lm.") if config.enable_lm else (),
        "target_modules_dit": ("feat_decoder.estimator.",) if config.enable_dit else (),
        "target_proj_modules": ("",) if config.enable_proj else (),
    }
    if not any(stacks.values()):
        raise UserError("LoRA adapts nothing; set enable_lm, enable_dit or enable_proj")
    linears = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | LoRALinear)}
    targets: dict[str, nn.Linear | LoRALinear] = {}
    for field, prefixes in stacks.items():
        for prefix in prefixes:
            # Without a prefix: the layers between the stacks, whose names have no dot.
            inside = [name for name in linears if (name.startswith(prefix) if prefix else "." not in name)]
            for target in getattr(config, field):
                names = [name for name in inside if name.rpartition(".")[2] == target]
                if not names:
                    where = prefix.rstrip(".") or "the model"
                    known = ", ".join(sorted({name.rpartition(".")[2] for name in inside}))
                    raise UserError(f"{field}: {target!r} is no linear layer of {where}; choose from {known}")
                targets |= {name: linears[name] for name in names}
    if not targets:
        raise UserError(
            "LoRA adapts nothing; name layers in target_modules_lm, target_modules_dit or target_proj_modules"
        )
    return targets


def _expected(model: VoxCPM2, config: LoRAConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of an adapter of `config` on `model`."""
    expected: dict[str, tuple[int, ...]] = {}
    for name, layer in _targets(model, config).items():
        num_out, num_in = layer.weight.shape
        expected |= {f"{name}.lora_A": (config.r, num_in), f"{name}.lora_B": (num_out, config.r)}
    return expected
