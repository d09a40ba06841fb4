"""Progress for people: bars with ETA on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

SECONDS_BETWEEN_LINES = 5.0
"""In a log."""


class Bar:
    """Counts towards a total. Without a terminal it prints a line every `SECONDS_BETWEEN_LINES` at most."""

    def __init__(self, title: str, total: float | None, unit: str, *, rich: "RichProgress | None", log: TextIO | None):
        self.title, self.total, self.unit = title, total, unit
        self.done, self._note = 0.0, ""
        self._rich, self._log = rich, log
        self._began = self._printed = time.monotonic()
        self._task = rich.add_task(title, total=total, count="", note="") if rich else None

    def advance(self, amount: float = 1, *, note: str | None = None) -> None:
        """Counts `amount` more as done; `note` replaces the text at the end of the bar."""
        self.done += amount
        if self._rich is not None and self._task is not None:
            count = f"{_amount(self.done)} of {_amount(self.total)} {self.unit}" if self.total else ""
            self._note = self._note if note is None else note
            self._rich.update(self._task, advance=amount, count=count, note=self._note)
        elif self._log is not None and time.monotonic() - self._printed >= SECONDS_BETWEEN_LINES and self.done > 0:
            self._printed = time.monotonic()
            line = f"{self.title}: {_amount(self.done)} {self.unit}"
            if self.total:
                left = (self._printed - self._began) / self.done * max(self.total - self.done, 0)
                line = (
                    f"{self.title}: {_amount(self.done)} of {_amount(self.total)} {self.unit}, about {left:.0f} s left"
                )
            print(line, file=self._log, flush=True)


class Progress:
    """Lines and bars of a job; silent when not enabled.

    Args:
        file: where they go; None: stdout.
        transient: a bar vanishes when it ends, and there is none in a log.
    """

    def __init__(self, enabled: bool = True, *, file: TextIO | None = None, transient: bool = False):
        self.enabled, self.transient = enabled, transient
        self.file = sys.stdout if file is None else file

    def print(self, line: str) -> None:
        """One line for the user."""
        if self.enabled:
            print(line, file=self.file, flush=True)

    @contextmanager
    def stage(self, title: str, total: float | None, unit: str) -> Iterator[Bar]:
        """A bar for one stage, of unknown length where `total` is None; in a log, a line at its end with its time."""
        if not self.enabled:
            yield Bar(title, total, unit, rich=None, log=None)
            return
        # rich takes a tenth of a second to import, and most commands show no bar.
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        console = Console(file=self.file)
        if console.is_terminal:
            columns = (
                TextColumn("{task.description:>10}"),
                BarColumn(),
                TextColumn("{task.fields[count]}"),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
            )
            with RichProgress(*columns, console=console, transient=self.transient) as rich:
                yield Bar(title, total, unit, rich=rich, log=None)
            return
        if self.transient:
            yield Bar(title, total, unit, rich=None, log=None)
            return
        began = time.monotonic()
        bar = Bar(title, total, unit, rich=None, log=self.file)
        yield bar
        amount = _amount(bar.done if total is None else total)
        print(f"{title}: {amount} {unit} in {time.monotonic() - began:.1f} s", file=self.file, flush=True)


def _amount(value: float) -> str:
    """Three digits of small numbers, whole large ones."""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
