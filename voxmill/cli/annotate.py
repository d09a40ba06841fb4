"""`voxmill annotate`: recordings to a dataset."""

import re
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
from voxmill.core.errors import PROGRESS_SAVED, UserError, command


@command("voxmill annotate", resume_hint=PROGRESS_SAVED)
def annotate(
    source: Annotated[
        str, typer.Argument(metavar="IN", parser=path_text, help="folder, glob, or JSONL or Parquet manifest")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", parser=folder_path, help="folder for shards, indexes and the report")
    ],
    settings: JobSettings = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="label share I (from 0) of N alone, for arrays of jobs; then voxmill finish"),
    ] = None,
    corrections: Corrections = None,
    keys: Annotated[bool, show_keys("annotate")] = False,
) -> None:
    """Turns recordings into a dataset: labelled clips in WebDataset shards, with indexes and a report.

    A manifest's lines have `path`, and may have session, speaker, text, language and licence. OUT gets shards/*.tar,
    clips.parquet, rejected.parquet, recordings.parquet, report.html, README.md and run.json. The same command resumes
    after a crash; a changed threshold runs no model again.

    \b
    Examples:
      voxmill annotate recordings/ dataset/
      voxmill annotate recordings/ dataset/ recipe.yaml select.min_dnsmos_ovr=3.0
      voxmill annotate recordings/ dataset/ --corrections corrections.csv
      voxmill annotate recordings/ dataset/ --shard 3/64
      ray job submit --working-dir . -- python pipelines/annotate.py recordings/ /data/dataset
    """
    from pipelines.annotate import Share, annotate_share
    from pipelines.annotate import annotate as run
    from pipelines.config import AnnotateConfig
    from voxmill.core.config import load_config

    recipe, overrides = split_settings(settings)
    check_folder(out)
    check_apart(source, out)
    config = load_config(AnnotateConfig, recipe, overrides)
    if corrections is not None:
        config = config.model_copy(update={"corrections": corrections})
    if shard is None:
        run(source, out, config)
        return
    if corrections is not None:
        raise UserError("--corrections: shares of the work correct nothing; give the file to `voxmill finish`")
    index, count = _share(shard)
    annotate_share(source, out, config, Share(index=index, count=count))


def _share(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise UserError(f"--shard {text}: write I/N, such as 0/64 for the first of 64 shares")
    return int(match[1]), int(match[2])
