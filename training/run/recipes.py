"""Recipes by name: a YAML file, or one of those that come with voxmill."""

from pathlib import Path

from voxmill.core.errors import UserError


def shipped(folder: Path) -> list[str]:
    """Names of the recipes in a folder that comes with voxmill."""
    return sorted(file.stem for file in folder.glob("*.yaml"))


def find_recipe(name: str | Path, folder: Path) -> Path:
    """The file that is meant by a path, or by the name of a recipe in `folder`.

    Raises:
        UserError: it is neither.
    """
    if Path(name).is_file():
        return Path(name)
    known = shipped(folder)
    if str(name) not in known:
        raise UserError(f"{name}: no such recipe; name a YAML file or one of {', '.join(known)}")
    return folder / f"{name}.yaml"
