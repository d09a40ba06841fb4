"""The `voxmill` command: its subcommands, and how each ends. They import heavy libraries only when they run."""

import difflib
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from voxmill.cli import cluster, doctor, export, maintenance
from voxmill.cli.annotate import annotate
from voxmill.cli.encode import encode
from voxmill.cli.evaluation import evaluate, listening
from voxmill.cli.finish import finish
from voxmill.cli.fit_trust import fit_trust
from voxmill.cli.generate import generate
from voxmill.cli.plan import data as plan_data
from voxmill.cli.plan import train as plan_train
from voxmill.cli.settings import ALL_STATUSES, STATUSES
from voxmill.cli.training.index import index
from voxmill.cli.training.init import init
from voxmill.cli.training.train import export_checkpoint, train, train_vae
from voxmill.core.errors import ExitStatus

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
evaluations = typer.Typer(
    help="""Scores systems on benchmarks, a codec on recordings, or the speed of a checkpoint.

    \b
    Examples:
      voxmill evaluate seed-tts-eval:en/meta.lst --system ours=checkpoint:VoxCPM2/ -o scores/
      voxmill evaluate benchmark --help
    """,
    epilog=STATUSES,
)
listenings = typer.Typer(
    help="""Listening tests: a page to rate speech on, and the scores of what listeners answered.

    \b
    Examples:
      voxmill listening build scores/ session/
      voxmill listening read session/ answers/
    """,
    epilog=STATUSES,
)
plans = typer.Typer(
    help="""What a dataset or a training run takes, before any machine is reserved.

    Without a command, `voxmill plan --audio-hours ...` is `plan data` and `voxmill plan MODEL ...` is `plan train`.

    \b
    Examples:
      voxmill plan --audio-hours 2e6 --gpus 64
      voxmill plan VoxCPM2/ --gpus 64 --train-positions 1e11
    """,
    epilog=STATUSES,
)
clusters = typer.Typer(
    help="""Files that start voxmill on Kubernetes, SLURM and `ray up`.

    \b
    Examples:
      voxmill cluster render -o my-cluster/
      voxmill cluster render --keys
    """,
    epilog=STATUSES,
)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        print(f"voxmill {version('voxmill')}")
        raise typer.Exit


@app.callback(epilog=ALL_STATUSES)
def root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="print the version and exit")
    ] = False,
) -> None:
    """Raw recordings to labelled clips in WebDataset shards for VoxCPM2, training and evaluation.

    \b
    Examples:
      voxmill annotate recordings/ dataset/
      voxmill encode dataset/ --vae VoxCPM2/
      voxmill train finetune_lora init=VoxCPM2/ datasets.main.path=dataset/ run.out=run/
    """


app.command(epilog=STATUSES)(annotate)
app.command(epilog=STATUSES)(finish)
app.command(epilog=STATUSES)(encode)
app.command(epilog=STATUSES)(init)
app.command(epilog=STATUSES)(index)
app.command(epilog=ALL_STATUSES)(train)
app.command("export-checkpoint", epilog=STATUSES)(export_checkpoint)
app.command("train-vae", epilog=ALL_STATUSES)(train_vae)
app.command(epilog=STATUSES)(generate)
app.add_typer(evaluations, name="evaluate")
app.add_typer(listenings, name="listening")
app.add_typer(clusters, name="cluster")
app.command("fit-trust", epilog=STATUSES)(fit_trust)
app.command(epilog=STATUSES)(export.report)
app.command(epilog=STATUSES)(export.export)
app.command(epilog=STATUSES)(maintenance.compact)
app.command(epilog=STATUSES)(maintenance.vacuum)
app.add_typer(plans, name="plan")
app.command(epilog=STATUSES)(doctor.fetch)
app.command(epilog=STATUSES)(doctor.doctor)
clusters.command(epilog=STATUSES)(cluster.render)
evaluations.command(epilog=STATUSES)(evaluate.benchmark)
evaluations.command(epilog=STATUSES)(evaluate.reconstruction)
evaluations.command(epilog=STATUSES)(evaluate.efficiency)
listenings.command(epilog=STATUSES)(listening.build)
listenings.command(epilog=STATUSES)(listening.read)
plans.command(epilog=STATUSES)(plan_data.data)
plans.command(epilog=STATUSES)(plan_train.train)

_EVALUATIONS = ("benchmark", "reconstruction", "efficiency")
_PLANS = ("data", "train")


def run(arguments: Sequence[str]) -> int:
    """The exit status of `voxmill ARGUMENTS`; a mistake on the command line is one line on stderr and 2."""
    words = list(arguments) or ["--help"]
    if words[0] == "evaluate" and len(words) > 1 and _is_benchmark(words[1]):
        words.insert(1, "benchmark")
    if words[0] == "plan" and words[1:2] not in ([name] for name in ("-h", "--help", *_PLANS)):
        words.insert(1, "data" if any(word.startswith("--audio-hours") for word in words) else "train")
    try:
        status = typer.main.get_command(app).main(words, prog_name="voxmill", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        print(_usage_line(error, _command_path(words)), file=sys.stderr)
        return ExitStatus.USER_ERROR
    except typer.Abort:
        print("voxmill: interrupted", file=sys.stderr)
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:
        # The reader of `voxmill annotate --keys | head` has left; without this, Python complains when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.FAILED
    return int(status or ExitStatus.DONE) if arguments else ExitStatus.USER_ERROR


def _is_benchmark(word: str) -> bool:
    """Whether `voxmill evaluate WORD ...` stands for `voxmill evaluate benchmark WORD ...`."""
    if word in ("-h", "--help", *_EVALUATIONS):
        return False
    return ":" in word or not difflib.get_close_matches(word, _EVALUATIONS)


def _command_path(words: list[str]) -> str:
    """`voxmill` and the names of the commands that the first words are."""
    known = typer.main.get_command(app)
    path = ["voxmill"]
    for word in words:
        commands = getattr(known, "commands", {})
        if word not in commands:
            break
        known = commands[word]
        path.append(word)
    return " ".join(path)


def _usage_line(error: typer.TyperException, name: str) -> str:
    text = error.format_message().strip().rstrip(".").replace("\n", " ")
    text = re.sub(r"\.? \(Possible options: (.*)\)$", r"; did you mean \1?", text)
    text = text.replace(". Did you mean ", "; did you mean ")
    if text.startswith("No such option: -") and not text.startswith("No such option: --"):
        text += "; a path that begins with - is written ./-path"
    return f"{name}: {text[:1].lower()}{text[1:]}; see {name} --help"


def script(name: str) -> None:
    """Ends the process as `voxmill NAME` with the script's own arguments: for scripts that are run by their path."""
    sys.exit(run([*name.split(), *sys.argv[1:]]))


def main() -> None:
    """Entry point of the `voxmill` command."""
    sys.exit(run(sys.argv[1:]))
