"""Progress that people read: bars with ETA on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars


class Bar:
    """Counts towards a total; prints at most a line every `every` seconds where there is no terminal."""

    every = 5.0

    def __init__(self, title: str, total: float, unit: str, bars: Bars | None):
        self.title, self.total, self.unit, self.bars = title, total, unit, bars
        self.done = 0.0
        self._began = self._said = time.monotonic()
        self._task = bars.add_task(title, total=total, unit=unit) if bars else None

    def advance(self, amount: float) -> None:
        """Counts `amount` more as done."""
        self.done += amount
        if self.bars is not None and self._task is not None:
            self.bars.advance(self._task, amount)
        elif time.monotonic() - self._said >= self.every and self.done > 0:
            self._said = time.monotonic()
            spent = self._said - self._began
            left = spent / self.done * max(self.total - self.done, 0)
            print(f"{self.title}: {self.done:.3g} of {self.total:.3g} {self.unit}, about {left:.0f} s left", flush=True)


class Progress:
    """Prints stages of a job; silent when not enabled."""

    def __init__(self, enabled: bool = True):
        self.enabled = enabled
        self.console = Console(file=sys.stdout)

    def say(self, line: str) -> None:
        """One line for the user."""
        if self.enabled:
            print(line, flush=True)

    @contextmanager
    def stage(self, title: str, total: float, unit: str) -> Iterator[Bar]:
        """A bar for one stage; on a log it says how long it took when it ends."""
        if not self.enabled:
            bar = Bar(title, total, unit, None)
            bar.every = float("inf")
            yield bar
        elif self.console.is_terminal:
            columns = (
                TextColumn("{task.description:>10}"),
                BarColumn(),
                TextColumn("{task.completed:.3g}/{task.total:.3g} {task.fields[unit]}"),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
            )
            with Bars(*columns, console=self.console) as bars:
                yield Bar(title, total, unit, bars)
        else:
            began = time.monotonic()
            yield Bar(title, total, unit, None)
            print(f"{title}: {total:.3g} {unit} in {time.monotonic() - began:.1f} s", flush=True)
