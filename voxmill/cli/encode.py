"""`voxmill encode`: latents of a dataset."""

from pathlib import Path
from typing import Annotated

import typer

from voxmill.cli.keys import show_keys
from voxmill.cli.settings import JobSettings, folder_path, split_settings
from voxmill.core.errors import PROGRESS_SAVED, command


@command("voxmill encode", resume_hint=PROGRESS_SAVED)
def encode(
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", parser=folder_path, help="OUT of a finished `voxmill annotate`")
    ],
    vae: Annotated[
        Path, typer.Option(metavar="CKPT", parser=folder_path, help="checkpoint folder whose AudioVAE encodes")
    ],
    settings: JobSettings = None,
    keys: Annotated[bool, show_keys("encode")] = False,
) -> None:
    """Writes the latents of every clip, which training reads.

    DATASET gets latents/<bucket>/*.tar, latents.parquet with a row for each clip, and latents.json. The same command
    resumes after a crash.

    \b
    Examples:
      voxmill encode dataset/ --vae VoxCPM2/
      ray job submit --working-dir . -- python pipelines/encode.py /data/dataset --vae /data/VoxCPM2
    """
    from pipelines.config import EncodeConfig
    from pipelines.encode import encode as run
    from voxmill.core.config import load_config

    recipe, overrides = split_settings(settings)
    run(dataset, vae, load_config(EncodeConfig, recipe, overrides))
