"""`voxmill report` and `voxmill export`: a finished dataset as a report, and as the released script's JSONL."""

from pathlib import Path
from typing import Annotated

import typer

from voxmill.cli.keys import show_keys
from voxmill.cli.settings import Overrides, check_folder, folder_path, split_settings
from voxmill.core.errors import UserError, command
from voxmill.core.storage import absolute, uri


@command("voxmill report")
def report(out: Annotated[Path, typer.Argument(metavar="OUT", parser=folder_path, help="a finished dataset")]) -> None:
    """Writes report.html and the dataset card of a finished dataset again.

    \b
    Example:
      voxmill report dataset/
    """
    if not (out / "run.json").exists():
        raise UserError(f"{out}: no run.json there; name the OUT of a finished `voxmill annotate`")
    from pipelines.report.card import write_card
    from pipelines.report.html import write_report

    write_card(out)
    print(write_report(out))


@command("voxmill export")
def export(
    out: Annotated[Path, typer.Argument(metavar="OUT", parser=folder_path, help="a finished dataset")],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", parser=folder_path, help="where train.jsonl and audio/ are written")
    ],
    settings: Overrides = None,
    keys: Annotated[bool, show_keys("export")] = False,
) -> None:
    """Writes a dataset as the JSONL that the released fine-tuning script reads.

    In object storage the JSONL names its audio by URI: the script, which reads files alone, needs it mounted or copied.

    \b
    Example:
      voxmill export dataset/ finetune/ descriptions=2 max_seconds=20
    """
    from pipelines.corpus.export import export as run
    from pipelines.corpus.finetune_jsonl import FinetuneConfig
    from voxmill.core.config import load_config

    _, overrides = split_settings(settings, recipe="")
    check_folder(folder, "FOLDER")
    if uri(absolute(folder)) == uri(absolute(out)):
        raise UserError(f"{folder}: FOLDER is OUT; name another folder for the export")
    for name, count in run(out, folder, load_config(FinetuneConfig, None, overrides)).items():
        print(f"{name}: {count}")
    print(folder / "train.jsonl")
