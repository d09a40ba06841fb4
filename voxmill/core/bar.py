"""A progress bar on the terminal; a line at the end where there is none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(enabled: bool, name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields what is called with the number of finished items."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not (enabled and console.is_terminal)) as progress:
        task = progress.add_task(name, total=total)
        yield lambda count: progress.advance(task, count)
    if enabled and not console.is_terminal:
        console.print(f"{name}: {total} utterances", markup=False)
