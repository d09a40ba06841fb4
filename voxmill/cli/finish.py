"""`voxmill finish`: the steps of `annotate` over the whole corpus, alone."""

from pathlib import Path
from typing import Annotated

import typer

from voxmill.cli.keys import show_keys
from voxmill.cli.settings import (
    Corrections,
    JobSettings,
    check_apart,
    check_folder,
    folder_path,
    path_text,
    split_settings,
)
from voxmill.core.errors import PROGRESS_SAVED, command


@command("voxmill finish", resume_hint=PROGRESS_SAVED)
def finish(
    source: Annotated[
        str, typer.Argument(metavar="IN", parser=path_text, help="folder, glob, or JSONL or Parquet manifest")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", parser=folder_path, help="OUT of the jobs that labelled all of IN")
    ],
    settings: JobSettings = None,
    corrections: Corrections = None,
    keys: Annotated[bool, show_keys("annotate")] = False,
) -> None:
    """Makes the dataset of what is labelled: selects clips, packs shards, writes indexes and the report.

    The last part of `voxmill annotate`, with the same settings, for a corpus that several jobs have labelled. Where
    work units are not labelled yet it ends with their number and writes nothing.

    \b
    Example:
      voxmill finish recordings/ dataset/
    """
    from pipelines.annotate import finish_alone
    from pipelines.config import AnnotateConfig
    from voxmill.core.config import load_config

    recipe, overrides = split_settings(settings)
    check_folder(out)
    check_apart(source, out)
    config = load_config(AnnotateConfig, recipe, overrides)
    if corrections is not None:
        config = config.model_copy(update={"corrections": corrections})
    finish_alone(source, out, config)
