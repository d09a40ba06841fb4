"""Until its callers use `Progress`: a bar on stderr as a function of the number of finished items."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from voxmill.core.progress import Progress


@contextmanager
def bar(enabled: bool, name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function that is called with the number of finished items."""
    with Progress(enabled, file=sys.stderr).stage(name, total, "utterances") as one:
        yield lambda count: one.advance(count)
