"""The `voxmill` command. Heavy imports happen inside the commands, so that `--help` answers at once."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from voxmill.core.errors import UserError
from voxmill.core.errors import command as told

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class BenchmarkGroup(TyperGroup):
    """`voxmill evaluate NAME` is the subcommand of that name, and otherwise the benchmark command."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            return "benchmark", self.commands["benchmark"], args
        return super().resolve_command(ctx, args)


evaluate = typer.Typer(
    cls=BenchmarkGroup,
    no_args_is_help=True,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    help="""Scores systems on a benchmark, or a codec: see `voxmill evaluate benchmark --help`.

    Example: voxmill evaluate seed-tts-eval:en/meta.lst --system ours=checkpoint:VoxCPM2/ -o scores/""",
)
app.add_typer(evaluate, name="evaluate")


listening = typer.Typer(no_args_is_help=True, help="Listening tests: a page to rate speech on, and what was answered.")
app.add_typer(listening, name="listening")


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
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="YAML file, or stage1, finetune_lora and so on")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="[key=value ...]", help="overrides")] = None,
    check: Annotated[bool, typer.Option("--check", help="only say what the stage will do")] = False,
) -> None:
    """Trains one stage of the curriculum, or fine-tunes. num_workers=N runs N ranks under Ray Train.

    Example: voxmill train --check stage1 init=VoxCPM2/ datasets.main.path=dataset/
    """
    from training.train import main as run

    raise typer.Exit(run([recipe, *(settings or []), *(["--check"] if check else [])]))


@app.command()
def plan(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="a checkpoint folder, or tiny, small, voxcpm2")
    ] = "voxcpm2",
    gpus: Annotated[int, typer.Option(help="ranks")] = 8,
    gpu_memory: Annotated[float, typer.Option(help="of one GPU, in 1e9 bytes")] = 80.0,
    zero: Annotated[int | None, typer.Option(help="ZeRO stage; none: all are tried")] = None,
    dtype: Annotated[str, typer.Option(help="bfloat16 or float32")] = "bfloat16",
    offload: Annotated[bool, typer.Option("--offload", help="optimizer in CPU memory")] = False,
    recompute: Annotated[bool, typer.Option("--recompute", help="with activation checkpointing only")] = False,
    positions: Annotated[int, typer.Option(help="of a row")] = 8192,
    rows: Annotated[int, typer.Option(help="a step, over all ranks")] = 256,
    audio: Annotated[float, typer.Option(help="share of positions that are audio, all of it targets")] = 1.0,
    train_positions: Annotated[float | None, typer.Option(help="positions to train on: days and GPU-hours")] = None,
    mfu: Annotated[float, typer.Option(help="assumed model FLOPs utilisation")] = 0.4,
    peak_tflops: Annotated[float, typer.Option(help="of one GPU; 989 is an H100's in bf16")] = 989.0,
    audio_hours: Annotated[float | None, typer.Option(help="recordings to annotate: core-hours or GPU-hours")] = None,
    run_json: Annotated[Path | None, typer.Option(help="run.json of a finished dataset, whose speed is taken")] = None,
    hours_per_core_hour: Annotated[float | None, typer.Option(help="hours of audio annotated in a core-hour")] = None,
    hours_per_gpu_hour: Annotated[float | None, typer.Option(help="the same of a GPU")] = None,
    cores: Annotated[int, typer.Option(help="cores that annotate")] = 64,
) -> None:
    """Says what training or annotation will take: memory a rank, what fits, GPU-hours, core-hours.

    Example: voxmill plan VoxCPM2/ --gpus 64 --train-positions 1e11 --mfu 0.4
    """
    from voxmill.cli.plan import Options, run

    run(
        Options(
            model,
            gpus,
            gpu_memory,
            zero,
            dtype,
            offload,
            recompute,
            positions,
            rows,
            audio,
            train_positions,
            mfu,
            peak_tflops,
            audio_hours,
            run_json,
            hours_per_core_hour,
            hours_per_gpu_hour,
            cores,
        )
    )


@app.command()
def report(out: Annotated[Path, typer.Argument(metavar="OUT", help="a finished dataset")]) -> None:
    """Writes report.html and the dataset card of a finished dataset again."""
    if not (out / "run.json").exists():
        raise UserError(f"{out}: no run.json there; name the OUT of a finished `voxmill annotate`")
    from pipelines.report.card import write_card
    from pipelines.report.html import write_report

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
    from pipelines.corpus.export import export as run

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
    from voxmill.cli.generate import Options, run

    run(
        Options(
            checkpoint,
            out,
            text,
            description,
            reference,
            prompt,
            prompt_text,
            requests,
            stream,
            seed,
            lora,
            steps,
            guidance,
            min_len,
            max_len,
            batch,
            device,
            dtype,
        )
    )


@app.command("train-vae", context_settings={"ignore_unknown_options": True})
def train_vae(
    data: Annotated[str, typer.Argument(metavar="DATA", help="a finished dataset, or a folder of audio")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="folder for checkpoints and metrics")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[recipe] [key=value ...]", help="a YAML file, or tiny, small, voxcpm2; and overrides"),
    ] = None,
) -> None:
    """Trains AudioVAE, the codec. The same command goes on after a crash; more ranks by torchrun.

    Example: voxmill train-vae dataset/ vae/ small batch=64
    """
    from training.train_vae import main as run

    raise typer.Exit(run([data, str(out), *(settings or [])]))


@evaluate.command()
def reconstruction(
    checkpoint: Annotated[Path, typer.Option(help="a folder with config.json and audiovae.pth")],
    data: Annotated[str, typer.Option(help="a finished dataset, a folder of audio, or a file")],
    out: Annotated[Path, typer.Option("-o", "--out", help="folder for the table and every clip's scores")] = Path(
        "reconstruction"
    ),
    clip_seconds: Annotated[float, typer.Option(help="recordings are cut into pieces of this length")] = 5.0,
    only: Annotated[list[str] | None, typer.Option(help="a recording to take, by name; repeat for more")] = None,
    limit: Annotated[int, typer.Option(help="clips at most, spread over all")] = 200,
    baselines: Annotated[bool, typer.Option("--baselines", help="score naive codecs beside it")] = False,
    pesq: Annotated[bool, typer.Option(help="PESQ is the slowest measure")] = True,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow; none leaves it out")] = None,
) -> None:
    """Scores what a checkpoint's AudioVAE gives back: MelD, STOI, PESQ, SI-SDR (report Table 10).

    Example: voxmill evaluate reconstruction --checkpoint vae/checkpoint-00050000 --data heldout/
    """
    from voxmill.cli.reconstruction import Options, run

    run(Options(checkpoint, data, out, clip_seconds, tuple(only or ()), limit, baselines, pesq, tracking_uri))


@evaluate.command("benchmark", hidden=True, context_settings={"ignore_unknown_options": True})
def evaluate_benchmark(
    items: Annotated[
        list[str], typer.Argument(metavar="BENCHMARK... [config.yaml] [key=value ...]", help="KIND:PATH, and settings")
    ],
    system: Annotated[list[str], typer.Option(help="NAME=KIND:REST; several are compared")],
    out: Annotated[Path, typer.Option("-o", "--out", help="folder for the report, the scores and the speech")],
    sim: Annotated[str, typer.Option(help="a published speaker encoder for SIM: wavlm=PATH or eres2net=PATH")] = "",
) -> None:
    """Scores systems on a benchmark, with intervals and verdicts, and logs to MLflow.

    BENCHMARK is seed-tts-eval:FILE, cv3-eval:FOLDER, minimax-mls:FOLDER, instruct-tts-eval:FILE,
    thirty-languages:FOLDER or texts:FILE.jsonl. A system is checkpoint:FOLDER[#RECIPE], wavs:FOLDER, command:LINE or
    speech:URL#MODEL/VOICE.

    Example: voxmill evaluate seed-tts-eval:en/meta.lst --system ours=checkpoint:VoxCPM2/ --system peer=wavs:peer/ -o scores/
    """
    from evaluation.evaluate import main as run

    arguments = [argument for one in system for argument in ("--system", one)]
    raise typer.Exit(run([*arguments, *(["--sim", sim] if sim else []), "--out", str(out), *items]))


@listening.command("build")
def listening_build(
    scores: Annotated[Path, typer.Argument(metavar="SCORES", help="the --out of a finished `voxmill evaluate`")],
    folder: Annotated[Path, typer.Argument(metavar="SESSION", help="where listen.html and key.json are written")],
    scales: Annotated[str, typer.Option(help="of N (natural), S (like the reference), I (as instructed)")] = "NSI",
    limit: Annotated[int, typer.Option(help="utterances of each benchmark")] = 20,
    seed: Annotated[int, typer.Option(help="draws and shuffles")] = 0,
) -> None:
    """Makes one page on which listeners rate the systems, blind, and the key to it, which stays with you."""
    from evaluation.listening.session import build_session
    from evaluation.results.records import read_rows

    made = build_session(read_rows(scores), folder, scales=list(scales), limit=limit, seed=seed)
    for scale, count in made.skipped.items():
        print(f"{scale}-MOS: {count} utterances without what it needs")
    print(f"{made.trials} recordings: {made.page}; keep {made.key} from listeners")


@listening.command("read")
def listening_read(
    folder: Annotated[Path, typer.Argument(metavar="SESSION", help="the folder with key.json")],
    answers: Annotated[Path, typer.Argument(metavar="ANSWERS", help="a folder of the files that listeners returned")],
) -> None:
    """Means with intervals over listeners and items, and how far the listeners agree."""
    from evaluation.listening.answers import opinion_scores, read_answers, table

    found = read_answers(folder / "key.json", answers)
    print(table(opinion_scores(found.ratings)))
    for problem in found.problems:
        print(f"voxmill: {problem}", file=sys.stderr)


@app.command()
def fetch() -> None:
    """Fetches the embedded models once (about 400 MB); silent when all is there."""
    from voxmill.core.assets import fetch as fetch_weights

    fetch_weights()


@app.command()
def doctor() -> None:
    """Looks at libraries, embedded models, GPU and disk, and says what is missing and how to mend it."""
    from voxmill.cli.doctor import main as run

    raise typer.Exit(run())


def main() -> None:
    """Entry point: a user's mistake is one line and exit status 2; what the machine cannot do, one line and 1."""
    sys.exit(told("voxmill")(app)())
