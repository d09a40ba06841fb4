"""Checkpoint folders in the released layout, both ways (spec 1.1).

The released code loads with `strict=False`, so a wrong file gives noise. Here every tensor is checked by name and shape
before anything is built from it, and weights go to their device one by one: no second copy of the model in memory.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from model.codec.audio_vae import AudioVAE
from model.config import Dtype, VoxCPM2Config, read_config, write_config
from model.layers.rope import RotaryTable
from model.run_checkpoint import RunWeights, base_of, is_run_checkpoint
from model.sequence.text_tokenizer import FILE as TOKENIZER
from model.sequence.text_tokenizer import TextTokenizer
from model.voxcpm2 import VoxCPM2
from voxmill.core.errors import UserError
from voxmill.core.files import atomic_folder
from voxmill.core.local_copies import local_copy
from voxmill.core.storage import to_path
from voxmill.core.tensor_files import INDEX_SUFFIX, WeightFile, differences, open_weights, shapes

MODEL_FILES = ("model.safetensors", f"model{INDEX_SUFFIX}", "pytorch_model.bin")
VAE_FILES = ("audiovae.safetensors", "audiovae.pth")
"""The first that exists is read."""
TOKENIZER_FILES = (
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "tokenization_voxcpm2.py",
)
LARGEST_FILE = 5_000_000_000
"""Bytes of the model in one file. More is written as several and an index, which the released code does not read: in
bf16 the released size is one file."""
_DTYPES: dict[Dtype, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
    "float32": torch.float32,
    "fp32": torch.float32,
}


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint folder. `model` and `vae` are in eval mode; `vae` is fp32 and frozen."""

    config: VoxCPM2Config
    model: VoxCPM2
    vae: AudioVAE
    tokenizer: TextTokenizer


def load_checkpoint(
    folder: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> Checkpoint:
    """Reads a released checkpoint folder, or a checkpoint of a run in training (`model.run_checkpoint`).

    Args:
        folder: a local path, or a URI, of which this machine keeps a copy in its scratch folder.
        device: where the weights go, tensor by tensor.
        dtype: of the model; None: that of the configuration. The AudioVAE is always fp32.

    Raises:
        UserError: a file is missing, damaged or holds anything but tensors; a tensor is missing, unexpected or of
            another shape; the tokenizer has more ids than the model has embeddings. Names the file and the tensor.
    """
    folder, device = to_path(folder), torch.device(device)
    folder = folder if is_run_checkpoint(folder) else local_copy(folder)
    config = read_config(folder)
    tokenizer = TextTokenizer.from_folder(folder)
    if tokenizer.size > config.lm_config.vocab_size:
        raise UserError(
            f"{folder / TOKENIZER}: has {tokenizer.size} ids and lm_config.vocab_size is "
            f"{config.lm_config.vocab_size}; use the tokenizer that the model was trained with"
        )
    model, vae = load_model(folder, config, device=device, dtype=dtype), load_vae(folder, config, device=device)
    return Checkpoint(config, model, vae, tokenizer)


def load_model(
    folder: str | Path,
    config: VoxCPM2Config,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> VoxCPM2:
    """The model without its AudioVAE, in eval mode; arguments and errors as in `load_checkpoint`."""
    device, dtype = torch.device(device), dtype or torch_dtype(config.dtype)
    with torch.device("meta"):
        model = VoxCPM2(config)
    place = to_path(folder)
    if is_run_checkpoint(place):
        _fill(model, RunWeights(place), place, device, dtype)
    else:
        path = _first(local_copy(place), MODEL_FILES)
        _fill(model, open_weights(path), path, device, dtype)
    for module in model.modules():
        if isinstance(module, RotaryTable):
            module.to_empty(device=device).fill()
            module.to(dtype)
    _check_filled(model)
    return model.eval()


def load_vae(folder: str | Path, config: VoxCPM2Config, *, device: str | torch.device = "cpu") -> AudioVAE:
    """The AudioVAE alone, fp32 and frozen; errors as in `load_checkpoint`."""
    with torch.device("meta"):
        vae = AudioVAE(config.audio_vae_config)
    path = _first(local_copy(base_of(folder)), VAE_FILES)
    _fill(vae, open_weights(path), path, torch.device(device), torch.float32)
    _check_filled(vae)
    return vae.freeze()


def new_checkpoint(config: VoxCPM2Config, *, tokenizer_from: str | Path, seed: int) -> Checkpoint:
    """Random weights, fp32 on the CPU, as PyTorch initialises each layer. The global generator is left unchanged.

    Raises:
        UserError: `tokenizer_from` has no tokenizer.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, vae = VoxCPM2(config), AudioVAE(config.audio_vae_config)
    return Checkpoint(config, model.eval(), vae.freeze(), TextTokenizer.from_folder(tokenizer_from))


def save_checkpoint(
    folder: str | Path,
    *,
    config: VoxCPM2Config,
    model: VoxCPM2,
    vae: AudioVAE,
    tokenizer_from: str | Path,
    dtype: torch.dtype | None = None,
) -> None:
    """Writes a folder that the released tools load; it appears whole or not at all.

    Above `LARGEST_FILE` the model is several files and their index.

    Args:
        folder: must not exist or must be empty; in object storage `config.json` is uploaded last.
        tokenizer_from: folder whose tokenizer files are copied.
        dtype: of the model's tensors in the file; None: unchanged. The AudioVAE is written unchanged.

    Raises:
        UserError: the folder is not empty, or there is no tokenizer to copy.
        ValueError: the tensors are not those of `config`, such as with LoRA that is not merged.
    """
    from huggingface_hub import save_torch_state_dict

    folder, source = to_path(folder), local_copy(base_of(tokenizer_from))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is not empty; name a new folder")
    if not (source / TOKENIZER).is_file():
        raise UserError(f"{source / TOKENIZER}: no such file; a checkpoint needs its tokenizer")
    with torch.device("meta"):
        fresh_model, fresh_vae = VoxCPM2(config), AudioVAE(config.audio_vae_config)
    for module, fresh in ((model, fresh_model), (vae, fresh_vae)):
        wrong = differences(shapes(module.state_dict()), shapes(fresh.state_dict()))
        if wrong:
            raise ValueError(f"the {type(fresh).__name__} does not match the configuration: {wrong}")
    with atomic_folder(folder, last="config.json") as partial:
        write_config(config, partial)
        weights = {name: tensor.to(dtype or tensor.dtype).contiguous() for name, tensor in model.state_dict().items()}
        save_torch_state_dict(weights, partial, max_shard_size=LARGEST_FILE)
        # The released tools all read the .pth; only later ones look for safetensors here.
        torch.save({"state_dict": dict(vae.state_dict())}, partial / VAE_FILES[1])
        for name in TOKENIZER_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, partial / name)


def torch_dtype(name: Dtype) -> torch.dtype:
    """The type that `config.dtype` names, short ("bf16") or long ("bfloat16")."""
    return _DTYPES[name]


def _first(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder}: has neither {' nor '.join(names)}; name a released checkpoint folder")


def _fill(module: nn.Module, stored: WeightFile, path: Path, device: torch.device, dtype: torch.dtype) -> None:
    """Gives `module`, built on the meta device, the tensors of the file or folder at `path`."""
    expected = module.state_dict()
    wrong = differences(stored.shapes(), shapes(expected))
    if wrong:
        raise UserError(f"{path}: {wrong}; copy the weights and the config.json of one model")
    state = {
        name: tensor.to(device, dtype if expected[name].is_floating_point() else expected[name].dtype)
        for name, tensor in stored.items()
    }
    module.load_state_dict(state, assign=True)


def _check_filled(module: nn.Module) -> None:
    missing = [name for name, tensor in [*module.named_parameters(), *module.named_buffers()] if tensor.is_meta]
    assert not missing, f"never filled: {missing}"
