"""`voxmill report` and `voxmill export`: a finished dataset as a report, and in the formats of others."""

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
    out: Annotated[Path, typer.Argument(metavar="DATASET", parser=folder_path, help="OUT of `voxmill annotate`")],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", parser=folder_path, help="where it is written, new or empty, or a URI")
    ],
    settings: Overrides = None,
    exported_as: Annotated[
        str, typer.Option("--as", metavar="FORMAT", help="jsonl, srt, vtt, textgrid, rttm, lhotse or hf")
    ] = "jsonl",
    keys: Annotated[bool, show_keys("export")] = False,
) -> None:
    """Writes the kept clips of a dataset in a format that other tools read.

    \b
    jsonl     train.jsonl and audio for the released fine-tuning script
    srt, vtt  subtitles: a file a recording, a cue a clip (or less, with cue_seconds=7)
    textgrid  for Praat and ELAN: a file a recording, tiers of texts, speakers and words
    rttm      who speaks when: a file a recording, a line a clip
    lhotse    recordings, supervisions and cuts (JSONL.gz) with the clips' audio
    hf        a data set of Hugging Face: Parquet with audio and all labels

    Times in srt, vtt, textgrid and rttm are those of the recording, and a channel that was read by itself has a file of
    its own. The same command completes an export that was ended.

    \b
    Examples:
      voxmill export dataset/ finetune/ descriptions=2 max_seconds=20
      voxmill export dataset/ subtitles/ --as srt cue_seconds=7
      voxmill export s3://bucket/dataset s3://bucket/hf --as hf
    """
    from pipelines.exports.cues import SubtitleConfig
    from pipelines.exports.export import SUBTITLES, ExportFormat, export_as, export_jsonl
    from pipelines.exports.finetune_jsonl import FinetuneConfig
    from voxmill.core.config import load_config

    if exported_as not in set(ExportFormat):
        raise UserError(f"--as {exported_as}: unknown; one of {', '.join(ExportFormat)}")
    _, overrides = split_settings(settings, recipe="")
    check_folder(folder, "FOLDER")
    if uri(absolute(folder)) == uri(absolute(out)):
        raise UserError(f"{folder}: FOLDER is OUT; name another folder for the export")
    written = folder
    if exported_as == ExportFormat.JSONL:
        counts = export_jsonl(out, folder, load_config(FinetuneConfig, None, overrides))
        written = folder / "train.jsonl"
    elif exported_as in SUBTITLES:
        counts = export_as(out, folder, ExportFormat(exported_as), load_config(SubtitleConfig, None, overrides))
    elif overrides:
        raise UserError(f"{overrides[0]!r}: --as {exported_as} has no keys; leave it out")
    else:
        counts = export_as(out, folder, ExportFormat(exported_as))
    for name, count in counts.items():
        print(f"{name}: {count}")
    print(written)
