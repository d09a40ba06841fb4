"""`voxmill listening`: a page to rate speech on, and the scores of its answers."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from voxmill.cli.settings import local_path
from voxmill.core.errors import command


@command("voxmill listening build")
def build(
    scores: Annotated[
        Path, typer.Argument(metavar="SCORES", parser=local_path, help="the --out of a finished `voxmill evaluate`")
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="SESSION", parser=local_path, help="where listen.html and key.json are written")
    ],
    scales: Annotated[str, typer.Option(help="of N (natural), S (like the reference), I (as instructed)")] = "NSI",
    limit: Annotated[int, typer.Option(help="utterances of each benchmark")] = 20,
    seed: Annotated[int, typer.Option(help="seed of the draw and the order")] = 0,
) -> None:
    """Makes one page on which listeners rate the systems, blind, and its key, which stays with you.

    \b
    Example:
      voxmill listening build scores/ session/ --limit 20
    """
    from evaluation.listening.session import build_session
    from evaluation.results.records import read_scores

    session = build_session(read_scores(scores), folder, scales=list(scales), limit=limit, seed=seed)
    for scale, count in session.skipped.items():
        print(f"{scale}-MOS: {count} utterances without what it needs")
    print(f"{session.trials} recordings: {session.page}; keep {session.key} from listeners")


@command("voxmill listening read")
def read(
    folder: Annotated[Path, typer.Argument(metavar="SESSION", parser=local_path, help="the folder with key.json")],
    answers: Annotated[
        Path, typer.Argument(metavar="ANSWERS", parser=local_path, help="a folder of the files that listeners returned")
    ],
) -> None:
    """Prints mean opinion scores with intervals over listeners and items, and how far the listeners agree.

    \b
    Example:
      voxmill listening read session/ answers/
    """
    from evaluation.listening.answers import opinion_scores, read_answers, table

    session = read_answers(folder / "key.json", answers)
    print(table(opinion_scores(session.ratings)))
    for problem in session.problems:
        print(f"voxmill listening read: {problem}", file=sys.stderr)
