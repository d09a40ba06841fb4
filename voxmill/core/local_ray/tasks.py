"""One function over many items: by tasks of Ray, or by a pool of actors."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from voxmill.core.errors import JobError, UserError
from voxmill.core.local_ray import cluster_cpus, join_ray
from voxmill.core.storage import storage_failure

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_tasks(
    fn: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    ahead: int | None = None,
    ordered: bool = False,
    num_cpus: float = 1.0,
    memory: int | None = None,
    max_retries: int = 3,
    on_error: Callable[[Item, Exception], Result] | None = None,
) -> Iterator[tuple[Item, Result]]:
    """(item, fn(item)) of every item, one Ray task each, with a bounded number of tasks and results in flight.

    Args:
        items: read only as far as tasks are submitted.
        ahead: tasks in flight at most; None: four for each CPU of the cluster.
        ordered: in the order of the items; otherwise as they finish.
        num_cpus, memory (bytes), max_retries: of each task; a task is retried when its process dies.
        on_error: called with an item whose task failed for good and Ray's error; its result takes the task's place.

    Raises:
        UserError, JobError, OSError: as `fn` raised it, and `on_error` is None; what object storage refused is one of
            them. RayError: a task failed otherwise.
    """
    import ray
    from ray.exceptions import RayError

    limit = cluster_cpus() * 4 if ahead is None else ahead
    remote: Any = ray.remote
    options = {} if memory is None else {"memory": memory}
    task: Any = remote(num_cpus=num_cpus, max_retries=max_retries, **options)(_with_plain_errors(fn))
    in_flight: dict[Any, Item] = {}

    def finished() -> tuple[Item, Result]:
        reference = next(iter(in_flight)) if ordered else ray.wait(list(in_flight), num_returns=1)[0][0]
        item = in_flight.pop(reference)
        try:
            result: Result = ray.get(reference)
        except RayError as error:
            if on_error is None:
                _raise_plain(error)
                raise
            result = on_error(item, error)
        return item, result

    for item in items:
        if len(in_flight) >= limit:
            yield finished()
        in_flight[task.remote(item)] = item
    while in_flight:
        yield finished()


def map_in_order(
    fn: Callable[[Item], Result], items: Sequence[Item], *, num_cpus: float = 1.0, memory: int | None = None
) -> Iterator[Result]:
    """Results in the order of the items, by Ray tasks; of one item in this process: to start a worker takes longer.

    Joins Ray where this process has not.

    Raises:
        RayError: a task failed.
    """
    import ray

    if len(items) == 1:
        yield fn(items[0])
        return
    if not ray.is_initialized():
        join_ray()

    def on_worker(item: Item) -> Result:
        # Ray takes functions, not methods.
        return fn(item)

    for _, result in map_tasks(on_worker, items, ordered=True, num_cpus=num_cpus, memory=memory):
        yield result


def map_actors(
    kind: type,
    arguments: Sequence[Any],
    method: str,
    items: Sequence[Item],
    *,
    count: int,
    ordered: bool = False,
    **options: Any,
) -> Iterator[Any]:
    """`method(item)` of every item, by a pool of Ray actors that ends with the iteration.

    Args:
        kind, arguments: the actors are `kind(*arguments)`.
        count: actors at most; never more than items.
        ordered: in the order of the items; otherwise as they finish.
        options: of the actors, such as num_cpus, num_gpus, runtime_env, max_restarts.

    Raises:
        UserError, JobError, OSError: as `method` raised it; what object storage refused is one of them.
        RayError: an actor failed otherwise.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util import ActorPool

    actor: Any = ray.remote(**options)(_Actor)
    actors = [actor.remote(kind, arguments, method) for _ in range(min(count, len(items)))]
    pool: Any = ActorPool(actors)
    submit = pool.map if ordered else pool.map_unordered
    try:
        yield from submit(lambda one, item: one.call.remote(item), items)
    except RayError as error:
        _raise_plain(error)
        raise
    finally:
        for one in actors:
            ray.kill(one)


class _Actor:
    """One method of an object in another process."""

    def __init__(self, kind: type, arguments: Sequence[Any], method: str) -> None:
        self._call = _with_plain_errors(getattr(kind(*arguments), method))

    def call(self, item: Any) -> Any:
        return self._call(item)


def _with_plain_errors(fn: Callable[[Item], Result]) -> Callable[[Item], Result]:
    """The same in a worker, where an error of object storage still knows which object it was about."""

    @functools.wraps(fn)
    def call(item: Item) -> Result:
        try:
            return fn(item)
        except Exception as error:
            failure = storage_failure(error)
            if failure is None:
                raise
            raise failure from None

    return call


def _raise_plain(error: Exception) -> None:
    """Raises, without Ray's traceback, what a worker raised for a person to read; returns for other errors."""
    from ray.exceptions import RayTaskError

    cause = error.cause if isinstance(error, RayTaskError) else None
    if isinstance(cause, UserError | JobError | OSError):
        raise cause from None
