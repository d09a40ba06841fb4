"""`voxmill fit-trust`: what predicts word error rates, fitted anew for a recogniser."""

from pathlib import Path
from typing import Annotated

import typer

from voxmill.cli.settings import folder_path
from voxmill.core.errors import command


@command("voxmill fit-trust")
def fit_trust(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", parser=folder_path, help="`voxmill annotate` of recordings of known words")
    ],
    truth: Annotated[
        Path, typer.Argument(metavar="TRUTH", parser=folder_path, help="JSONL of path, language, and text or turns")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", parser=folder_path, help="the fit, a JSON file")] = Path(
        "wer-fit.json"
    ),
    about: Annotated[str, typer.Option(help="what the recordings are, for whoever reads the fit")] = "",
) -> None:
    """Fits the word error rates that `annotate` predicts, for the recogniser that OUT was made with.

    TRUTH names each recording as the manifest does, with its language, and its text or its turns (start, end, text);
    `voice` groups recordings, and those with `held_out` only show how true the fit is. `python samples/known_text.py`
    makes such recordings in ten languages from Debian packages.

    \b
    Example:
      voxmill fit-trust known/ truth.jsonl -o large-v3.json
      voxmill annotate recordings/ dataset/ label.transcription.model=large-v3 select.wer_fit=large-v3.json
    """
    from rich.console import Console
    from rich.table import Table

    from pipelines.fit_trust import fit_trust as run

    fit = run(out, truth, output, about or truth.name)
    table = Table(title=f"{fit.recogniser}: fifths of {'unseen' if fit.tried_on else 'left-out'} clips", box=None)
    for heading in ("clips", "predicted", "true"):
        table.add_column(heading, justify="right")
    for row in fit.fifths:
        table.add_row(str(row.clips), f"{row.predicted:.3f}", f"{row.true:.3f}")
    console = Console(width=100)
    console.print(table)
    fitted, tried = (sum(row.clips for row in rows) for rows in (fit.fitted_on, fit.tried_on))
    console.print(
        f"fitted on {fitted} clips, tried on {tried}; {fit.left_out} left out: digits, or it is not known what was said"
    )
    print(output)
