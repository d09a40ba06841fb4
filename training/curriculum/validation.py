"""Validation in training: losses on held-out clips by mode, and what the weights of the moment make of some of them.

The same samples with the same noise each time, so that two values differ by the weights alone. All random numbers come
from generators of its own and the global ones are put back: a run learns the same with and without it, to the last bit.
"""

import logging
from collections import Counter
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from model.checkpoint import load_vae
from model.config import VoxCPM2Config
from model.generation.active_request import ActiveRequest
from model.generation.continuous_batch import ContinuousBatch
from model.generation.request import Settings
from model.generation.streaming import context_of, decode
from model.sequence.layouts import arrange
from model.sequence.packing import PackedBatch, pack
from model.sequence.text_tokenizer import TextTokenizer
from training.curriculum.corpus import Corpus, hash_share
from training.curriculum.engine import Engine
from training.curriculum.mixture import Draw
from training.curriculum.recipe import Recipe, ValidationConfig
from training.curriculum.row_packer import Packer
from training.curriculum.sample_plan import Shown, layout, show
from training.curriculum.step import row_generator
from training.curriculum.telemetry import Groups, total
from voxmill.core.errors import JobError, UserError
from voxmill.core.tracking import Tracker
from voxmill.data.records import MODES, Mode

log = logging.getLogger("voxmill")
NO_STEP = 2**40
"""Stands for the step in the noise of validation: no step of a run has the same."""
PROGRESS = 1.0
"""Of the training, for losses that depend on it: always its end, or they would change with the step alone."""
SPARE = 1.5
"""Speech may become so many times as long as the recording."""
MEL_TOP = 12_000.0
"""Hertz; what lies above in speech shows nothing more in a picture."""


class Validation:
    """Held-out samples in rows, of which each rank computes its own.

    Args:
        groups: whose losses are told apart.

    Raises:
        UserError: no held-out clip can be shown in a mode of the recipe.
    """

    def __init__(
        self,
        config: ValidationConfig,
        recipe: Recipe,
        corpus: Corpus,
        tokenizer: TextTokenizer,
        engine: Engine,
        groups: Groups,
        settings: VoxCPM2Config,
    ) -> None:
        self.config, self.recipe, self.corpus, self.engine, self.groups = config, recipe, corpus, engine, groups
        self.settings = settings
        self.samples = _samples(config, recipe, corpus, tokenizer)
        packer = Packer(recipe.packing.positions, 0, self.samples)
        self.rows: list[list[Shown]] = []
        while packer.waiting:
            self.rows.append(packer.next_row(_nothing))
        self._read: dict[int, tuple[list[Shown], PackedBatch | None]] = {}
        self._has_shown = False

    def describe(self) -> str:
        """In one line, for people."""
        modes = ", ".join(f"{mode} {count}" for mode, count in Counter(s.mode for s in self.samples).items())
        clips = len({shown.draw.clip for shown in self.samples})
        quiet = "; without sample audio under ZeRO 3" if self.config.listen and self.recipe.engine.zero == 3 else ""
        return f"validation every {self.config.every} steps on {clips} held-out clips ({modes}){quiet}"

    def run(self, step: int, tracker: Tracker | None) -> dict[str, Any]:
        """Losses now, the same on all ranks: overall, and under `losses` by mode, language and source.

        Args:
            step: for the names of what is spoken. tracker: gets that; rank 0 alone has one.

        Raises:
            JobError: some rank can read none of its clips.
        """
        device = self.engine.world.device
        cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), self.engine.averaged(), self.engine.at_rest():
            found = self._losses()
            if tracker is not None and self.config.listen and self.recipe.engine.zero < 3:
                self._speak(step, tracker)
        return found

    def _losses(self) -> dict[str, Any]:
        world = self.engine.world
        table_MK = self.groups.zeros(world.device)
        # All ranks compute equally many rows: under ZeRO 3 a forward is a conversation. What comes twice is not counted.
        places = range(world.rank, -(-len(self.rows) // world.size) * world.size, world.size)
        mine = [self._row(place % len(self.rows)) for place in places]
        stand_in = next((batch for _, batch in mine if batch is not None), None)
        missing = torch.tensor(float(stand_in is None), device=world.device)
        dist.all_reduce(missing)
        if missing or stand_in is None:
            raise JobError("validation: a rank can read no held-out clip; are the latent shards in place?")
        for place, (shown, batch) in zip(places, mine, strict=True):
            generator = row_generator(self.recipe.seed, NO_STEP, place, world.device)
            samples_SK = self.engine.forward(batch or stand_in, generator, PROGRESS)[2]
            if place < len(self.rows) and batch is not None:
                self.groups.add(table_MK, shown, samples_SK)
        dist.all_reduce(table_MK)
        groups = self.groups.read(table_MK.tolist())
        whole = total(groups)
        losses = {name: sums.losses(self.corpus.patch_size) for name, sums in groups.items()}
        return whole.losses(self.corpus.patch_size) | whole.stops() | {"losses": losses}

    def _row(self, place: int) -> tuple[list[Shown], PackedBatch | None]:
        """A row with its latents, read once and kept; clips that cannot be read are named and left out."""
        if place not in self._read:
            kept, layouts = [], []
            for shown in self.rows[place]:
                try:
                    layouts.append(layout(shown, self.corpus, max_positions=self.recipe.max_positions))
                    kept.append(shown)
                except (ValueError, OSError) as error:
                    clip = self.corpus.value(shown.draw.clip, "clip_id")
                    log.warning("validation: passed by clip %s: %s", clip, error)
            self._read[place] = (kept, pack(layouts) if layouts else None)
        return self._read[place]

    def _speak(self, step: int, tracker: Tracker) -> None:
        """Says the first samples of each mode in turn, from their texts, descriptions and references."""
        from training.codec.validation import mel_picture

        model, device = self.engine.losses.model, self.engine.world.device
        vae = load_vae(self.recipe.init, self.settings, device=device)
        chosen = self._chosen()
        batch = ContinuousBatch(model)
        rows = []
        for number, shown in enumerate(chosen):
            limit = round(SPARE * int(self.corpus.patches[shown.draw.clip]))
            generator = torch.Generator(device).manual_seed(self.recipe.seed + number)
            reference_RPD = None if shown.reference is None else self.corpus.read(shown.reference).float()
            spoken = arrange(
                shown.tokens,
                reference_RPD=reference_RPD,
                closed=False,
                patch_shape=(self.settings.patch_size, self.settings.feat_dim),
                max_length=self.settings.max_length,
            )
            rows.append(
                ActiveRequest(spoken, Settings(), min(limit, self.settings.max_length - len(spoken)), generator)
            )
        batch.join(rows)
        while batch.active:
            batch.step()
        rate = self.settings.audio_vae_config.out_sample_rate
        for number, (shown, row) in enumerate(zip(chosen, rows, strict=True)):
            target_GPD = self.corpus.read(shown.draw.clip).float()
            recorded_GPD = target_GPD.to(device)
            no_context_CPD = context_of(row.layout).to(device)
            with torch.inference_mode():
                made = decode(vae, torch.stack(row.patches), no_context_CPD, seed=number).numpy()
                recorded = decode(vae, recorded_GPD, no_context_CPD, seed=number).numpy()
            name = f"{number}-{shown.mode}"
            if not np.isfinite(made).all():
                log.warning("validation: step %d: %s is not finite and was not kept", step, name)
                continue
            tracker.audio(f"{name}-made", step, made, rate)
            if not self._has_shown:
                tracker.audio(f"{name}-recorded", step, recorded, rate)
            top = min(rate / 2, MEL_TOP)
            tracker.picture(f"{name}-mel", step, mel_picture({"recorded": recorded, "made": made}, rate, top))
        self._has_shown = True

    def _chosen(self) -> list[Shown]:
        """What is spoken: the first short enough sample of every mode, then the second ones, and so on."""
        by_mode: dict[Mode, list[Shown]] = {}
        for shown in self.samples:
            if self.corpus.seconds[shown.draw.clip] <= self.config.max_seconds:
                by_mode.setdefault(shown.mode, []).append(shown)
        deepest = max((len(some) for some in by_mode.values()), default=0)
        turns = [some[turn] for turn in range(deepest) for some in by_mode.values() if turn < len(some)]
        return turns[: self.config.listen]


def _samples(config: ValidationConfig, recipe: Recipe, corpus: Corpus, tokenizer: TextTokenizer) -> list[Shown]:
    """Up to `count` held-out clips in each mode of the mixture, in the order of their hashes."""
    found: list[Shown] = []
    reasons: Counter[str] = Counter()
    for mode, curve in recipe.mixture.modes.items():
        if not isinstance(curve, tuple) and curve <= 0:
            continue
        clips = np.flatnonzero(corpus.held_out_CM[:, MODES.index(mode)])
        order = sorted(clips.tolist(), key=lambda clip: hash_share(corpus.value(clip, "clip_id")))
        shown_so_far = 0
        for clip in order:
            if shown_so_far == config.count:
                break
            shown = show(
                Draw(len(found), 0, mode, clip), corpus, tokenizer, seed=recipe.seed, max_positions=recipe.max_positions
            )
            if isinstance(shown, str):
                reasons[shown] += 1
                continue
            found.append(shown)
            shown_so_far += 1
    if not found:
        why = ", ".join(f"{reason} {count}" for reason, count in reasons.items()) or "no mode of the recipe fits them"
        raise UserError(f"validation: no held-out clip can be shown ({why}); hold out others or more")
    return found


def _nothing() -> Shown:
    raise AssertionError("a window of 0 draws nothing")
