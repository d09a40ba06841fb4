"""Validation in training: losses on held-out clips by mode, and audio that the current weights generate for some.

The same samples with the same noise each time, so that two values differ by the weights alone. All random numbers come
from generators of its own and the global state is restored: validation changes no bit of the training.
"""

import logging
import math
from collections import Counter
from collections.abc import Mapping

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
from model.sequence.packing import PackedBatch
from model.sequence.text_tokenizer import TextTokenizer
from training.curriculum.corpus import Corpus, held_out_fraction
from training.curriculum.engine import Engine
from training.curriculum.plan_arrays import plan_arrays
from training.curriculum.recipe import Recipe, ValidationConfig
from training.curriculum.row_packer import Packer
from training.curriculum.sample_plan import PlannedSample, plan_sample
from training.curriculum.sample_reader import SampleReader
from training.curriculum.step import build_rows, row_generator
from training.curriculum.telemetry import GroupLosses, Groups, ValidationMetrics, total
from voxmill.core.audio_plots import mel_picture
from voxmill.core.errors import JobError, UserError
from voxmill.core.tracking import Tracker
from voxmill.data.records import Mode

log = logging.getLogger("voxmill")
NO_STEP = 2**40
"""Stands for the step in the noise of validation: no step of a run has the same."""
PROGRESS = 1.0
"""Of the training, for losses that depend on it: always its end, so that they do not change with the step alone."""
SPARE = 1.5
"""Generated speech may be this many times as long as the recording."""
MEL_TOP = 12_000.0
"""Hertz, the highest frequency in the pictures."""


class Validation:
    """Held-out samples in rows, of which each rank computes its own.

    Args:
        groups: by which losses are reported.

    Raises:
        UserError: no held-out clip can be used in a mode of the recipe.
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
        self._reader = SampleReader(corpus, tokenizer, max_positions=recipe.max_positions)
        self.samples = _samples(config, recipe, corpus, tokenizer)
        packer = Packer(recipe.packing.positions, 0, self.samples)
        self.rows: list[list[PlannedSample]] = []
        while packer.waiting:
            self.rows.append(packer.next_row(_nothing))
        self._read: dict[int, tuple[list[PlannedSample], PackedBatch | None]] = {}
        self._has_recorded = False
        self.before: ValidationMetrics | None = None
        """Of the weights before the first step, against which forgetting is measured; None until `measure_before`."""

    def measure_before(self) -> float:
        """The loss before the first step, without speech; kept as `before` if it is finite. The same on all ranks."""
        metrics = self.run(0, None)
        self.before = metrics if math.isfinite(metrics.loss) else None
        return metrics.loss

    def describe(self) -> str:
        """One line for people."""
        modes = ", ".join(f"{mode} {count}" for mode, count in Counter(s.mode for s in self.samples).items())
        clips = len({sample.clip for sample in self.samples})
        quiet = "; without sample audio under ZeRO 3" if self.config.listen and self.recipe.engine.zero == 3 else ""
        return f"validation every {self.config.every} steps on {clips} held-out clips ({modes}){quiet}"

    def run(self, step: int, tracker: Tracker | None) -> ValidationMetrics:
        """Losses of the current weights, the same on all ranks.

        Args:
            step: under which audio and pictures are kept. tracker: gets them; rank 0 alone has one.

        Raises:
            JobError: some rank can read none of its clips.
        """
        device = self.engine.world.device
        cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), self.engine.state.averaged(), self.engine.evaluating():
            metrics = self._losses()
            if tracker is not None and self.config.listen and self.recipe.engine.zero < 3:
                self._generate(step, tracker)
        return metrics

    def _losses(self) -> ValidationMetrics:
        world = self.engine.world
        table_MK = self.groups.zeros(world.device)
        # All ranks compute equally many rows: under ZeRO 3 a forward pass is collective. Repeated rows do not count.
        numbers = range(world.rank, -(-len(self.rows) // world.size) * world.size, world.size)
        mine = [self._row(number % len(self.rows)) for number in numbers]
        stand_in = next((batch for _, batch in mine if batch is not None), None)
        if world.any(stand_in is None) or stand_in is None:
            raise JobError("validation: a rank can read no held-out clip; are the latent shards in place?")
        for number, (samples, batch) in zip(numbers, mine, strict=True):
            generator = row_generator(self.recipe.seed, NO_STEP, number, world.device)
            samples_SK = self.engine.forward(batch or stand_in, generator, PROGRESS)[2]
            if number < len(self.rows) and batch is not None:
                self.groups.add(table_MK, samples, samples_SK)
        dist.all_reduce(table_MK)
        groups = self.groups.read(table_MK.tolist())
        whole = total(groups)
        losses = {name: sums.losses(self.corpus.patch_size, self.recipe.loss) for name, sums in groups.items()}
        return ValidationMetrics(
            overall=whole.losses(self.corpus.patch_size, self.recipe.loss),
            stops=whole.stop_scores(),
            losses=losses,
            forgetting={} if self.before is None else self._forgetting(losses, self.before.losses),
        )

    def _forgetting(self, now: Mapping[str, GroupLosses], before: Mapping[str, GroupLosses]) -> dict[str, float]:
        """How much higher losses are than before the first step: by language of what was known, and by its source."""
        watched = {f"source/{name}" for name, dataset in self.recipe.datasets.items() if dataset.role != "train"}
        return {
            name.removeprefix("known/"): losses.loss - before[name].loss
            for name, losses in now.items()
            if name in before and (name.startswith("known/") or name in watched)
        }

    def _row(self, number: int) -> tuple[list[PlannedSample], PackedBatch | None]:
        """A row with its latents, read once and kept; clips that cannot be read are reported and left out."""
        if number not in self._read:
            ((row,), _) = build_rows([(number, self.rows[number])], self._reader)
            self._read[number] = (row.samples, row.batch)
        return self._read[number]

    def _generate(self, step: int, tracker: Tracker) -> None:
        """Generates the first samples of each mode in turn from their texts, descriptions and references."""
        model, device = self.engine.losses.model, self.engine.world.device
        vae = load_vae(self.recipe.init, self.settings, device=device)
        chosen = self._chosen()
        batch = ContinuousBatch(model)
        rows = []
        for number, sample in enumerate(chosen):
            limit = round(SPARE * int(self.corpus.patches[sample.clip]))
            generator = torch.Generator(device).manual_seed(self.recipe.seed + number)
            reference_RPD = None if sample.reference is None else self.corpus.read(sample.reference).float()
            prompt = arrange(
                self._reader.tokens([sample])[0],
                reference_RPD=reference_RPD,
                closed=False,
                patch_shape=(self.settings.patch_size, self.settings.feat_dim),
                max_length=self.settings.max_length,
            )
            rows.append(
                ActiveRequest(prompt, Settings(), min(limit, self.settings.max_length - len(prompt)), generator)
            )
        batch.join(rows)
        while batch.active:
            batch.step()
        rate = self.settings.audio_vae_config.out_sample_rate
        for number, (sample, row) in enumerate(zip(chosen, rows, strict=True)):
            target_GPD = self.corpus.read(sample.clip).float()
            recorded_GPD = target_GPD.to(device)
            no_context_CPD = context_of(row.layout).to(device)
            with torch.inference_mode():
                made = decode(vae, torch.stack(row.patches), no_context_CPD, seed=number).numpy()
                recorded = decode(vae, recorded_GPD, no_context_CPD, seed=number).numpy()
            name = f"{number}-{sample.mode}"
            if not np.isfinite(made).all():
                log.warning("validation: step %d: %s is not finite and was not kept", step, name)
                continue
            tracker.audio(f"{name}-made", step, made, rate)
            if not self._has_recorded:
                tracker.audio(f"{name}-recorded", step, recorded, rate)
            top = min(rate / 2, MEL_TOP)
            tracker.picture(f"{name}-mel", step, mel_picture({"recorded": recorded, "made": made}, rate, top))
        self._has_recorded = True

    def _chosen(self) -> list[PlannedSample]:
        """Samples to generate: the first short enough one of every mode, then the second ones, and so on."""
        by_mode: dict[Mode, list[PlannedSample]] = {}
        for sample in self.samples:
            if self.corpus.seconds[sample.clip] <= self.config.max_seconds:
                by_mode.setdefault(sample.mode, []).append(sample)
        deepest = max((len(some) for some in by_mode.values()), default=0)
        turns = [some[turn] for turn in range(deepest) for some in by_mode.values() if turn < len(some)]
        return turns[: self.config.listen]


def _samples(config: ValidationConfig, recipe: Recipe, corpus: Corpus, tokenizer: TextTokenizer) -> list[PlannedSample]:
    """Up to `count` held-out clips in each mode of the mixture, in the order of their hashes.

    Where forgetting is measured, as many of each dataset and language.
    """
    is_watched = any(dataset.role != "train" for dataset in recipe.datasets.values())
    samples: list[PlannedSample] = []
    reasons: Counter[str] = Counter()
    for mode, curve in recipe.mixture.modes.items():
        if not isinstance(curve, tuple) and curve <= 0:
            continue
        clips = corpus.held_out_in(mode)
        of_mode: Counter[tuple[int, int]] = Counter()
        for clip in sorted(clips.tolist(), key=lambda clip: held_out_fraction(corpus.clip_id(clip))):
            kind = (int(corpus.dataset[clip]), int(corpus.language[clip])) if is_watched else (0, 0)
            if of_mode[kind] == config.count:
                continue
            sample = plan_sample(
                mode,
                clip,
                plan_arrays(corpus),
                number=len(samples),
                seed=recipe.seed,
                max_positions=recipe.max_positions,
                cross_lingual=recipe.references.cross_lingual,
                shares=recipe.mixture.descriptions,
            )
            if isinstance(sample, str):
                reasons[sample] += 1
                continue
            samples.append(sample)
            of_mode[kind] += 1
    if not samples:
        why = ", ".join(f"{reason} {count}" for reason, count in reasons.items()) or "no mode of the recipe fits them"
        raise UserError(f"validation: no held-out clip can be used ({why}); hold out others or more")
    return samples


def _nothing() -> PlannedSample:
    raise AssertionError("a window of 0 draws nothing")
