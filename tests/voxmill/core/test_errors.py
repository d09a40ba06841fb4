"""How commands end: one line and the documented status."""

import errno
import pickle
from collections.abc import Callable

import pytest

from voxmill.core.errors import ExitStatus, JobError, UserError, command, status_and_line


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("rows = 3 is odd; make it even"), 2, "voxmill x: rows = 3 is odd; make it even"),
        (JobError("no space"), 1, "voxmill x: no space; run it again"),
        (JobError("no space", resume_hint="make room"), 1, "voxmill x: no space; make room"),
        (OSError(errno.ENOSPC, "No space left", "a/b"), 1, "voxmill x: No space left (a/b); run it again"),
        (OSError("cut short"), 1, "voxmill x: cut short; run it again"),
        (KeyboardInterrupt(), 130, "voxmill x: interrupted; run it again"),
    ],
)
def test_an_error_is_a_line_and_a_status(
    capsys: pytest.CaptureFixture[str], error: BaseException, status: int, line: str
) -> None:
    assert command("voxmill x", resume_hint="run it again")(raising(error))() == status
    assert capsys.readouterr().err == line + "\n"


def test_a_hint_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(JobError("no space", resume_hint="make room")))
    assert status_and_line(error, resume_hint="run it again") == (ExitStatus.FAILED, "no space; make room")


def test_what_is_returned_is_the_status_and_none_is_0() -> None:
    assert command("voxmill x")(lambda: 75)() == 75
    assert command("voxmill x")(lambda: None)() == 0


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        command("voxmill x")(raising(ZeroDivisionError()))()


def test_statuses_are_those_of_the_documentation() -> None:
    assert [(status.name, int(status)) for status in ExitStatus] == [
        ("DONE", 0),
        ("FAILED", 1),
        ("USER_ERROR", 2),
        ("STOPPED", 75),
        ("HUNG", 76),
        ("INTERRUPTED", 130),
    ]
