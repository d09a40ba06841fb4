"""One optimizer step: rows are read, losses summed and divided by global counts; all ranks agree on bad rows.

The loss is (all diffusion errors) / (all target frames) + (all stop errors) / (all target patches), each times its
weight (`loss`), over all rows of all ranks: no mean of means (report 3.5). Random numbers of a row depend on seed, step
and the row's number alone, so the number of ranks changes the order of a few sums and nothing else.
"""

import logging
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from model.sequence.layouts import Layout
from model.sequence.packing import PackedBatch, pack
from training.curriculum.engine import Engine
from training.curriculum.plan.flops import RowFlops
from training.curriculum.recipe import Recipe
from training.curriculum.sample_order import mix, share
from training.curriculum.sample_plan import PlannedSample
from training.curriculum.sample_reader import SampleReader
from training.curriculum.telemetry import Groups, Spread, Sums
from training.run.world import World
from voxmill.core.errors import JobError
from voxmill.core.storage import raise_unavailable

log = logging.getLogger("voxmill")


class NotFinite(JobError):
    """The weights give no finite loss, whatever the row; raised on all ranks together."""


@dataclass
class Row:
    """A packed row of this rank.

    number: among all rows of the step. samples: those whose audio could be read. batch: None where there is none.
    seconds: of target audio.
    """

    number: int
    samples: list[PlannedSample]
    batch: PackedBatch | None
    seconds: float


@dataclass
class StepResult:
    """Of all ranks together, the same on each. Losses are means over frames and patches, NaN where no row counted."""

    loss: float
    """The weighted sum, which was minimised."""
    diffusion: float
    stop: float
    num_patches: int
    positions: int
    audio_seconds: float
    norm: float
    flops: float
    """Model FLOPs of all rows."""
    waited: Spread
    """Seconds that the step waited for data."""
    read: Spread
    """Seconds that reading and tokenizing took, in the background."""
    groups: dict[str, Sums] = field(default_factory=dict)
    """Sums of the good rows, by mode, language and source."""
    bad_clips: list[int] = field(default_factory=list)
    unreadable: list[int] = field(default_factory=list)


def read_rows(rows: Sequence[list[PlannedSample]], world: World, reader: SampleReader) -> tuple[list[Row], list[int]]:
    """(this rank's rows with their latents, clips that cannot be read); the latter are reported and skipped."""
    return build_rows([(number, rows[number]) for number in share(len(rows), world.rank, world.size)], reader)


def build_rows(
    numbered: Sequence[tuple[int, list[PlannedSample]]], reader: SampleReader
) -> tuple[list[Row], list[int]]:
    """The same of rows with their numbers in the step."""
    corpus, built, unreadable = reader.corpus, list[Row](), list[int]()
    layouts = iter(reader.layouts([sample for _, samples in numbered for sample in samples]))
    for number, samples in numbered:
        read: list[Layout] = []
        readable: list[PlannedSample] = []
        for sample, found in zip(samples, islice(layouts, len(samples)), strict=True):
            if isinstance(found, Layout):
                read.append(found)
                readable.append(sample)
                continue
            raise_unavailable(found)
            unreadable.append(sample.clip)
            log.warning("skipped clip %s: %s", corpus.clip_id(sample.clip), found)
        seconds = float(sum(corpus.seconds[sample.clip] for sample in readable))
        built.append(Row(number, readable, pack(read) if read else None, seconds))
    return built, unreadable


def row_generator(seed: int, step: int, number: int, device: torch.device) -> torch.Generator:
    """The random numbers of row `number` of a step, on whatever rank it is computed."""
    with np.errstate(over="ignore"):
        key = mix(mix(np.array([seed], dtype=np.uint64)) + np.uint64(step * 2**20 + number))
    return torch.Generator(device).manual_seed(int(key[0]) % 2**63)


def _silence(batch: PackedBatch) -> PackedBatch:
    """The same row without its audio, whose loss is finite wherever the weights are."""
    return replace(
        batch,
        audio_APD=torch.zeros_like(batch.audio_APD),
        target_GPD=torch.zeros_like(batch.target_GPD),
        condition_GPD=torch.zeros_like(batch.condition_GPD),
    )


class Stepper:
    """Runs steps, and detects bad rows by the losses of the steps before.

    Args:
        patch_size: latent frames a patch.
        spike: a row whose loss exceeds the median of the last steps this many times is bad; None: only one that is not
            finite.
        groups: by which sums are kept apart; None: no groups.
    """

    HISTORY, ENOUGH = 64, 16

    def __init__(
        self, engine: Engine, recipe: Recipe, *, patch_size: int, spike: float | None, groups: Groups | None = None
    ) -> None:
        self.engine, self.recipe, self.patch_size, self.spike = engine, recipe, patch_size, spike
        self.groups, self._flops = groups, RowFlops.of(engine.losses.model)
        self.history: list[float] = []
        """Losses of the last steps, the same on all ranks; part of a checkpoint."""
        self._good: PackedBatch | None = None
        """The last good row of this rank, which stands in for bad ones."""

    def __call__(
        self,
        rows: Sequence[Row],
        unreadable: Sequence[int],
        *,
        step: int,
        rate: float,
        waited: float = 0.0,
        read: float = 0.0,
    ) -> StepResult:
        """One step over this rank's rows; the other ranks call it with theirs.

        Args:
            rate: learning rate. waited: seconds that this rank waited for data; read: that it took to read them.

        Raises:
            JobError: no clip of some rank can be read.
            NotFinite: a row known to be good has no finite loss either.
        """
        mine = [row.batch for row in rows if row.batch is not None]
        self._good = self._good or (mine[0] if mine else None)
        spreads = Spread.over(self.engine.world, waited, read)
        patches, positions, seconds, flops = self.engine.world.sums(
            [
                sum(len(batch.target_GPD) for batch in mine),
                sum(len(batch.tokens_N) for batch in mine),
                sum(row.seconds for row in rows),
                sum(self._flops(batch) for batch in mine),
            ]
        )
        if not patches or self.engine.world.any(self._good is None):
            raise JobError(f"step {step}: a rank has no clip that can be read; are the latent shards in place?")
        counted, bad = [0.0, 0.0, 0.0], list[int]()
        table_MK = None if self.groups is None else self.groups.zeros(self.engine.world.device)
        for index, row in enumerate(rows):
            diffusion, stop, samples_SK, is_good = self._forward(row, step)
            weights = self.recipe.loss
            loss = weights.diffusion * diffusion / (patches * self.patch_size) + weights.stop * stop / patches
            # Zero times a loss that is known to be finite: the row of a stand-in moves nothing.
            self.engine.backward(loss if is_good else loss * 0.0)
            if is_good and row.batch is not None:
                values = (float(diffusion.detach()), float(stop.detach()), float(len(row.batch.target_GPD)))
                counted = [a + b for a, b in zip(counted, values, strict=True)]
                self._good = row.batch
                if self.groups is not None and table_MK is not None:
                    self.groups.add(table_MK, row.samples, samples_SK)
            elif row.batch is not None:
                bad += [clip for sample in row.samples for clip in sample.clips]
            if index + 1 < len(rows):
                self.engine.row_done()
        norm = self.engine.step(rate)
        (diffusion_sum, stop_sum, num), groups = self._sum_all(counted, table_MK)
        diffusion_mean = diffusion_sum / (num * self.patch_size) if num else math.nan
        stop_mean = stop_sum / num if num else math.nan
        result = StepResult(
            loss=self.recipe.loss.diffusion * diffusion_mean + self.recipe.loss.stop * stop_mean,
            diffusion=diffusion_mean,
            stop=stop_mean,
            num_patches=int(num),
            positions=int(positions),
            audio_seconds=seconds,
            norm=norm,
            flops=flops,
            waited=spreads[0],
            read=spreads[1],
            groups=groups,
            bad_clips=all_clips(self.engine.world, bad),
            unreadable=all_clips(self.engine.world, unreadable),
        )
        if math.isfinite(result.loss):
            self.history = [*self.history, result.loss][-self.HISTORY :]
        return result

    def _forward(self, row: Row, step: int) -> tuple[Tensor, Tensor, Tensor, bool]:
        """(diffusion, stop, sums by sample, True) of a row, or a stand-in's with False where it is bad or empty.

        Where any rank has a bad row, all compute again: under ZeRO 3 a forward pass is collective.
        """
        progress = step / max(self.recipe.steps - 1, 1)
        assert self._good is not None

        def compute(batch: PackedBatch) -> tuple[Tensor, Tensor, Tensor]:
            generator = row_generator(self.recipe.seed, step, row.number, self.engine.world.device)
            return self.engine.forward(batch, generator, progress)

        diffusion, stop, samples_SK = compute(row.batch or self._good)
        is_bad = row.batch is not None and self._is_bad(float(diffusion.detach()), float(stop.detach()), row.batch)
        if self.engine.world.any(is_bad):
            if is_bad and row.batch is self._good:  # the first row of this process; no good one is known yet
                self._good = _silence(row.batch)
            del diffusion, stop
            diffusion, stop, samples_SK = compute(self._good if is_bad else row.batch or self._good)
            if self.engine.world.any(not math.isfinite(float(diffusion.detach() + stop.detach()))):
                raise NotFinite(f"step {step}: the loss of a good row is not finite either")
        return diffusion, stop, samples_SK, row.batch is not None and not is_bad

    def _is_bad(self, diffusion: float, stop: float, batch: PackedBatch) -> bool:
        num = len(batch.target_GPD)
        weights = self.recipe.loss
        if not math.isfinite(diffusion + stop):
            return True
        loss = weights.diffusion * diffusion / (num * self.patch_size) + weights.stop * stop / num
        known = self.spike is not None and len(self.history) >= self.ENOUGH
        return known and loss > float(self.spike or 0) * statistics.median(self.history)

    def _sum_all(self, counted: list[float], table_MK: Tensor | None) -> tuple[list[float], dict[str, Sums]]:
        """The step's sums and those of its groups over all ranks, in one reduction."""
        if self.groups is None or table_MK is None:
            return self.engine.world.sums(counted), {}
        mine = torch.tensor(counted, dtype=torch.float64, device=table_MK.device)
        sums = torch.cat([mine, table_MK.flatten()])
        dist.all_reduce(sums)
        whole, table = sums[: len(counted)].tolist(), sums[len(counted) :].view(table_MK.shape).tolist()
        return whole, self.groups.read(table)


def all_clips(world: World, clips: Sequence[int]) -> list[int]:
    """The clips that all ranks named, sorted; the ranks exchange them only where one named any."""
    if not world.any(bool(clips)):
        return []
    return sorted({clip for named in world.gather(list(clips)) for clip in named})
