"""`voxmill index`: the index of a recipe, made before the run and kept where the user wants it."""

from pathlib import Path

from model.checkpoint import load_vae
from model.codec.latent_space import latent_space
from model.config import read_config
from training.curriculum.corpus import make_index, own_index, space_of
from training.curriculum.index.columns import FILE, TEXTS, IndexFacts, read_facts
from training.curriculum.index.origin import origin_of
from training.curriculum.recipe import Recipe
from voxmill.core.config import differences
from voxmill.core.errors import UserError
from voxmill.core.progress import Progress
from voxmill.core.storage import file_names, uri


def index_of(recipe: Recipe, folder: Path | None = None) -> Path:
    """Makes the index of a recipe where there is none that is up to date, tells what is in it, and returns its folder.

    Args:
        folder: a local path or one in object storage; None: `run.index`, or where the run makes its own.

    Raises:
        UserError: a dataset, the checkpoint or the recipe does not fit, or `folder` holds something else.
        OSError: the index cannot be written.
    """
    space = space_of(recipe, latent_space(load_vae(recipe.init, read_config(recipe.init))))
    origin = origin_of(recipe, space.latent_space)
    target = folder or recipe.run.index or own_index(recipe, origin)
    before = _read(target)
    changed = ["there was none"] if before is None else differences(before.made_from, origin)
    if not changed:
        print(f"{uri(target)} is up to date")
        print(summary(read_facts(target)))
        return target
    if before is not None:
        print(f"{uri(target)} is made again: {'; '.join(changed[:3])}")
    make_index(recipe, target, space, origin, progress=Progress())
    print(summary(read_facts(target)))
    return target


def summary(facts: IndexFacts) -> str:
    """One line about an index."""
    enter = sum(group.stop - group.start for group in facts.groups)
    columns = sum(size for name, size in facts.sizes.items() if name != TEXTS)
    line = (
        f"{facts.clips:,} clips, of which {enter:,} are trained on; {columns / 1e6:.3g} MB of columns "
        f"({columns / max(facts.clips, 1):.0f} bytes a clip), {facts.sizes[TEXTS] / 1e6:.3g} MB of texts"
    )
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(facts.left_out.items()))
    return f"{line}; left out: {reasons}" if reasons else line


def _read(target: Path) -> IndexFacts | None:
    """What is there, None where nothing is or what is there is no whole index of this version.

    Raises:
        UserError: the folder holds something else.
    """
    names = file_names(target)
    if names and FILE not in names:
        raise UserError(f"{target}: holds other files; name a new folder, or an index that is to be made again")
    try:
        return read_facts(target) if names else None
    except UserError:
        # Damaged, or of another version: made again.
        return None
