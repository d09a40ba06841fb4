"""The two ways a command ends early, and how every command tells them: one line, no traceback, and an exit status."""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")
INTERRUPTED = 130
"""Exit status after Ctrl-C, as a shell has it."""


class UserError(Exception):
    """A mistake of the user, with its mend: names the file, line or value. Exit status 2."""


class JobError(Exception):
    """The machine cannot go on (no space, no memory, a missing library). Nothing done is lost. Exit status 1."""


def command(name: str, *, goes_on: str = "") -> Callable[[Callable[P, int | None]], Callable[P, int]]:
    """Makes a function an exit status: what it returns (None: 0), or a line on stderr and 2, 1 or 130.

    Args:
        name: what the line begins with, such as "voxmill train".
        goes_on: what the line ends with where the same command may be given again.
    """

    def decorate(work: Callable[P, int | None]) -> Callable[P, int]:
        @functools.wraps(work)
        def told(*args: P.args, **kwargs: P.kwargs) -> int:
            try:
                return work(*args, **kwargs) or 0
            except (UserError, JobError, OSError, KeyboardInterrupt) as error:
                status, line = ending(error, goes_on=goes_on)
                print(f"{name}: {line}", file=sys.stderr)
                return status

        return told

    return decorate


def ending(error: BaseException, *, goes_on: str = "") -> tuple[int, str]:
    """(exit status, line) of how a command ended.

    Args:
        error: a UserError, a JobError, an OSError or a KeyboardInterrupt.
        goes_on: follows whatever is no mistake of the user.
    """
    if isinstance(error, UserError):
        return 2, str(error)
    rest = f"; {goes_on}" if goes_on else ""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, f"interrupted{rest}"
    if isinstance(error, OSError) and error.strerror:
        place = f" ({error.filename})" if error.filename else ""
        return 1, f"{error.strerror}{place}{rest}"
    return 1, f"{error}{rest}"
