"""The `voxmill` command. Heavy imports happen inside the commands, so that `--help` answers at once."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from voxmill.errors import JobError, UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def root() -> None:
    """Raw recordings to labelled clips in WebDataset shards for VoxCPM2."""


@app.command(context_settings={"ignore_unknown_options": True})
def annotate(
    source: Annotated[str, typer.Argument(metavar="IN", help="folder, glob, or JSONL or Parquet manifest")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="folder for shards, indexes and the report")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[config.yaml] [key=value ...]", help="recipe and overrides")
    ] = None,
) -> None:
    """Turns recordings into a dataset. The same command goes on after a crash; a changed threshold runs no model.

    Example: voxmill annotate recordings/ dataset/ select.min_dnsmos_ovr=3.0
    """
    from pipelines.annotate import main as run

    raise typer.Exit(run([source, str(out), *(settings or [])]))


@app.command(context_settings={"ignore_unknown_options": True})
def encode(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="OUT of a finished `voxmill annotate`")],
    vae: Annotated[Path, typer.Option(metavar="CKPT", help="checkpoint folder whose AudioVAE encodes")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[config.yaml] [key=value ...]", help="recipe and overrides")
    ] = None,
) -> None:
    """Writes the latents of every clip, which training reads. The same command goes on after a crash.

    Example: voxmill encode dataset/ --vae VoxCPM2/
    """
    from pipelines.encode import main as run

    raise typer.Exit(run([str(dataset), "--vae", str(vae), *(settings or [])]))


@app.command(context_settings={"ignore_unknown_options": True})
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="YAML file, or stage1, tiny_stage1 and so on")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="[key=value ...]", help="overrides")] = None,
    check: Annotated[bool, typer.Option("--check", help="only say what the stage will do")] = False,
) -> None:
    """Trains one stage of the curriculum.

    Example: voxmill train --check stage1 init=VoxCPM2/ datasets.main.path=dataset/
    """
    from training.train import main as run

    raise typer.Exit(run([recipe, *(settings or []), *(["--check"] if check else [])]))


@app.command()
def report(out: Annotated[Path, typer.Argument(metavar="OUT", help="a finished dataset")]) -> None:
    """Writes report.html and the dataset card of a finished dataset again."""
    if not (out / "run.json").exists():
        raise UserError(f"{out}: no run.json there; name the OUT of a finished `voxmill annotate`")
    from pipelines.card import write_card
    from pipelines.report import write_report

    write_card(out)
    print(write_report(out))


@app.command()
def export(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="a finished dataset")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="where train.jsonl and audio/ are written")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="[key=value ...]")] = None,
) -> None:
    """Writes a dataset as the JSONL that the released fine-tuning script reads.

    Example: voxmill export dataset/ finetune/ descriptions=2 max_seconds=20
    """
    from pipelines.export import export as run

    for name, count in run(out, folder, settings or []).items():
        print(f"{name}: {count}")
    print(folder / "train.jsonl")


@app.command()
def generate(
    checkpoint: Annotated[Path, typer.Option(help="a checkpoint folder in the released layout")],
    out: Annotated[Path, typer.Option("-o", "--out", help="WAV file, - for raw 16-bit PCM on stdout, or a folder")],
    text: Annotated[str | None, typer.Option(help="what to say")] = None,
    description: Annotated[str | None, typer.Option(help='how, such as "a warm, deep voice"')] = None,
    reference: Annotated[Path | None, typer.Option(help="a recording of the speaker")] = None,
    prompt: Annotated[Path | None, typer.Option(help="a recording to go on from")] = None,
    prompt_text: Annotated[str | None, typer.Option(help="what is said in the prompt")] = None,
    requests: Annotated[Path | None, typer.Option(help="JSONL of many requests, generated in a batch")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="write every 160 ms the moment they are there")] = False,
    seed: Annotated[int | None, typer.Option(help="gives the same speech again")] = None,
    lora: Annotated[Path | None, typer.Option(help="folder of LoRA weights to merge")] = None,
    steps: Annotated[int | None, typer.Option(help="Euler steps a patch [10]")] = None,
    guidance: Annotated[float | None, typer.Option(help="guidance weight, 1 to 3 [2.0]")] = None,
    min_len: Annotated[int | None, typer.Option(help="patches before it may stop, less 2 [2]")] = None,
    max_len: Annotated[int | None, typer.Option(help="patches at most [4096]")] = None,
    batch: Annotated[int, typer.Option(help="requests in progress at once")] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    dtype: Annotated[str | None, typer.Option(help="bfloat16 or float32 [the checkpoint's]")] = None,
) -> None:
    """Speaks a text, or every request of a JSONL file.

    Example: voxmill generate --checkpoint VoxCPM2/ --text "Good evening." --reference anna.wav -o evening.wav
    """
    from model.generate_command import Options, run

    run(
        Options(
            checkpoint, out, text, description, reference, prompt, prompt_text, requests, stream, seed, lora, steps,
            guidance, min_len, max_len, batch, device, dtype,
        )
    )  # fmt: skip


@app.command()
def fetch() -> None:
    """Fetches the embedded models once (about 400 MB); silent when all is there."""
    from voxmill.weights import fetch as fetch_weights

    fetch_weights()


@app.command()
def doctor() -> None:
    """Looks at libraries, embedded models, GPU and disk, and says what is missing and how to mend it."""
    from voxmill.doctor import main as run

    raise typer.Exit(run())


def main() -> None:
    """Entry point: a user's mistake is one line and exit status 2; what the machine cannot do, one line and 1."""
    try:
        app()
    except UserError as error:
        print(f"voxmill: {error}", file=sys.stderr)
        sys.exit(2)
    except JobError as error:
        print(f"voxmill: {error}", file=sys.stderr)
        sys.exit(1)
