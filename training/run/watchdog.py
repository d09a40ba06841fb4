"""Ends a process in which no step finishes for too long, after printing the stacks of all its threads.

One rank that hangs makes the others wait in their next collective operation, so they time out, too: each prints where
it waits, and the launcher ends the rest. The clock starts with the first finished step, since loading and compiling
may take longer than any step; validation and save have the same time each.
"""

import faulthandler
import os
import sys
import threading
import time
from types import TracebackType

from voxmill.core.errors import ExitStatus

STDERR = 2
"""The file descriptor: a replaced `sys.stderr` may have no file behind it when a process hangs."""


class Watchdog:
    """Watches one process while it is entered.

    Args:
        seconds: without a finished step; None watches nothing.
        rank: named in the line that is printed.
    """

    def __init__(self, seconds: float | None, rank: int) -> None:
        self.seconds, self.rank = seconds, rank
        self._step = 0
        self._last: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        if self.seconds is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self.seconds is not None:
            faulthandler.cancel_dump_traceback_later()

    def beat(self, step: int) -> None:
        """Restarts the clock after step `step`, which is named if the process hangs."""
        self._step, self._last = step, time.monotonic()
        if self.seconds is not None:
            # A thread of C, for a hang that holds Python's lock, where the Python thread cannot run.
            faulthandler.dump_traceback_later(2 * self.seconds, exit=True, file=STDERR)

    def restart(self) -> None:
        """Restarts the clock, where it runs, after work between two steps that all ranks have done."""
        if self._last is not None:
            self.beat(self._step)

    def _watch(self) -> None:
        assert self.seconds is not None
        while not self._ended.wait(min(1.0, self.seconds / 4)):
            last = self._last
            if last is not None and time.monotonic() - last > self.seconds:
                print(
                    f"rank {self.rank}: no step finished for {self.seconds:g} s after step {self._step}; "
                    "stacks of all threads:",
                    file=sys.stderr,
                    flush=True,
                )
                faulthandler.dump_traceback(file=STDERR, all_threads=True)
                # Not sys.exit: this is not the main thread, and the main thread hangs.
                os._exit(ExitStatus.HUNG)
