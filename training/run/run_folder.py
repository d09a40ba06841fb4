"""A run's folder belongs to one run at a time."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from training.run.world import World
from voxmill.core.machine.lease import Lease

LEASE = "lease.json"


def lease_of(out: Path) -> Lease:
    """The lease on a run's folder."""
    return Lease(out / LEASE, str(out))


@contextmanager
def held_by_first(world: World, out: Path) -> Iterator[None]:
    """Inside, the first rank holds the lease on `out`; to be used in the main thread.

    Raises:
        UserError: another run holds it; on every rank.
        JobError: on leaving, it went to another run.
    """
    with ExitStack() as held:

        def hold() -> None:
            held.enter_context(lease_of(out))

        world.from_first(hold)
        yield
