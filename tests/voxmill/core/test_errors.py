"""How commands end: one line and the documented status."""

import errno
from collections.abc import Callable

import pytest

from voxmill.core.errors import JobError, UserError, command


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("rows = 3 is odd; make it even"), 2, "voxmill x: rows = 3 is odd; make it even"),
        (JobError("no space"), 1, "voxmill x: no space; it goes on"),
        (OSError(errno.ENOSPC, "No space left", "a/b"), 1, "voxmill x: No space left (a/b); it goes on"),
        (OSError("cut short"), 1, "voxmill x: cut short; it goes on"),
        (KeyboardInterrupt(), 130, "voxmill x: interrupted; it goes on"),
    ],
)
def test_an_error_is_a_line_and_a_status(
    capsys: pytest.CaptureFixture[str], error: BaseException, status: int, line: str
) -> None:
    assert command("voxmill x", goes_on="it goes on")(raising(error))() == status
    assert capsys.readouterr().err == line + "\n"


def test_what_is_returned_is_the_status_and_none_is_0() -> None:
    assert command("voxmill x")(lambda: 75)() == 75
    assert command("voxmill x")(lambda: None)() == 0


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        command("voxmill x")(raising(ZeroDivisionError()))()
