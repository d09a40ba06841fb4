"""Process group and DeepSpeed engines for training with two optimizers.

The two engines share one process group. Weights and optimizer states come out whole, by parameter name, and go in the
same way, so a run resumes on another number of ranks; DeepSpeed's own checkpoints are pickles bound to one number.
"""

import atexit
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from voxmill.core.errors import JobError, UserError

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What Adam keeps of each parameter, besides a count of steps."""


@dataclass(frozen=True)
class Place:
    """This process among all."""

    rank: int
    ranks: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0


def join_ranks(device: str) -> Place:
    """Joins the process group that torchrun or the deepspeed launcher describes; without one, a group of one.

    Args:
        device: auto, cpu or cuda. CUDA goes through nccl, the CPU through gloo.

    Raises:
        UserError: CUDA is asked for and not there. JobError: the other ranks cannot be reached.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("run.device=cuda: no CUDA device is there; use cpu or auto")
    cuda = device != "cpu" and torch.cuda.is_available()
    ranks, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    place = Place(int(os.environ.get("RANK", 0)), ranks, torch.device("cuda", local) if cuda else torch.device("cpu"))
    if cuda:
        torch.cuda.set_device(place.device)
    else:
        os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ.setdefault("LOCAL_RANK", str(local))  # DeepSpeed asks for it
    if not dist.is_initialized():
        backend = "nccl" if cuda else "gloo"
        if ranks > 1:
            try:
                dist.init_process_group(backend)
            except (RuntimeError, ValueError) as error:
                raise JobError(f"the other ranks cannot be reached ({str(error).splitlines()[0]})") from None
        else:
            # A file instead of a port: nothing listens where nobody else is to join.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
            folder = tempfile.TemporaryDirectory(prefix="voxmill-")
            atexit.register(folder.cleanup)
            store = dist.FileStore(str(Path(folder.name) / "ranks"), 1)
            dist.init_process_group(backend, store=store, rank=0, world_size=1)
    return place


class Engine:
    """A module with its Adam under DeepSpeed ZeRO.

    Args:
        zero_stage: 1 shards optimizer states over the ranks, 2 gradients too.
        clip: global norm to which gradients are cut.
    """

    def __init__(
        self, module: nn.Module, *, place: Place, zero_stage: int, betas: tuple[float, float], clip: float, rows: int
    ) -> None:
        import deepspeed

        if place.device.type == "cpu":
            # It would compile an op for shared memory, which one machine's gloo does not need.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        settings = {
            "train_micro_batch_size_per_gpu": rows,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": clip,
            "zero_optimization": {"stage": zero_stage, "overlap_comm": False},
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 10**9,
        }
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.0, betas=betas, weight_decay=0.0)
        self.module, self.steps, self.place = module, 0, place
        self._engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=settings)

    def __call__(self, *inputs: Any) -> Any:
        """The module's forward pass, to be followed by `update`."""
        return self._engine(*inputs)

    def update(self, loss: Tensor, rate: float) -> float:
        """One step on the mean of the ranks' losses; gives the gradients' global norm before clipping."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate
        self._engine.backward(loss)
        self._engine.step()
        self.steps += 1
        return float(self._engine.get_global_grad_norm() or 0.0)

    def state(self) -> dict[str, Tensor]:
        """`weight.NAME`, and once it has stepped `exp_avg.NAME`, `exp_avg_sq.NAME`: whole, fp32, on the CPU.

        All ranks must call it together.
        """
        from deepspeed.utils import safe_get_full_optimizer_state

        found = {}
        for name, parameter in self.module.named_parameters():
            found[f"weight.{name}"] = parameter.detach().cpu().clone()
            for moment in MOMENTS if self.steps else ():
                found[f"{moment}.{name}"] = safe_get_full_optimizer_state(parameter, moment).cpu()
        return found

    def load_moments(self, state: Mapping[str, Tensor], steps: int) -> None:
        """Puts back what `state` gave after `steps` steps. The weights must be in the module before the engine is made."""
        from deepspeed.utils import safe_set_full_optimizer_state

        self.steps = steps
        if not steps:
            return
        zero = self._engine.optimizer
        # Adam makes its states at its first step, and DeepSpeed finds them then; here they must be there before it.
        for group in zero.optimizer.param_groups:
            for flat in group["params"]:
                zero.optimizer.state[flat] = {"step": torch.tensor(float(steps))} | {
                    moment: torch.zeros_like(flat) for moment in MOMENTS
                }
        zero._lazy_init_hp_params_optimizer_state()
        for name, parameter in self.module.named_parameters():
            for moment in MOMENTS:
                safe_set_full_optimizer_state(parameter, state[f"{moment}.{name}"].to(self.place.device), moment)


def agree(place: Place, values: list[float]) -> list[float]:
    """The largest of each value over the ranks."""
    if place.ranks == 1:
        return values
    tensor = torch.tensor(values, device=place.device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor.tolist()


def average(place: Place, values: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean of each scalar over the ranks."""
    tensor = torch.stack([value.detach().double() for value in values.values()])
    if place.ranks > 1:
        dist.all_reduce(tensor)
        tensor = tensor / place.ranks
    return dict(zip(values, tensor.tolist(), strict=True))
