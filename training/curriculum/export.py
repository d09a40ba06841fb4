"""Export of the trained weights in the released layout: a checkpoint, or adapters and, on request, both merged."""

from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from model.checkpoint import MODEL_FILES, load_model, load_vae, save_checkpoint, torch_dtype
from model.config import VoxCPM2Config, read_config
from model.lora import CONFIG_FILE, add_lora, lora_state, merge_lora, save_lora
from model.run_checkpoint import RECIPE, is_run_checkpoint
from model.voxcpm2 import VoxCPM2
from training.curriculum.recipe import Recipe
from training.run.checkpoint_files import MANIFEST, damage
from training.run.checkpoints import Checkpoints
from training.run.zero_state import AVERAGE, WEIGHT
from voxmill.core.errors import UserError
from voxmill.core.files import atomic_folder, remove_folder, write_atomically
from voxmill.core.hashing import fingerprint, sha256_bytes, sha256_file
from voxmill.core.local_copies import local_copy
from voxmill.core.sharded_tensors import ShardedTensors
from voxmill.core.storage import absolute, is_remote, read_whole, uri
from voxmill.core.tensor_files import INDEX_SUFFIX


def write_recipe(recipe: Recipe) -> None:
    """Writes down how a run was started, for `export_checkpoint`."""
    whole = recipe.model_copy(update={"init": absolute(recipe.init)})
    write_atomically(recipe.run.out / RECIPE, whole.model_dump_json(indent=1) + "\n")


def export_checkpoint(out: Path, folder: Path | None, step: int | None) -> list[Path]:
    """Exports a checkpoint of a run, whether it goes on or not, and returns the folders.

    Args:
        out: the run's folder. folder: new or empty; None: `export-step-N` there. step: None: the newest that is whole.

    Raises:
        UserError: no run or no such checkpoint lies there, or the folder is not empty.
    """
    try:
        recipe = Recipe.model_validate_json((out / RECIPE).read_bytes())
    except FileNotFoundError:
        raise UserError(f"{out}: has no {RECIPE}; name the run.out of a run of `voxmill train`") from None
    except ValidationError as error:
        raise UserError(f"{out / RECIPE}: cannot be read ({error.errors()[0]['msg']}); start the run again") from None
    # Nothing of the state is read but its step.
    checkpoints = Checkpoints(out / "checkpoints", object, keep=1)
    paths = [path for path in checkpoints.paths() if step is None or checkpoints.step_of(path) == step]
    whole = next((path for path in paths if not damage(path)), None)
    if whole is None:
        known = ", ".join(str(checkpoints.step_of(path)) for path in reversed(checkpoints.paths())) or "none"
        raise UserError(
            f"{out}: has no whole checkpoint{'' if step is None else f' of step {step}'}; there are: {known}"
        )
    folder = folder or out / f"export-{whole.name}"
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty; name a new folder")
    return export(weights_of(whole, recipe), recipe, read_config(recipe.init), folder)


def exported_kind(recipe: Recipe) -> str:
    """Which tensors of a run are exported: the weights, or their average where the recipe has one."""
    return WEIGHT if recipe.optimizer.ema is None else AVERAGE


def weights_of(path: Path, recipe: Recipe) -> dict[str, Tensor]:
    """What is exported of a checkpoint, by name."""
    return dict(ShardedTensors(path).whole(exported_kind(recipe)))


def export(
    weights: dict[str, Tensor], recipe: Recipe, settings: VoxCPM2Config, folder: Path | None = None
) -> list[Path]:
    """Writes `export/`, and `merged/` where the recipe asks for it, and returns the folders; existing ones stay.

    Args:
        weights: the trained tensors by name, fp32.
        folder: in place of `run.out/export`; what is merged lies beside it, as `FOLDER-merged`.
    """
    merged = recipe.run.out / "merged" if folder is None else folder.with_name(f"{folder.name}-merged")
    folder = folder or recipe.run.out / "export"
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
    if is_run_checkpoint(init):
        return sha256_bytes(read_whole(init / MANIFEST))
    folder = local_copy(init)
    file = next(path for name in MODEL_FILES if (path := folder / name).is_file())
    if not file.name.endswith(INDEX_SUFFIX):
        return sha256_file(file)
    # An index has names and sizes only.
    return fingerprint([sha256_file(part) for part in sorted(folder.glob("model-*.safetensors"))])
