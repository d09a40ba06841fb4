"""`voxmill train --check RECIPE`: the plan of a stage, from index and recipe, before a GPU is needed.

Hours and epochs by source and language, positions, steps and memory follow from labels and text lengths; no audio is
read. A recipe that cannot work is refused with one line.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from model.checkpoint import load_vae
from model.codec.latent_space import latent_space
from model.config import VoxCPM2Config, read_config
from training.curriculum.corpus import Corpus, Source, read_corpus
from training.curriculum.index.columns import LONG_SECONDS
from training.curriculum.mixture import Stream, streams_of
from training.curriculum.plan.descriptions import description_lines
from training.curriculum.plan.lengths import length_notes
from training.curriculum.plan.memory import RecipeMemory, gpu_bytes_of, memory_of
from training.curriculum.plan.references import ReferenceKinds, reference_kinds
from training.curriculum.plan_arrays import drawn_streams
from training.curriculum.recipe import Recipe
from training.curriculum.sample_draws import shares_at
from training.curriculum.sample_plan import NOT_PACKED, positions
from voxmill.core.errors import UserError
from voxmill.core.progress import Progress
from voxmill.core.storage import is_remote
from voxmill.data.description_kinds import weights_of
from voxmill.data.records import MODES, Mode
from voxmill.data.shards import path_inside

SAMPLED = 200
"""Clips of a stream whose lengths are computed; the others are taken to be like them."""
PROGRESS_POINTS = 64
WORLDS = (1, 8, 16, 64)
"""Numbers of ranks whose memory is told."""
ROW_FILL = 0.99
"""Share of a row that is used, as `benchmarks/packing.py` measures it at window 1024."""


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
    references: ReferenceKinds | None
    """None where no mode of the recipe has one."""
    descriptions: tuple[str, ...] = ()
    """What kinds the described modes will show, for people; a line a mode."""

    def shares_over(self) -> dict[int, float]:
        """Share of the seconds that are drawn that come from clips longer than each of `LONG_SECONDS`, 0..1."""
        total = sum(self.seconds.values())
        return {
            length: sum(
                self.seconds[stream.name] * sum(group.seconds_over[place] for group in stream.groups) / stream.seconds
                for stream in self.streams
            )
            / total
            for place, length in enumerate(LONG_SECONDS)
        }

    def epochs(self) -> dict[str, float]:
        """Passes over each stream in the stage."""
        return {s.name: self.seconds[s.name] / 3600 / self.hours[s.name] for s in self.streams}


def check(recipe: Recipe, *, index: Literal["keep", "forget", "expect"] = "forget") -> tuple[Corpus, Plan]:
    """Opens the corpus and plans the stage.

    Args:
        index: as in `read_corpus`.

    Raises:
        UserError: the checkpoint or a dataset is missing or they do not fit together, a mode or dataset has no clips, a
            synthetic clip outside stage 2, latents behind a link out of their dataset, or a context too short for the
            clips.
    """
    settings = read_config(recipe.init)
    _against_model(recipe, settings)
    first = os.environ.get("RANK", "0") == "0"
    corpus = read_corpus(
        recipe,
        latent_space=latent_space(load_vae(recipe.init, settings)),
        index=index,
        progress=Progress(first, transient=True),
    )
    for source in corpus.datasets:
        _refuse_links(source, corpus.facts.shards)
    streams = streams_of(corpus, recipe)
    rates = {}
    for stream in streams:
        _longest_fits(stream, corpus, recipe)
        rates[stream.name] = _seconds_a_position(stream, corpus, recipe)
    drawn = drawn_streams(corpus, recipe)
    shares = np.mean([shares_at(drawn, (k + 0.5) / PROGRESS_POINTS) for k in range(PROGRESS_POINTS)], axis=0)
    all_positions = recipe.steps * recipe.rows * recipe.packing.positions
    positions_a_second = sum(share / rates[s.name] for share, s in zip(shares, streams, strict=True))
    total = all_positions * ROW_FILL / positions_a_second
    seconds = {s.name: float(share * total) for share, s in zip(shares, streams, strict=True)}
    return corpus, Plan(
        positions=all_positions,
        seconds=seconds,
        streams=streams,
        hours={s.name: s.seconds / 3600 for s in streams},
        memory=memory_of(recipe, settings),
        references=reference_kinds(corpus, streams, seconds, recipe.references),
        descriptions=description_lines(corpus, streams, seconds, recipe.mixture.descriptions),
    )


def _against_model(recipe: Recipe, settings: VoxCPM2Config) -> None:
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


def _refuse_links(source: Source, shards: Sequence[str]) -> None:
    """Refuses latents that a link leads out of their dataset to, where the recipe does not allow it; some are tried."""
    if source.follow_symlinks or is_remote(source.path):
        return
    for name in shards[:: max(len(shards) // SAMPLED, 1)]:
        try:
            path_inside(source.path, name)
        except ValueError:
            way = [source.path.joinpath(*Path(name).parts[:length]) for length in range(1, len(Path(name).parts) + 1)]
            link = next((path for path in way if path.is_symlink()), source.path / name)
            raise UserError(
                f"datasets.{source.name}: {link} leads out of the dataset; if that is meant, set "
                f"datasets.{source.name}.follow_symlinks=true"
            ) from None


def _choices(clip: int, mode: Mode, corpus: Corpus, recipe: Recipe) -> tuple[dict[int, float], list[int]]:
    """(probability of each number of tokens, patches of each reference) of samples of this clip; {}: it has no text."""
    texts, references = {int(corpus.tokens[clip]): 1.0}, list[int]()
    weights = weights_of(mode, recipe.mixture.descriptions)
    if weights is not None:
        span = slice(int(corpus.description_starts[clip]), int(corpus.description_starts[clip + 1]))
        of_axis, tokens = np.asarray(corpus.description_axis[span]), np.asarray(corpus.description_tokens[span])
        counts = np.bincount(of_axis, minlength=len(weights))
        whole = sum(weight for weight, count in zip(weights, counts, strict=True) if count)
        texts = {}
        for axis, number in zip(of_axis.tolist(), tokens.tolist(), strict=True):
            if weights[axis]:
                texts[number] = texts.get(number, 0.0) + weights[axis] / whole / counts[axis]
    if mode in ("reference", "controllable"):
        references = corpus.patches[np.array(corpus.candidates(clip))].tolist()
    texts.pop(0, None)
    return texts, references


def _longest_fits(stream: Stream, corpus: Corpus, recipe: Recipe) -> None:
    """Refuses a context that the longest clip of the stream does not fit into, alone and in its mode."""
    clip = max((group.longest for group in stream.groups), key=lambda clip: int(corpus.patches[clip]))
    texts, references = _choices(clip, stream.mode, corpus, recipe)
    if not texts:
        return
    needed = positions(min(texts), int(corpus.patches[clip])) + (2 + min(references) if references else 0)
    if needed > recipe.max_positions:
        raise UserError(
            f"max_positions = {recipe.max_positions}: too short for clip {corpus.clip_id(clip)} of "
            f"{float(corpus.seconds[clip]):.1f} s as {stream.mode}, which takes {needed}; "
            "raise it or lower clips.max_seconds"
        )


def _seconds_a_position(stream: Stream, corpus: Corpus, recipe: Recipe) -> float:
    """Target seconds that one packed position of the stream carries, any reference being as likely."""
    spread = np.linspace(0, len(stream.clips) - 1, min(SAMPLED, len(stream.clips))).astype(int)
    seconds = taken = 0.0
    for clip in stream.clips[spread].tolist():
        texts, references = _choices(clip, stream.mode, corpus, recipe)
        lengths = [
            (positions(tokens, int(corpus.patches[clip])) + (0 if patches is None else 2 + patches), share)
            for tokens, share in texts.items()
            for patches in references or (None,)
        ]
        fitting = [(length - NOT_PACKED, share) for length, share in lengths if length <= recipe.max_positions]
        if fitting:
            seconds += float(corpus.seconds[clip])
            taken += sum(length * share for length, share in fitting) / sum(share for _, share in fitting)
    if not taken:
        raise UserError(f"{stream.name}: none of its clips can be used; they have no text or are too long")
    return seconds / taken


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
    shares = ", ".join(f"{share:.1%} over {length} s" for length, share in plan.shares_over().items())
    console.print(f"of the seconds drawn, in clips: {shares}", highlight=False)
    for note in length_notes(recipe, plan.streams, epochs):
        console.print(note, highlight=False)
    for line in plan.descriptions:
        console.print(line, highlight=False)
    if plan.descriptions and recipe.clips.verified is not None:
        rule = ", ".join(f"{name}: {admission}" for name, admission in recipe.clips.verified.items())
        console.print(f"{len(corpus.description_axis)} descriptions admitted by {{{rule}}}", highlight=False)
    if plan.references is not None:
        console.print(plan.references.line(), highlight=False)
    if corpus.left_out:
        reasons = ", ".join(f"{reason} {count}" for reason, count in corpus.left_out.most_common())
        console.print(f"left out: {reasons}", highlight=False)
    where = f"ZeRO {recipe.engine.zero}, {recipe.engine.dtype}"
    share = float(recipe.engine.activation_checkpointing)
    of = "" if share == 1 else f" in {share:.0%} of the layers"
    again = f", activations computed again{of}" if share else ""
    adapters = f" and {plan.memory.trained / 1e6:.4g} M of adapters" if recipe.lora is not None else ""
    console.print(
        f"{plan.memory.shape.parameters / 1e6:.4g} M parameters{adapters}, {where}{again}; GB of a rank:",
        highlight=False,
    )
    console.print(_memory_table(recipe, plan))
    gpu_bytes, worlds = gpu_bytes_of(recipe.engine), _worlds(recipe)
    spare = "" if gpu_bytes is None else plan.memory.spare_recomputing(worlds[-1], gpu_bytes)
    if spare:
        console.print(f"{worlds[-1]} ranks fit with less computed again, too: {spare}", highlight=False)


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
