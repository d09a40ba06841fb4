"""What an index was made from, by which a run tells whether it is still that of its recipe."""

from pathlib import Path

from pydantic import JsonValue

from model.run_checkpoint import base_of
from model.sequence.text_tokenizer import FILE as TOKENIZER
from training.curriculum.index.columns import FORMAT
from training.curriculum.recipe import Recipe
from voxmill.core.files import list_files
from voxmill.core.hashing import fingerprint, sha256_bytes
from voxmill.core.local_copies import local_copy
from voxmill.core.storage import read_whole
from voxmill.data.dataset import CLIPS_INDEX, LATENTS_INDEX
from voxmill.data.description_kinds import DESCRIBED_MODES, kinds_of
from voxmill.data.snapshot import FILE as SNAPSHOT


def origin_of(recipe: Recipe, latent_space: str) -> dict[str, JsonValue]:
    """All that decides the content of a recipe's index; of a dataset also where its files are copied or moved to.

    Raises:
        OSError: a file cannot be read.
    """
    held_out, clips = recipe.validation, recipe.clips.model_dump(mode="json")
    return {
        "format": FORMAT,
        "stage": recipe.stage,
        "clips": clips,
        "lengths": list[JsonValue](sorted(recipe.mixture.lengths)),
        "validation": None if held_out is None else {"share": held_out.share, "clips": list(held_out.clips)},
        "references": recipe.references.model_dump(mode="json", exclude={"cross_lingual"}),
        "descriptions": {
            mode: list[JsonValue](kinds_of(mode, recipe.mixture.descriptions)) for mode in DESCRIBED_MODES
        },
        "roles": {name: config.role for name, config in recipe.datasets.items()},
        "tokenizer": sha256_bytes((local_copy(base_of(recipe.init)) / TOKENIZER).read_bytes()),
        "latent_space": latent_space,
        "order": list(recipe.datasets),
        "datasets": {name: _files_of(config.path) for name, config in recipe.datasets.items()},
    }


def _files_of(dataset: Path) -> JsonValue:
    """A dataset's clips and its latents: what its snapshot says, and the names and sizes of the indexes' files."""
    snapshot = dataset / SNAPSHOT
    clips: list[JsonValue] = [sha256_bytes(read_whole(snapshot)) if snapshot.is_file() else None]
    return {
        "clips": fingerprint([*clips, *_sizes(dataset, CLIPS_INDEX)])[:16],
        "latents": fingerprint(_sizes(dataset, LATENTS_INDEX))[:16],
    }


def _sizes(dataset: Path, index: str) -> list[JsonValue]:
    path = dataset / index
    if path.is_file():
        return [[index, path.stat().st_size]]
    return [[file.name, file.size] for file in list_files(dataset, index)]
