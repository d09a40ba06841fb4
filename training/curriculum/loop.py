"""A run from its first step, or from the newest whole checkpoint, to its export.

A run is its folder: `checkpoints/`, `metrics.jsonl` with a line a step, `media/` with audio from validation, `export/`
in the released layout when it is done; MLflow gets a copy of all but the weights (`voxmill.core.tracking`). The same
command resumes after any crash, with any number of ranks and any ZeRO stage.
"""

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import JsonValue

from model.checkpoint import load_model
from model.config import read_config
from model.sequence.text_tokenizer import TextTokenizer
from training.curriculum.corpus import Corpus
from training.curriculum.engine import Engine
from training.curriculum.export import base_checksum, export, exported_kind, weights_of, write_recipe
from training.curriculum.feed.feed import Feed
from training.curriculum.recipe import Recipe
from training.curriculum.row_plan import SampleStreamState
from training.curriculum.step import NotFinite, Row, Stepper, StepResult, all_clips
from training.curriculum.telemetry import Groups, Pace, StepMetrics, ValidationMetrics, peak_of, progress_line, total
from training.curriculum.validation import Validation
from training.curriculum.vitals import Vitals, VitalSigns, VitalsState
from training.run.checkpoint_files import Part, damage
from training.run.checkpoints import Checkpoints, changed_settings
from training.run.run_to_end import run_to_end, tracker_in
from training.run.schedule import warmup_then_cosine
from training.run.stop_signal import StopSignal
from training.run.watchdog import Watchdog
from training.run.world import World
from voxmill.core.errors import ExitStatus, JobError, UserError
from voxmill.core.local_copies import WorkingFolder
from voxmill.core.sharded_tensors import ShardedTensors
from voxmill.core.tracking import Tracker

log = logging.getLogger("voxmill")
PRINT_EVERY = 10
"""Steps between two lines of progress."""
MAY_CHANGE = (
    "steps",
    "optimizer.learning_rate",
    "optimizer.warmup_steps",
    "optimizer.final",
    "mixture",
    "loss",
    "health",
)
"""Settings with which a run may go on otherwise than it began; they decide what comes, and not what came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """What a run resumes from, besides tensors."""

    stream: SampleStreamState
    optimizer_steps: int
    bad_steps: int
    """Bad steps in a row, the last ones before it was saved."""
    history: tuple[float, ...]
    """Losses of the last steps."""
    settings: dict[str, JsonValue]
    """`settings_of` the recipe."""
    base: str | None
    """sha256 of the weights that adapters are trained for; None without adapters."""
    run_id: str | None
    """MLflow's."""
    vitals: VitalsState = VitalsState()
    before: ValidationMetrics | None = None
    """Held-out losses before the first step."""
    changes: tuple[str, ...] = ()
    """Settings that changed when it was resumed: `step N: key: old -> new`."""


class Run:
    """One stage in training, seen from one rank.

    Raises:
        UserError: the recipe's rows cannot be divided by the ranks, or nothing can be validated.
    """

    def __init__(self, recipe: Recipe, corpus: Corpus, world: World, stop: StopSignal) -> None:
        if recipe.rows % world.size:
            raise UserError(f"rows = {recipe.rows} cannot be divided by {world.size} ranks; change either")
        self.recipe, self.corpus, self.world, self.stop = recipe, corpus, world, stop
        self.settings = read_config(recipe.init)
        model = load_model(recipe.init, self.settings, dtype=torch.float32)
        self.engine = Engine(model, recipe, world)
        tokenizer, groups = TextTokenizer.from_folder(recipe.init), Groups(corpus, recipe)
        self.stepper = Stepper(
            self.engine, recipe, patch_size=corpus.patch_size, spike=recipe.health.spike, groups=groups
        )
        self.checkpoints = Checkpoints(
            recipe.run.out / "checkpoints",
            RunState,
            keep=recipe.run.keep,
            keep_best=recipe.run.keep_best,
            world=world,
        )
        self.base = base_checksum(recipe.init) if recipe.lora is not None else None
        self.files = WorkingFolder(recipe.run.out)
        self.tracker: Tracker | None = None
        """Of rank 0, once the step to resume from is known."""
        self.validation: Validation | None = None
        if recipe.validation is not None:
            self.validation = Validation(
                recipe.validation, recipe, corpus, tokenizer, self.engine, groups, self.settings
            )
        self.validation_loss: float | None = None
        """Of the current weights, the same on all ranks; None where it was not measured since the last step."""
        self.pace, self.peak = Pace(recipe.steps), peak_of(recipe, world.device)
        self.vitals, self.changes = Vitals(recipe), list[str]()
        self.bad_steps = self.saved = 0
        """Bad steps in a row; the step after which it was last saved."""
        self.plan_seconds = 0.0
        """CPU of the planning process for the last step."""
        self.stream = Feed(corpus, recipe, tokenizer, world)

    @property
    def step(self) -> int:
        """Steps that were made."""
        return self.stream.step

    def __call__(self) -> ExitStatus:
        """Trains to the end (DONE), or until a stop signal (STOPPED).

        Raises:
            UserError: the recipe or the data are not those of the checkpoint.
            JobError: no clip can be read, or the loss of a good row is not finite either.
        """
        try:
            return run_to_end(self, self.recipe.run.hang_seconds)
        finally:
            self.stream.close()

    def train(self, watchdog: Watchdog) -> bool:
        """Whether a stop signal ended it."""
        self._resume()
        while True:
            # Here, so that a signal that came while the run was set up is not answered by a step.
            stopped = self.world.any(self.stop.is_set)
            is_last = stopped or self.step == self.recipe.steps
            if self.step != self.saved and (is_last or self.step % self.recipe.run.save_every == 0):
                self._save()
                # Rank 0 alone waits for the checkpoint before it, or generates audio below: without a barrier the
                # clocks of the others would count that, too.
                self.world.barrier()
                watchdog.restart()
            if is_last:
                return stopped
            result, rate, seconds, rolled_back = self._step()
            watchdog.beat(self.step - 1)
            validation = self._validate(self.step)
            if validation is not None:
                self.world.barrier()
                watchdog.restart()
            self._log(self.step, self._metrics(result, rate, seconds, rolled_back, validation))

    def _step(self) -> tuple[StepResult, float, float, bool]:
        """One step: (result, learning rate, seconds with its data, whether earlier weights were restored after it)."""
        began, step, optimizer = time.perf_counter(), self.stream.step, self.recipe.optimizer
        self.validation_loss = None
        feed = self.stream.next_step()
        self.plan_seconds, waited = feed.plan_seconds, time.perf_counter() - began
        rate = warmup_then_cosine(
            step,
            steps=self.recipe.steps,
            peak=optimizer.learning_rate,
            warmup_steps=optimizer.warmup_steps,
            final=optimizer.final,
        )
        try:
            result = self.stepper(
                feed.rows, feed.unreadable, step=step, rate=rate, waited=waited, read=feed.read_seconds
            )
        except NotFinite as error:
            hint = self.world.from_first(lambda: self.checkpoints.hint_without(step))
            raise JobError(str(error), resume_hint=hint) from None
        rolled_back = self._handle_bad_rows(result, feed.rows)
        if rolled_back:
            self.vitals.forget()
        else:
            self._end_if_dead(result)
        return result, rate, time.perf_counter() - began, rolled_back

    def _end_if_dead(self, result: StepResult) -> None:
        """Raises JobError where the run learns nothing any more; all ranks do, from the same numbers."""
        cause = self.vitals.cause_of_death(VitalSigns(loss=result.loss, stop=result.stop, norm=result.norm))
        if cause:
            alive = max(self.step - (self.recipe.health.dead_after or 0), 1)
            hint = self.world.from_first(lambda: self.checkpoints.hint_without(alive))
            raise JobError(f"step {self.step - 1}: the run has died: {cause}", resume_hint=hint)

    def _validate(self, done: int) -> ValidationMetrics | None:
        """Held-out losses after step `done`, where they are due."""
        if self.validation is None:
            return None
        if done % self.validation.config.every and done != self.recipe.steps:
            return None
        metrics = self.validation.run(done, self.tracker)
        self.validation_loss = metrics.loss
        return metrics

    def _handle_bad_rows(self, result: StepResult, rows: list[Row]) -> bool:
        """Quarantines the clips of bad rows; after too many bad steps restores the last good weights and returns True.

        Args:
            rows: this rank's of the step.
        """
        is_broken = not result.norm < float("inf")
        suspects = result.bad_clips
        if is_broken:
            clips = [clip for row in rows for sample in row.samples for clip in sample.clips]
            suspects = all_clips(self.world, clips)
        for clip in suspects:
            self._print(f"step {self.stream.step - 1}: quarantined clip {self.corpus.clip_id(clip)}")
        if suspects:
            self.stream.quarantine(suspects)
        self.bad_steps = self.bad_steps + 1 if suspects else 0
        if not is_broken and self.bad_steps < self.recipe.health.roll_back_after:
            return False
        path = self._latest(sound=True)
        if path is None:
            raise JobError(f"{self.checkpoints.folder}: no checkpoint is left to restore the weights from")
        self._restore(path, self.checkpoints.read(path).state.optimizer_steps)
        self.bad_steps = 0
        self._print(f"step {self.stream.step - 1}: restored the weights of {path.name}; continuing without its clips")
        return True

    def _resume(self) -> None:
        path = self._latest()
        if path is None:
            self._track(None)
            if self.validation is not None:
                self._print(f"held-out loss before training {self.validation.measure_before():.4f}")
            self._save()
            return
        state = self.checkpoints.read(path).state
        changed = changed_settings(state.settings, settings_of(self.recipe), free=MAY_CHANGE)
        if changed.fixed:
            raise UserError(
                f"{self.recipe.run.out} was started with another recipe ({'; '.join(changed.fixed[:3])}); "
                "name a new run.out, or restore the old recipe"
            )
        if state.base != self.base:
            raise UserError(
                f"{self.recipe.init}: its weights are not those that the adapters in {path} belong to (sha256 "
                f"{str(self.base)[:12]}... instead of {str(state.base)[:12]}...); restore the old checkpoint as init, "
                "or name another run.out"
            )
        self.stream.restore(state.stream)
        self.bad_steps, self.stepper.history = state.bad_steps, list(state.history)
        self.vitals.restore(state.vitals)
        if self.validation is not None:
            self.validation.before = state.before
        self.changes = [*state.changes, *(f"step {self.step}: {line}" for line in changed.free)]
        self._restore(path, state.optimizer_steps)
        self.saved = self.step
        self._track(state.run_id)
        if self.step or changed.free:
            self._print("; ".join([f"resuming from {path.name}", *changed.free]))

    def _restore(self, path: Path, optimizer_steps: int) -> None:
        self.engine.state.restore(ShardedTensors(path), optimizer_steps)
        self.world.barrier()

    def _track(self, run_id: str | None) -> None:
        """Begins to report, or continues; lines that a killed run wrote after its last checkpoint are replaced."""
        if self.validation is not None:
            self._print(self.validation.describe())
        if not self.world.is_first:
            return
        write_recipe(self.recipe)
        run = self.recipe.run
        self.tracker = tracker_in(
            self.files,
            uri=run.tracking_uri,
            experiment=run.experiment,
            name=run.out.name,
            run_id=run_id,
            step=self.stream.step - 1,
        )
        # At a resume, too: the run may have been killed before MLflow had them.
        self.tracker.params(self.recipe.model_dump(mode="json") | {"ranks": self.world.size})

    def _latest(self, *, sound: bool = False) -> Path | None:
        """The checkpoint that all ranks read."""
        self.checkpoints.wait()
        return self.checkpoints.latest(sound=sound)

    def _save(self) -> None:
        # The copy in host memory is the only one: that of the checkpoint before it is gone then.
        self.checkpoints.wait()
        fragments = self.engine.state.copied()
        self.saved = self.step
        state = RunState(
            stream=self.stream.state(),
            optimizer_steps=self.engine.state.steps,
            bad_steps=self.bad_steps,
            history=tuple(self.stepper.history),
            vitals=self.vitals.state(),
            before=None if self.validation is None else self.validation.before,
            changes=tuple(self.changes),
            settings=settings_of(self.recipe),
            base=self.base,
            run_id=None if self.tracker is None else self.tracker.run_id,
        )

        def write(part: Part) -> None:
            if part.rank == 0:
                self.files.push()  # a run that resumes from the checkpoint continues its metrics
            part.add_tensors(fragments)

        self.checkpoints.save(
            self.step,
            write,
            state,
            num_bytes=sum(fragment.num_bytes for fragment in fragments),
            score=self.validation_loss,
            is_sound=not self.bad_steps,
        )

    def export(self) -> None:
        """Exports the trained weights, or their average where the recipe has one, in the released layout."""
        kind = exported_kind(self.recipe)
        weights = {name: values[kind] for name, values in self.engine.state.tensors_on_first([kind]).items()}
        if not self.world.is_first:
            return
        if self.recipe.run.export == "best":
            best = next((path for path in self.checkpoints.best() if not damage(path)), None)
            if best is not None:
                weights = weights_of(best, self.recipe)
            self._print(f"exporting {best.name if best else 'the last weights: no checkpoint has a validation loss'}")
        folders = export(weights, self.recipe, self.settings)
        self._print(f"done: {', '.join(map(str, folders))}")

    def _metrics(
        self,
        result: StepResult,
        rate: float,
        seconds: float,
        rolled_back: bool,
        validation: ValidationMetrics | None,
    ) -> StepMetrics:
        mfu = None if self.peak is None else result.flops / seconds / (self.peak * self.world.size)
        return StepMetrics(
            loss=result.loss,
            diffusion=result.diffusion,
            stop=result.stop,
            stops=total(result.groups).stop_scores(),
            grad_norm=result.norm,
            learning_rate=rate,
            target_patches=result.num_patches,
            positions=result.positions,
            positions_per_second=result.positions / seconds,
            audio_seconds_per_second=result.audio_seconds / seconds,
            data_seconds=result.waited,
            read_seconds=result.read,
            plan_seconds=self.plan_seconds,
            teraflops=result.flops / 1e12,
            mfu=mfu,
            quarantined=len(self.stream.quarantined),
            unreadable=len(result.unreadable),
            rolled_back=rolled_back,
            skipped=dict(self.stream.skipped),
            shares=self.stream.shares(),
            losses={
                name: sums.losses(self.corpus.patch_size, self.recipe.loss) for name, sums in result.groups.items()
            },
            validation=validation,
            validation_before=self.validation.before if self.validation is not None and self.step == 1 else None,
        )

    def _log(self, done: int, metrics: StepMetrics) -> None:
        left = self.pace.left(done, time.perf_counter())
        if self.tracker is None:
            return
        self.tracker.metrics(done - 1, metrics.as_json())
        is_due = done == 1 or done % PRINT_EVERY == 0 or done == self.recipe.steps
        if is_due or metrics.validation is not None:
            print(progress_line(metrics, done, self.recipe.steps, left), flush=True)

    def _print(self, line: str) -> None:
        if self.world.is_first:
            print(line, flush=True)


def settings_of(recipe: Recipe) -> dict[str, JsonValue]:
    """What a resumed run may not change, and `MAY_CHANGE`: all settings but `engine`, `feed`, `run` and `init`.

    Of `validation` only what is held out counts: when and how it is validated changes no weight.
    """
    without = {"datasets": {"__all__": {"follow_symlinks"}}} | dict.fromkeys(("engine", "feed", "run", "init"), True)
    # As a checkpoint gives them back, in which infinity is null.
    values: dict[str, JsonValue] = json.loads(recipe.model_dump_json(exclude=without))
    validation = recipe.validation
    del values["validation"]
    if validation is not None:
        values["held_out"] = {"share": validation.share, "clips": list(validation.clips)}
    return values
