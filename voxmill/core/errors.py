"""How a command ends: the two errors that are reported as one line without a traceback, and every exit status."""

import functools
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import ParamSpec

P = ParamSpec("P")

PROGRESS_SAVED = "progress is saved; run the same command again to resume"
"""The `resume_hint` of a command that resumes when it is given again."""


class ExitStatus(IntEnum):
    """Exit statuses of every `voxmill` command and of the trainers' scripts."""

    DONE = 0
    FAILED = 1
    """The machine or a service failed; the same command can be run again."""
    USER_ERROR = 2
    """A wrong argument, key, file or value; running the same command again gives the same error."""
    STOPPED = 75
    """A trainer received SIGTERM, saved a checkpoint and stopped."""
    HUNG = 76
    """A trainer's watchdog ended a step that took too long."""
    INTERRUPTED = 130
    """Ctrl-C, as shells report it."""


class UserError(Exception):
    """The user's mistake: the message names the file, line or value and how to fix it. Exit status 2."""


class JobError(Exception):
    """The machine or a service fails (no space, no memory, a missing library); work is kept. Exit status 1.

    Args:
        resume_hint: how to continue after this very error, in place of the command's own hint.
    """

    def __init__(self, message: str, *, resume_hint: str | None = None) -> None:
        super().__init__(message)
        self.resume_hint = resume_hint


def command(name: str, *, resume_hint: str = "") -> Callable[[Callable[P, int | None]], Callable[P, int]]:
    """Makes a function return an exit status: its own (None is 0), or 2, 1 or 130 after one line on stderr.

    Args:
        name: prefix of the line, such as "voxmill train".
        resume_hint: end of the line where running the command again may help, such as `PROGRESS_SAVED`.
    """

    def decorate(work: Callable[P, int | None]) -> Callable[P, int]:
        @functools.wraps(work)
        def run(*args: P.args, **kwargs: P.kwargs) -> int:
            try:
                return work(*args, **kwargs) or ExitStatus.DONE
            except (Exception, KeyboardInterrupt) as error:
                from voxmill.core.storage import storage_failure

                failure = error if isinstance(error, UserError | JobError) else storage_failure(error) or error
                if not isinstance(failure, UserError | JobError | OSError | KeyboardInterrupt):
                    raise
                status, line = status_and_line(failure, resume_hint=resume_hint)
                # One line, whatever a path or a library put into the message.
                print(f"{name}: {' '.join(line.split(chr(10)))}", file=sys.stderr)
                return status

        return run

    return decorate


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its type's name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def status_and_line(error: BaseException, *, resume_hint: str = "") -> tuple[ExitStatus, str]:
    """(exit status, line for stderr) of a command that ended with `error`.

    Args:
        error: a UserError, a JobError, an OSError or a KeyboardInterrupt.
        resume_hint: appended unless the error is the user's mistake, or a JobError with a hint of its own.
    """
    if isinstance(error, UserError):
        return ExitStatus.USER_ERROR, str(error)
    if isinstance(error, JobError) and error.resume_hint is not None:
        resume_hint = error.resume_hint
    hint = f"; {resume_hint}" if resume_hint else ""
    if isinstance(error, KeyboardInterrupt):
        return ExitStatus.INTERRUPTED, f"interrupted{hint}"
    if isinstance(error, OSError) and error.strerror:
        place = f" ({error.filename})" if error.filename else ""
        return ExitStatus.FAILED, f"{error.strerror}{place}{hint}"
    return ExitStatus.FAILED, f"{error}{hint}"
