"""The ranks of a run: joining them, and the sums and maxima on which they agree."""

import atexit
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from voxmill.core.errors import JobError, UserError, first_line
from voxmill.core.storage import storage_failure

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)
"""A collective operation fails after this long; `run.hang_seconds` ends a hanging rank before it."""
BACKGROUND_TIMEOUT = timedelta(hours=2)
"""The same of what goes on beside the steps, such as writing a checkpoint to slow storage."""
_REPORTED = (UserError, JobError, OSError)
"""What one rank's failure is on all others, too."""


@dataclass(frozen=True, slots=True)
class World:
    """This process (`rank`, from 0) among the `size` ranks of a run, and the device that it computes on."""

    rank: int
    size: int
    device: torch.device
    group: dist.ProcessGroup | None = None
    """Through which the ranks communicate; None: the default one."""

    @property
    def is_first(self) -> bool:
        """Whether this rank writes files and prints."""
        return self.rank == 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over the ranks, in fp64."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def maxima(self, values: Sequence[float]) -> list[float]:
        """The largest of each value over the ranks."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def means(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """The mean of each scalar over the ranks, in fp64."""
        total = torch.stack([value.detach().double() for value in values.values()])
        if self.size > 1:
            dist.all_reduce(total, group=self.group)
        # One transfer from the device for all of them.
        return dict(zip(values, (total / self.size).tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any rank."""
        return bool(self.maxima([float(flag)])[0])

    def barrier(self) -> None:
        """Waits until every rank is here."""
        self.any(False)

    def _reduced(self, values: Sequence[float], operation: dist.ReduceOp.RedOpType) -> list[float]:
        if self.size == 1:
            return [float(value) for value in values]
        reduced = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(reduced, op=operation, group=self.group)
        result: list[float] = reduced.tolist()
        return result

    def gather(self, value: T) -> list[T]:
        """The value of every rank, by rank, on every rank."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def from_first(self, compute: Callable[[], T]) -> T:
        """What `compute` returns on the first rank, on every rank.

        Raises:
            UserError, JobError, OSError: the first rank's, on every rank.
        """
        if self.size == 1:
            return compute()
        result: list[T | Exception | None] = [None]
        if self.is_first:
            result = [_value_or_error(compute)]
        dist.broadcast_object_list(result, group=self.group)
        return _checked(result[0])

    def gathered(self, compute: Callable[[], T]) -> list[T]:
        """What `compute` returns on each rank, on every rank; an error only after it has ended on all of them.

        Raises:
            UserError, JobError, OSError: the one of the first rank that has one, on every rank; any other error is a
                JobError on the other ranks.
        """
        if self.size == 1:
            return [compute()]
        mine = _value_or_error(compute)
        results: list[T | Exception | None] = [None] * self.size
        dist.all_gather_object(results, mine, group=self.group)
        results[self.rank] = mine  # itself, and not what pickle makes of an error
        return [_checked(result) for result in results]

    def apart(self) -> "World":
        """The same ranks on the CPU with a group of their own, for a thread beside the steps; all ranks call it."""
        if self.size == 1:
            return World(self.rank, self.size, torch.device("cpu"))
        group = dist.new_group(backend="gloo", timeout=BACKGROUND_TIMEOUT)
        return World(self.rank, self.size, torch.device("cpu"), group)


def _value_or_error(compute: Callable[[], T]) -> T | Exception:
    try:
        return compute()
    # Whatever it is: the other ranks wait for this one.
    except Exception as error:
        return error if isinstance(error, _REPORTED) else storage_failure(error) or _Unreported(error)


class _Unreported(Exception):
    """An error that is raised as it is on its own rank, and is a JobError on the others."""

    def __init__(self, error: Exception) -> None:
        super().__init__(first_line(error))
        self.error = error

    def __reduce__(self) -> tuple[type[JobError], tuple[str]]:
        return JobError, (str(self),)


def _checked(result: T | Exception | None) -> T:
    if isinstance(result, _Unreported):
        raise result.error
    if isinstance(result, _REPORTED):
        raise result
    return cast(T, result)


@contextmanager
def join_world(device: Literal["auto", "cpu", "cuda"] = "auto") -> Iterator[World]:
    """Joins the ranks that torchrun, the deepspeed launcher or Ray Train started; without a launcher, a world of one.

    Args:
        device: CUDA communicates through nccl, the CPU through gloo.

    Raises:
        UserError: CUDA is asked for and there is no CUDA device.
        JobError: the other ranks cannot be reached.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("run.device=cuda: this machine has no CUDA device; set run.device to cpu or auto")
    # Ray Train has joined before this call; with gloo, where its workers were given no GPU.
    was_joined = dist.is_initialized()
    uses_cuda = device != "cpu" and torch.cuda.is_available() and not (was_joined and dist.get_backend() == "gloo")
    local_rank = int(os.environ.setdefault("LOCAL_RANK", os.environ.get("RANK", "0")))  # DeepSpeed reads it, too
    if uses_cuda:
        os.environ.setdefault("DS_ACCELERATOR", "cuda")
        torch.cuda.set_device(local_rank)
    else:
        os.environ["DS_ACCELERATOR"] = "cpu"
    if not was_joined:
        _join("nccl" if uses_cuda else "gloo")
    import deepspeed

    if not uses_cuda:
        # Shared memory between CPU ranks: DeepSpeed would compile it for most of a minute, and gloo does without.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="nccl" if uses_cuda else "gloo", verbose=False)
    try:
        computes_on = torch.device("cuda", local_rank) if uses_cuda else torch.device("cpu")
        yield World(dist.get_rank(), dist.get_world_size(), computes_on)
    finally:
        if not was_joined:
            dist.destroy_process_group()


def _join(backend: str) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        try:
            dist.init_process_group(backend, timeout=TIMEOUT)
        except (RuntimeError, ValueError) as error:
            raise JobError(f"the other ranks cannot be reached ({str(error).splitlines()[0]})") from None
        return
    # A file instead of a port: nothing listens where no other rank is to join.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    folder = tempfile.TemporaryDirectory(prefix="voxmill-")
    atexit.register(folder.cleanup)
    store = dist.FileStore(str(Path(folder.name) / "ranks"), 1)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=0, world_size=1, timeout=TIMEOUT)
