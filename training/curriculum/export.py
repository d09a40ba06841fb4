"""Export of the trained weights in the released layout: a checkpoint, or adapters and, on request, both merged."""

from pathlib import Path

import torch
from torch import Tensor

from model.checkpoint import MODEL_FILES, load_model, load_vae, save_checkpoint, torch_dtype
from model.config import VoxCPM2Config
from model.lora import CONFIG_FILE, add_lora, lora_state, merge_lora, save_lora
from model.voxcpm2 import VoxCPM2
from training.curriculum.recipe import Recipe
from voxmill.core.files import atomic_folder, remove_folder
from voxmill.core.hashing import fingerprint, sha256_file
from voxmill.core.local_copies import local_copy
from voxmill.core.storage import absolute, is_remote, uri
from voxmill.core.tensor_files import INDEX_SUFFIX


def export(weights: dict[str, Tensor], recipe: Recipe, settings: VoxCPM2Config) -> list[Path]:
    """Writes `export/`, and `merged/` where the recipe asks for it, and returns the folders; existing ones stay.

    Args:
        weights: the trained tensors by name, fp32.
    """
    folder, merged = recipe.run.out / "export", recipe.run.out / "merged"
    # Each with the file that is uploaded last.
    last = {folder: "config.json" if recipe.lora is None else CONFIG_FILE}
    if recipe.run.merged:
        last[merged] = "config.json"
    wanted, missing = list(last), [path for path in last if not (path / last[path]).is_file()]
    if not missing:
        return wanted
    for path in missing:
        if is_remote(path):
            remove_folder(path)  # what a killed run began to upload
    model = load_model(recipe.init, settings, dtype=torch.float32)
    if recipe.lora is None:
        model.load_state_dict(weights, strict=True)
        _save(folder, model, recipe, settings)
        return wanted
    add_lora(model, recipe.lora)
    present = lora_state(model)
    assert present.keys() == weights.keys(), "the adapters of the recipe are those that were trained"
    with torch.no_grad():
        for name, tensor in weights.items():
            present[name].copy_(tensor)
    if folder in missing:
        with atomic_folder(folder, last=CONFIG_FILE) as partial:
            save_lora(partial, model, recipe.lora, base_model=uri(absolute(recipe.init)))
    if merged in missing:
        merge_lora(model)
        _save(merged, model, recipe, settings)
    return wanted


def _save(folder: Path, model: VoxCPM2, recipe: Recipe, settings: VoxCPM2Config) -> None:
    """With the AudioVAE and the tokenizer of `init`."""
    save_checkpoint(
        folder,
        config=settings,
        model=model,
        vae=load_vae(recipe.init, settings),
        tokenizer_from=recipe.init,
        dtype=torch_dtype(settings.dtype),
    )


def base_checksum(init: Path) -> str:
    """sha256 of a checkpoint's weights: adapters belong to the weights that they were trained on."""
    folder = local_copy(init)
    file = next(path for name in MODEL_FILES if (path := folder / name).is_file())
    if not file.name.endswith(INDEX_SUFFIX):
        return sha256_file(file)
    # An index has names and sizes only.
    return fingerprint([sha256_file(part) for part in sorted(folder.glob("model-*.safetensors"))])
