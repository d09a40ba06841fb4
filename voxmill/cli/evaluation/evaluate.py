"""`voxmill evaluate`: systems on benchmarks, a codec on recordings, the speed of a checkpoint."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxmill.cli.keys import show_keys
from voxmill.cli.settings import check_folder, folder_path, is_override, local_path, path_text, split_settings
from voxmill.core.errors import PROGRESS_SAVED, ExitStatus, UserError, command

if TYPE_CHECKING:
    from evaluation.config import EvaluateConfig


@command("voxmill evaluate", resume_hint=PROGRESS_SAVED)
def benchmark(
    items: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BENCHMARK... [config.yaml] [key=value ...]", show_default=False, help="KIND:PATH, and settings"
        ),
    ] = None,
    system: Annotated[
        list[str] | None, typer.Option(metavar="NAME=KIND:REST", help="a system; repeat it to compare several")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", parser=folder_path, help="folder for report, scores and speech")
    ] = None,
    sim: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND=PATH", help="a published speaker encoder for SIM: wavlm=PATH or eres2net=PATH"),
    ] = None,
    keys: Annotated[bool, show_keys("evaluate")] = False,
) -> int:
    """Scores systems on benchmarks, with intervals and verdicts, and logs to MLflow; `benchmark` may be left out.

    BENCHMARK is seed-tts-eval:FILE, cv3-eval:FOLDER, minimax-mls:FOLDER, instruct-tts-eval:FILE,
    thirty-languages:FOLDER or texts:FILE.jsonl. A system is checkpoint:FOLDER[#RECIPE], wavs:FOLDER, command:LINE or
    speech:URL#MODEL/VOICE. OUT gets report.html, report.md, results.json, scores/*.jsonl, wavs/ and, unless
    MLFLOW_TRACKING_URI names a server, mlflow.db. The same command resumes after a crash and computes nothing twice.

    \b
    Examples:
      voxmill evaluate seed-tts-eval:en/meta.lst --system ours=checkpoint:VoxCPM2/ --system peer=wavs:peer/ -o scores/
      voxmill evaluate texts:list.jsonl --system peer=wavs:peer/ -o scores/ scoring.metrics=[transcript]
      ray job submit --working-dir . -- python evaluation/evaluate.py texts:/data/list.jsonl ...
    """
    from evaluation.evaluate import evaluate as run

    benchmarks, config = read_items(items or [], sim or [])
    if not system:
        raise UserError("no system; add --system NAME=KIND:REST, such as --system peer=wavs:outputs/")
    if out is None:
        raise UserError("no --out; name a folder for the report, the scores and the speech")
    check_folder(out, "--out")
    outcome = run(benchmarks, system, out, config)
    for note in outcome.notes:
        print(f"voxmill evaluate: {note}", file=sys.stderr)
    print(f"{outcome.computed} scores computed, {outcome.cached} read from the cache, in {outcome.seconds:.1f} s")
    print(f"report: {out / 'report.html'}")
    for problem in outcome.problems:
        print(f"voxmill evaluate: {problem}; {PROGRESS_SAVED}", file=sys.stderr)
    return ExitStatus.FAILED if outcome.problems else ExitStatus.DONE


def read_items(items: Sequence[str], sim: Sequence[str] = ()) -> "tuple[list[str], EvaluateConfig]":
    """(benchmarks as KIND:PATH, configuration) of the words of the command, in any order.

    Raises:
        UserError: something missing or unknown among them.
    """
    from evaluation.benchmarks import READERS
    from evaluation.config import EvaluateConfig
    from evaluation.metrics.similarity import read_sim
    from voxmill.core.config import load_config

    benchmarks = [item for item in items if item.partition(":")[0] in READERS and ":" in item]
    rest = [item for item in items if item not in benchmarks]
    for item in rest:
        if not is_override(item) and not item.endswith((".yaml", ".yml")):
            raise UserError(f"{item!r} names no benchmark; write KIND:PATH with KIND one of {', '.join(READERS)}")
    if not benchmarks:
        raise UserError("no benchmark; name one, such as seed-tts-eval:seedtts_testset/en/meta.lst")
    if len(sim) > 1:
        raise UserError("two --sim; give one and run again with the other: what both have is not computed twice")
    recipe, overrides = split_settings(rest)
    config = load_config(EvaluateConfig, recipe, overrides)
    if sim:
        named = read_sim(sim[0])
        similarity = config.scoring.similarity.model_copy(update={"encoder": named.encoder, "model": named.model})
        scoring = config.scoring.model_copy(update={"similarity": similarity})
        config = config.model_copy(update={"scoring": scoring})
    return benchmarks, config


@command("voxmill evaluate reconstruction")
def reconstruction(
    checkpoint: Annotated[Path, typer.Option(parser=folder_path, help="a folder with config.json and audiovae.pth")],
    data: Annotated[str, typer.Option(parser=path_text, help="a finished dataset, a folder of audio, or a file")],
    out: Annotated[
        Path, typer.Option("-o", "--out", parser=local_path, help="folder for the table and every clip's scores")
    ] = Path("reconstruction"),
    clip_seconds: Annotated[float, typer.Option(help="recordings are cut into pieces of this length")] = 5.0,
    only: Annotated[list[str] | None, typer.Option(help="a recording to take, by name; repeat for more")] = None,
    limit: Annotated[int, typer.Option(help="clips at most, spread over all recordings")] = 200,
    baselines: Annotated[bool, typer.Option("--baselines", help="score naive codecs beside it")] = False,
    pesq: Annotated[bool, typer.Option(help="measure PESQ, the slowest of the measures")] = True,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow server; by default MLFLOW_TRACKING_URI, or OUT/mlflow.db")
    ] = None,
) -> None:
    """Scores what a checkpoint's AudioVAE reconstructs: MelD, STOI, PESQ, SI-SDR (report Table 10).

    \b
    Example:
      voxmill evaluate reconstruction --checkpoint vae/checkpoint-00050000 --data heldout/ -o scores/
    """
    from voxmill.cli.evaluation.reconstruction import Options, run

    check_folder(out, "--out")
    run(
        Options(
            checkpoint=checkpoint,
            data=data,
            out=out,
            clip_seconds=clip_seconds,
            only=tuple(only or ()),
            limit=limit,
            baselines=baselines,
            pesq=pesq,
            tracking_uri=tracking_uri,
        )
    )


@command("voxmill evaluate efficiency")
def efficiency(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", parser=local_path, help="a checkpoint folder in the released layout")
    ],
    texts: Annotated[
        Path,
        typer.Argument(metavar="TEXTS", parser=local_path, help="JSONL of texts, as the benchmark texts:FILE reads it"),
    ],
    concurrency: Annotated[str, typer.Option(help="requests in progress at once, one round for each")] = "1,4,16",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", parser=local_path, help="JSON file for the figures")
    ] = None,
) -> None:
    """Measures RTF, latency of the first patch and memory of a checkpoint (report Table 11).

    Requests are streamed, as a server would. The first round, in which a GPU captures its graphs, is not counted.

    \b
    Example:
      voxmill evaluate efficiency VoxCPM2/ texts.jsonl --concurrency 1,4,16 -o efficiency.json
    """
    from evaluation.metrics.efficiency import report, run

    try:
        levels = [int(level) for level in concurrency.split(",")]
    except ValueError:
        raise UserError(f"--concurrency {concurrency}: write whole numbers, such as 1,4,16") from None
    report(run(checkpoint, texts, levels, device), out)
