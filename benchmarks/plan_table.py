"""Which recipe fits on how many GPUs of which size, by the planner; prints a Markdown table and one JSON line.

    python benchmarks/plan_table.py

The model has the released size. A cell has GB of a rank where the recipe fits as it
is, else the smallest change.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.support.tables import markdown  # noqa: E402
from model.presets import preset  # noqa: E402
from training.curriculum.plan.memory import RecipeMemory, memory_of  # noqa: E402
from training.curriculum.recipe import load_recipe  # noqa: E402

RECIPES = ("stage1", "stage2", "stage3", "finetune_full", "finetune_lora")
WORLDS = (1, 8, 16, 64)
GIGABYTES = (24, 40, 80, 141)


def cell(held: RecipeMemory, world: int, gigabytes: int) -> str:
    """What a rank takes, or what has to be set."""
    if held.fits(world, gigabytes * 1e9):
        return f"{held.of_rank(world).peak / 1e9:.1f}"
    change = held.smallest_change(world, gigabytes * 1e9)
    return change.removeprefix("set ") if change.startswith("set ") else "no"


def main() -> None:
    """Prints both."""
    numbers: dict[str, str] = {}
    rows = []
    for name in RECIPES:
        held = memory_of(load_recipe(name, []), preset("voxcpm2"))
        for world in WORLDS:
            if held.recipe.rows % world:
                continue
            cells = [cell(held, world, gigabytes) for gigabytes in GIGABYTES]
            numbers |= {f"{name}_{world}_{gigabytes}": text for gigabytes, text in zip(GIGABYTES, cells, strict=True)}
            rows.append([name, str(world), *cells])
    print(markdown(["recipe", "GPUs", *(f"{gigabytes} GB" for gigabytes in GIGABYTES)], rows))
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()
