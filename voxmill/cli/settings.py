"""What follows the positional arguments of a job, `[config.yaml] [key=value ...]`, and checks of its folders."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from voxmill.core.errors import ExitStatus, UserError
from voxmill.core.storage import absolute, is_remote, to_path, uri

JobSettings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[config.yaml] [key=value ...]", show_default=False, help="a YAML file, and values that override it"
    ),
]
Corrections = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", parser=lambda text: folder_path(text), help="CSV of corrected clips; remembered for later runs"
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value ...]", show_default=False, help="values that override it")
]


def path_text(text: str) -> str:
    """A path or URI as it was written; typer shows the error.

    Raises:
        typer.BadParameter: it is empty, as an unset variable of the shell makes it, or a URI of an unknown scheme.
    """
    folder_path(text)
    return text


def folder_path(text: str) -> Path:
    """A path on this machine or in object storage, from what was written.

    Raises:
        typer.BadParameter: it is empty, or a URI that names no storage that voxmill knows.
    """
    if not text:
        raise typer.BadParameter("is empty; name a file or folder")
    try:
        return to_path(text)
    except UserError as error:
        raise typer.BadParameter(str(error)) from None


def local_path(text: str) -> Path:
    """The same where only this machine's file system will do.

    Raises:
        typer.BadParameter: it is empty, or in object storage.
    """
    path = folder_path(text)
    if is_remote(path):
        raise typer.BadParameter(f"{text}: is in object storage; name a path on this machine")
    return path


LocalRank = Annotated[
    int, typer.Option("--local_rank", "--local-rank", hidden=True, help="from deepspeed's launcher; LOCAL_RANK is used")
]

_MEANINGS = {
    ExitStatus.DONE: "done",
    ExitStatus.FAILED: "failed",
    ExitStatus.USER_ERROR: "a mistake on the command line or in a file",
    ExitStatus.STOPPED: "stopped by a signal and saved",
    ExitStatus.HUNG: "a step did not finish in time",
    ExitStatus.INTERRUPTED: "interrupted by Ctrl-C",
}
_ANY = (ExitStatus.DONE, ExitStatus.FAILED, ExitStatus.USER_ERROR, ExitStatus.INTERRUPTED)


def describe_statuses(statuses: Sequence[ExitStatus]) -> str:
    """One line for `--help`, such as "Exit status: 0 done, 1 failed"."""
    return "Exit status: " + ", ".join(f"{int(status)} {_MEANINGS[status]}" for status in statuses) + "."


STATUSES = describe_statuses(_ANY)
ALL_STATUSES = describe_statuses(tuple(ExitStatus))

# What a dotted key looks like; `out/lang=en` does not, so it is a path.
_OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.[\w-]+)*=")


def is_override(word: str) -> bool:
    """Whether a word is `key=value`: a dotted key stands before its first `=`."""
    return _OVERRIDE.match(word) is not None


def split_settings(words: Sequence[str] | None, *, recipe: str = "config.yaml") -> tuple[str | None, list[str]]:
    """(recipe or None, overrides) of what follows the positional arguments.

    Args:
        recipe: what the message calls the one word that is no override; "" where there can be none.

    Raises:
        UserError: a word that is neither, or a second recipe.
    """
    overrides = [word for word in words or () if is_override(word)]
    others = [word for word in words or () if not is_override(word)]
    for word in others[1 if recipe else 0 :]:
        if "=" in word:
            key = word.partition("=")[0]
            problem = "has no key" if not key else f"has no valid key, {key!r}"
            raise UserError(f"{word!r} {problem}; write key=value, such as select.min_seconds=3")
        more = f"at most one {recipe}, and " if recipe else ""
        raise UserError(f"{word!r} is one argument too many; give {more}key=value")
    if others and others[0].startswith("="):
        raise UserError(f"{others[0]!r} has no key; write key=value, such as select.min_seconds=3")
    return (others[0] if others else None), overrides


def check_folder(out: Path, name: str = "OUT") -> None:
    """Raises:
    UserError: `out` exists and is not a folder.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; {name} must be a folder")


def check_apart(source: str | Path, out: Path, names: tuple[str, str] = ("IN", "OUT")) -> None:
    """Raises:
    UserError: `out` is `source` or lies inside it, so that the next run would read what this one writes.
    """
    path = to_path(source)
    if is_remote(path) != is_remote(out):
        return
    folder, inner = uri(absolute(path)), uri(absolute(out))
    if inner == folder:
        raise UserError(f"{out}: {names[1]} is {names[0]}; name another folder for {names[1]}")
    if inner.startswith(f"{folder.rstrip('/')}/") and path.is_dir():
        raise UserError(f"{out}: {names[1]} lies inside {names[0]}; name a folder outside {source}")
