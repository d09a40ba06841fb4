"""`voxmill train --check RECIPE`: the plan of a stage, from index and recipe, before a GPU is needed.

Hours and epochs by source and language, positions, steps and memory follow from labels and text lengths; no audio is
read. A recipe that cannot work is refused with one line.
"""

from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from model.checkpoint import load_vae
from model.codec.latent_space import latent_space
from model.config import read_config
from model.sequence.text_tokenizer import TextTokenizer
from training.curriculum.corpus import Corpus, read_corpus
from training.curriculum.mixture import DrawnSample, Mixture, Stream, streams_of
from training.curriculum.plan.memory import RecipeMemory, gpu_bytes_of, memory_of
from training.curriculum.recipe import Recipe
from training.curriculum.sample_plan import PlannedSample, plan_sample
from voxmill.core.errors import UserError
from voxmill.data.records import MODES

SAMPLED = 200
"""Clips of a stream whose lengths are computed; the others are taken to be like them."""
PROGRESS_POINTS = 64
WORLDS = (1, 8, 16, 64)
"""Numbers of ranks whose memory is told."""
ROW_FILL = 0.99
"""Share of a row that is used, as `benchmarks/packing.py` measures it at window 1024."""


LONG_SECONDS = (30, 60, 180)
"""Lengths that the stages differ by (60 and 180, report 3.5), and what is recognised at once."""


@dataclass(frozen=True)
class Plan:
    """The plan of a recipe. Seconds are of target audio over the whole stage."""

    positions: int
    seconds: dict[str, float]
    """By stream."""
    streams: list[Stream]
    hours: dict[str, float]
    """Hours of audio in the datasets, by stream."""
    memory: RecipeMemory

    def share_over(self, seconds: float, corpus: Corpus) -> float:
        """Share of the seconds that are drawn that come from clips longer than this, 0..1."""
        longer = 0.0
        for stream in self.streams:
            lengths = corpus.seconds[stream.clips]
            longer += self.seconds[stream.name] * float(lengths[lengths > seconds].sum() / lengths.sum())
        return longer / sum(self.seconds.values())

    def epochs(self) -> dict[str, float]:
        """Passes over each stream in the stage."""
        return {s.name: self.seconds[s.name] / 3600 / self.hours[s.name] for s in self.streams}


def check(recipe: Recipe) -> tuple[Corpus, Plan]:
    """Reads the corpus and plans the stage.

    Raises:
        UserError: the checkpoint or a dataset is missing or they do not fit together, a mode or dataset has no clips, a
            synthetic clip outside stage 2, or a context too short for the clips.
    """
    settings = read_config(recipe.init)
    tokenizer = TextTokenizer.from_folder(recipe.init)
    corpus = read_corpus(recipe, latent_space=latent_space(load_vae(recipe.init, settings)))
    if recipe.max_positions > settings.lm_config.max_position_embeddings:
        raise UserError(
            f"max_positions = {recipe.max_positions}, but {recipe.init} has "
            f"{settings.lm_config.max_position_embeddings} position embeddings; set max_positions"
        )
    if recipe.engine.zero == 3 and settings.dit_config.dit_mean_mode:
        raise UserError(
            f"engine.zero = 3, but {recipe.init} is trained with MeanFlow, whose forward derivative DeepSpeed's linear "
            "layer of that stage does not have; set engine.zero to 2"
        )
    streams = streams_of(corpus, recipe)
    rates = {}
    for index, stream in enumerate(streams):
        _longest_fits(stream, corpus, recipe, tokenizer)
        rates[stream.name] = _seconds_a_position(index, stream, corpus, recipe, tokenizer)
    mixture = Mixture(streams, recipe.mixture, recipe.seed, corpus.seconds)
    shares = np.mean([mixture.shares((k + 0.5) / PROGRESS_POINTS) for k in range(PROGRESS_POINTS)], axis=0)
    positions = recipe.steps * recipe.rows * recipe.packing.positions
    positions_a_second = sum(share / rates[s.name] for share, s in zip(shares, streams, strict=True))
    total = positions * ROW_FILL / positions_a_second
    return corpus, Plan(
        positions=positions,
        seconds={s.name: float(share * total) for share, s in zip(shares, streams, strict=True)},
        streams=streams,
        hours={s.name: s.seconds / 3600 for s in streams},
        memory=memory_of(recipe, settings),
    )


def _longest_fits(stream: Stream, corpus: Corpus, recipe: Recipe, tokenizer: TextTokenizer) -> None:
    """Refuses a context that the longest clip of the stream does not fit into, alone and in its mode."""
    clip = int(stream.clips[np.argmax(corpus.patches[stream.clips])])
    sample = plan_sample(DrawnSample(0, 0, stream.mode, clip), corpus, tokenizer, seed=recipe.seed, max_positions=2**31)
    if not isinstance(sample, PlannedSample):
        return
    reference = min((int(corpus.patches[c]) + 2 for c in corpus.candidates(clip)), default=0)
    needed = len(sample.tokens) + int(corpus.patches[clip]) + 2 + (reference if sample.reference is not None else 0)
    if needed > recipe.max_positions:
        raise UserError(
            f"max_positions = {recipe.max_positions}: too short for clip {corpus.clip_id(clip)} of "
            f"{corpus.seconds[clip]:.1f} s as {stream.mode}, which takes {needed}; "
            "raise it or lower clips.max_seconds"
        )


def _seconds_a_position(index: int, stream: Stream, corpus: Corpus, recipe: Recipe, tokenizer: TextTokenizer) -> float:
    """Target seconds that one packed position of the stream carries."""
    spread = np.linspace(0, len(stream.clips) - 1, min(SAMPLED, len(stream.clips))).astype(int)
    seconds = positions = 0.0
    for number, clip in enumerate(stream.clips[spread]):
        draw = DrawnSample(number, index, stream.mode, int(clip))
        sample = plan_sample(draw, corpus, tokenizer, seed=recipe.seed, max_positions=recipe.max_positions)
        if isinstance(sample, PlannedSample):
            seconds += corpus.seconds[clip]
            positions += sample.length
    if not positions:
        raise UserError(f"{stream.name}: none of its clips can be used; they have no text or are too long")
    return seconds / positions


def check_memory(recipe: Recipe, plan: Plan, *, world: int | None) -> None:
    """Refuses a recipe that the GPUs here, or of `engine.gpu_memory`, do not hold; without either nothing is refused.

    Args:
        world: number of ranks; None: not known, so that one of `WORLDS` has to fit.

    Raises:
        UserError: names what a rank takes, and the smallest change with which it fits.
    """
    gpu_bytes = gpu_bytes_of(recipe.engine)
    if gpu_bytes is None:
        return
    worlds = [world] if world is not None else _worlds(recipe)
    if not any(plan.memory.fits(size, gpu_bytes) for size in worlds):
        plan.memory.refuse_unless_it_fits(worlds[-1], gpu_bytes)


def _worlds(recipe: Recipe) -> list[int]:
    """Numbers of ranks that divide the recipe's rows."""
    return [size for size in WORLDS if recipe.rows % size == 0]


def report(recipe: Recipe, corpus: Corpus, plan: Plan, console: Console | None = None) -> None:
    """Prints a plan for people."""
    console = console or Console()
    rows = f"{recipe.rows} rows of {recipe.packing.positions} positions a step"
    console.print(
        f"{f'stage {recipe.stage}' if recipe.stage != 'finetune' else 'fine-tuning'}: {recipe.steps} steps, {rows}, "
        f"{plan.positions:.3g} positions",
        highlight=False,
    )
    table = Table("stream", "clips", "hours", "hours drawn", "share", "epochs")
    total = sum(plan.seconds.values())
    epochs = plan.epochs()
    for s in sorted(plan.streams, key=lambda s: MODES.index(s.mode)):
        seconds = plan.seconds[s.name]
        table.add_row(
            s.name,
            str(len(s.clips)),
            f"{plan.hours[s.name]:.3g}",
            f"{seconds / 3600:.3g}",
            f"{seconds / total:.1%}",
            f"{epochs[s.name]:.3g}",
        )
    console.print(table)
    shares = ", ".join(f"{plan.share_over(length, corpus):.1%} over {length} s" for length in LONG_SECONDS)
    console.print(f"of the seconds drawn, in clips: {shares}", highlight=False)
    if corpus.left_out:
        reasons = ", ".join(f"{reason} {count}" for reason, count in corpus.left_out.most_common())
        console.print(f"left out: {reasons}", highlight=False)
    where = f"ZeRO {recipe.engine.zero}, {recipe.engine.dtype}"
    again = ", activations computed again" if recipe.engine.activation_checkpointing else ""
    adapters = f" and {plan.memory.trained / 1e6:.4g} M of adapters" if recipe.lora is not None else ""
    console.print(
        f"{plan.memory.shape.parameters / 1e6:.4g} M parameters{adapters}, {where}{again}; GB of a rank:",
        highlight=False,
    )
    console.print(_memory_table(recipe, plan))


def _memory_table(recipe: Recipe, plan: Plan) -> Table:
    gpu_bytes = gpu_bytes_of(recipe.engine)
    table = Table("ranks", "weights, gradients, optimizer", "activations of a row", "buffers", "peak")
    if gpu_bytes is not None:
        table.add_column(f"on {gpu_bytes / 1e9:.0f} GB")
    for world in _worlds(recipe):
        memory = plan.memory.of_rank(world)
        sizes = (memory.states, memory.activations, memory.communication, memory.peak)
        fits = [] if gpu_bytes is None else ["fits" if plan.memory.fits(world, gpu_bytes) else "does not fit"]
        table.add_row(str(world), *(f"{size / 1e9:.3g}" for size in sizes), *fits)
    return table
