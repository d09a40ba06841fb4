"""DeepSpeed engines for training with two optimizers, which share one process group."""

from typing import Any

import torch
from torch import Tensor, nn

from cluster.deepspeed.files import read_deepspeed
from training.run.world import World
from training.run.zero_state import ZeroState


class Engine:
    """A module with its Adam under DeepSpeed ZeRO.

    Args:
        zero: ZeRO stage, 1 or 2.
        betas: Adam's. clip: largest global norm of the gradients. rows: crops of this rank in a step.
    """

    def __init__(
        self, module: nn.Module, *, world: World, zero: int, betas: tuple[float, float], clip: float, rows: int
    ) -> None:
        import deepspeed

        config = read_deepspeed(zero, offload=False) | {
            "train_micro_batch_size_per_gpu": rows,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": clip,
        }
        names = {parameter: name for name, parameter in module.named_parameters()}
        optimizer = torch.optim.AdamW(list(names), lr=0.0, betas=betas, weight_decay=0.0)
        self.module = module
        self._engine, wrapped, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
        self.state = ZeroState(wrapped, names, world, zero=zero)

    def __call__(self, *inputs: Any) -> Any:
        """The module's forward pass, to be followed by `update`."""
        return self._engine(*inputs)

    def update(self, loss: Tensor, learning_rate: float) -> float:
        """One step on the mean of the ranks' losses; returns the gradients' global norm before clipping."""
        self.state.set_learning_rate(learning_rate)
        self._engine.backward(loss)
        self._engine.step()
        self.state.count_step()
        return float(self._engine.get_global_grad_norm() or 0.0)
