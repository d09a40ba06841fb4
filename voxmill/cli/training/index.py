"""`voxmill index`: the clips of a recipe as columns that every rank maps."""

from pathlib import Path
from typing import Annotated

import typer

from voxmill.cli.keys import show_keys
from voxmill.cli.settings import Overrides, check_folder, folder_path, path_text, split_settings
from voxmill.core.errors import command


@command("voxmill index")
def index(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", parser=path_text, help="YAML file, or stage1, finetune_lora and so on")
    ],
    settings: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", parser=folder_path, help="may be a URI; default: run.index, or in run.out"
        ),
    ] = None,
    keys: Annotated[bool, show_keys("train")] = False,
) -> None:
    """Makes the index of a recipe's clips, from which `voxmill train` plans.

    An index has which clips enter, in which modes, how long they and their texts are, their references, and where their
    latents lie: about 100 bytes a clip in files that are mapped, not read, so that a run starts at once and all ranks
    of a machine share them. Transcripts and descriptions lie beside them. `voxmill train` makes one in run.out by
    itself where it has none; make it here once where many runs share it, where it is large, or where it is to lie on a
    fast disk.

    It is that of the datasets as they are now, and of the keys stage, clips, validation.share, validation.clips,
    datasets.NAME.path and init (tokenizer and AudioVAE). Mixture, weights, packing and all others may change. The same
    command makes it again where one of these changed, and otherwise does nothing.

    \b
    Examples:
      voxmill index stage2 init=runs/stage1/export/ datasets.main.path=dataset/
      voxmill index stage2 -o /nvme/stage2-index init=runs/stage1/export/ datasets.main.path=s3://bucket/dataset
      voxmill train stage2 run.index=/nvme/stage2-index init=runs/stage1/export/ datasets.main.path=s3://bucket/dataset
    """
    from training.curriculum.make_index import index_of
    from training.curriculum.recipe import load_recipe

    _, overrides = split_settings(settings, recipe="")
    if output is not None:
        check_folder(output, "DIR")
    print(index_of(load_recipe(recipe, overrides), output))
