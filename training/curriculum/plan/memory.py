"""Memory of a rank of a recipe, and the smallest change with which a GPU holds it.

Every row is taken to be full and all audio, as the worst one is. `cluster.planner.memory` says what is counted.
"""

from dataclasses import dataclass, replace

import torch

from cluster.planner.memory import Memory, ModelShape, Setup, Stack, rank_memory
from cluster.planner.plan import Choice, choice_of, choices, longest_row
from model.config import LanguageModelConfig, VoxCPM2Config
from model.lora import add_lora
from model.voxcpm2 import VoxCPM2
from training.curriculum.recipe import EngineConfig, Recipe
from voxmill.core.errors import UserError

SHARES = tuple(number / 10 for number in range(1, 11))
"""Shares of layers to compute again, of which the smallest is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeMemory:
    """What a rank of a recipe takes, in any world."""

    recipe: Recipe
    shape: ModelShape
    trained: int
    """Parameters that are trained: all, or the adapters', which are additional."""

    def setup(self, world: int) -> Setup:
        """The layout of the run on so many ranks."""
        engine = self.recipe.engine
        return Setup(
            zero=engine.zero,
            dtype=engine.dtype,
            world=world,
            positions=self.recipe.packing.positions,
            offload=engine.offload,
            recompute=engine.activation_checkpointing,
            trained=None if self.recipe.lora is None else self.trained,
            averaged=self.recipe.optimizer.ema is not None,
            communication=engine.communication,
        )

    def of_rank(self, world: int) -> Memory:
        """One of so many ranks."""
        return rank_memory(self.shape, self.setup(world))

    def fits(self, world: int, gpu_bytes: float) -> bool:
        """Whether a GPU holds a rank, with `cluster.planner.plan.HEADROOM` to spare."""
        return choice_of(self.shape, self.setup(world), gpu_bytes).fits

    def refuse_unless_it_fits(self, world: int, gpu_bytes: float) -> None:
        """Raises where a GPU does not hold a rank.

        Raises:
            UserError: names what a rank takes, what a GPU has, and the smallest change with which it fits.
        """
        if not self.fits(world, gpu_bytes):
            ranks = f"{world} ranks" if world > 1 else "1 rank"
            taken = f"each of {ranks} takes {self.of_rank(world).peak / 1e9:.3g} GB"
            raise UserError(
                f"engine.zero={self.recipe.engine.zero}: {taken}, and a GPU has {gpu_bytes / 1e9:.3g} GB; "
                f"{self.smallest_change(world, gpu_bytes)}"
            )

    def smallest_change(self, world: int, gpu_bytes: float) -> str:
        """What to set so that a rank fits: the fewest keys, and of those the fastest; else shorter rows, or GPUs."""
        setup = self.setup(world)
        tried = [
            choice
            for share in sorted({0.0, float(setup.recompute)})
            for choice in choices(self.shape, replace(setup, offload=False, recompute=share), gpu_bytes)
        ]
        fitting = [choice for choice in tried if choice.fits]
        if fitting:
            # The sort is stable, and `choices` has the fastest first.
            best = min(fitting, key=lambda choice: len(_changes(choice, setup)))
            if best.setup.recompute != setup.recompute:
                best = self._least_recomputed(best, gpu_bytes)
            return f"set {' '.join(_changes(best, setup))} ({best.memory.peak / 1e9:.1f} GB)"
        least = replace(setup, recompute=1.0, zero=3 if world > 1 else 2, offload=True)
        longest = longest_row(self.shape, least, gpu_bytes)
        if longest >= self.recipe.max_positions:
            changes = _changes(choice_of(self.shape, least, gpu_bytes), setup)
            return f"set {' '.join([*changes, f'packing.positions={longest}'])}"
        return "more ranks, or GPUs with more memory, are needed"

    def spare_recomputing(self, world: int, gpu_bytes: float) -> str:
        """The smaller `engine.activation_checkpointing` that fits, too, as `key=value (GB)`; "" where there is none."""
        now = choice_of(self.shape, self.setup(world), gpu_bytes)
        least = self._least_recomputed(now, gpu_bytes)
        if not now.fits or least.setup.recompute >= now.setup.recompute:
            return ""
        return f"{_changes(least, now.setup)[0]} ({least.memory.peak / 1e9:.1f} GB)"

    def _least_recomputed(self, choice: Choice, gpu_bytes: float) -> Choice:
        """The same layout with the smallest share of layers computed again with which it fits, or itself."""
        shares = (share for share in (0.0, *SHARES) if share < choice.setup.recompute)
        tried = (choice_of(self.shape, replace(choice.setup, recompute=share), gpu_bytes) for share in shares)
        return next((other for other in tried if other.fits), choice)


def memory_of(recipe: Recipe, settings: VoxCPM2Config) -> RecipeMemory:
    """Memory of a recipe with this model."""
    shape = shape_of(settings)
    if recipe.lora is None:
        return RecipeMemory(recipe=recipe, shape=shape, trained=shape.parameters)
    with torch.device("meta"):
        model = VoxCPM2(settings)
    add_lora(model, recipe.lora)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return RecipeMemory(recipe=recipe, shape=shape, trained=trained)


def gpu_bytes_of(engine: EngineConfig, device: torch.device | None = None) -> float | None:
    """Memory of each GPU of a run: what the recipe says, or what `device` (by default a GPU here) has; None: no GPU."""
    if engine.gpu_memory is not None:
        return engine.gpu_memory * 1e9
    if device is None and torch.cuda.is_available():
        device = torch.device("cuda")
    if device is None or device.type != "cuda":
        return None
    return float(torch.cuda.get_device_properties(device).total_memory)


def shape_of(config: VoxCPM2Config) -> ModelShape:
    """What the planner needs of a model; parameters are counted on the module tree."""
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in VoxCPM2(config).parameters())
    patch = config.patch_size
    return ModelShape(
        parameters=parameters,
        base=_stack(config.lm_config),
        residual=_stack(config.residual_stack),
        encoder=_stack(config.local_stack(config.encoder_config), patch + 1, 1),
        decoder=_stack(config.local_stack(config.dit_config), 3 + 2 * patch, patch),
    )


def _stack(size: LanguageModelConfig, tokens: int = 1, kept: int = 1) -> Stack:
    return Stack(
        layers=size.num_hidden_layers,
        hidden=size.hidden_size,
        ffn=size.intermediate_size,
        heads=size.num_attention_heads,
        key_heads=size.num_key_value_heads,
        head_dim=size.head_dim,
        tokens=tokens,
        kept=kept,
    )


def _changes(choice: Choice, setup: Setup) -> list[str]:
    """Keys of a recipe that a choice sets otherwise than `setup`."""
    share = choice.setup.recompute
    values = {
        "engine.activation_checkpointing": (bool(share) if share in (0, 1) else share, setup.recompute),
        "engine.zero": (choice.setup.zero, setup.zero),
        "engine.offload": (choice.setup.offload, setup.offload),
    }
    return [f"{key}={str(new).lower()}" for key, (new, old) in values.items() if new != old]
