"""A run from its first step to its export: go on from the newest whole checkpoint, step, watch, save.

A run is its folder: `checkpoints/`, `metrics.jsonl` with a line a step, `media/` with what validation spoke,
`export/` in the released layout when it is done; MLflow gets a copy of all but the weights (`voxmill.tracking`). The
same command goes on after any crash, with any number of ranks and any ZeRO stage.
"""

import json
import logging
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from model.checkpoint import load_model
from model.config import read_config
from model.sequence.text_tokenizer import TextTokenizer
from training.curriculum.corpus import Corpus
from training.curriculum.engine import AVERAGE, Engine, World
from training.curriculum.export import base_checksum, export
from training.curriculum.recipe import Recipe
from training.curriculum.sample_stream import SampleStream
from training.curriculum.step import Stepper, StepResult, read_rows
from training.curriculum.telemetry import Groups, Pace, peak_of, progress_line, shares_of, total
from training.curriculum.validation import Validation
from training.run.checkpoints import Checkpoints, damage, read_state, read_tensors
from training.run.schedule import learning_rate
from training.run.watchdog import Watchdog
from voxmill.core.config import differences
from voxmill.core.errors import UserError
from voxmill.core.tracking import Tracker

log = logging.getLogger("voxmill")
STOPPED = 75
"""Exit status of a run that was told to end (SIGTERM) and saved: not done, and nothing failed."""
MAY_CHANGE = ("engine", "run", "init")
"""Sections of the recipe that a resumed run may change."""


class Run:
    """One stage in training, seen from one rank."""

    def __init__(self, recipe: Recipe, corpus: Corpus, world: World) -> None:
        if recipe.rows % world.size:
            raise UserError(f"rows = {recipe.rows} cannot be divided by {world.size} ranks; change either")
        self.recipe, self.corpus, self.world = recipe, corpus, world
        self.settings = read_config(recipe.init)
        model = load_model(recipe.init, self.settings, dtype=torch.float32)
        self.engine = Engine(model, recipe, world)
        tokenizer, groups = TextTokenizer.from_folder(recipe.init), Groups(corpus)
        self.stream = SampleStream(corpus, recipe, tokenizer)
        self.stepper = Stepper(
            self.engine, recipe, patch_size=corpus.patch_size, spike=recipe.health.spike, groups=groups
        )
        self.checkpoints = Checkpoints(recipe.run.out / "checkpoints", recipe.run.keep, recipe.run.keep_best)
        self.base = base_checksum(recipe.init) if recipe.lora is not None else None
        self.tracker: Tracker | None = None
        """Of rank 0, from the moment on that it is known where the run goes on."""
        self.validation: Validation | None = None
        if recipe.validation is not None:
            self.validation = Validation(
                recipe.validation, recipe, corpus, tokenizer, self.engine, groups, self.settings
            )
        self.validation_loss: float | None = None
        """Of the weights as they are now, the same on all ranks; None where it was not measured since the last step."""
        self.pace, self.peak = Pace(recipe.steps), peak_of(recipe, world.device)
        self.count = self.bad_steps = 0
        self.told_to_stop = False

    def __call__(self) -> int:
        """Trains to the end, or until SIGTERM; returns the exit status.

        Raises:
            UserError: the recipe or the data are not those of the checkpoint.
            JobError: no clip can be read, or the loss of a good row is not finite either.
        """
        if threading.current_thread() is threading.main_thread():
            # Under Ray Train it is not, and `ray_launch` tells.
            signal.signal(signal.SIGTERM, self._stop)
        try:
            self._resume()
            with Watchdog(self.recipe.run.hang_seconds, self.world.rank) as watchdog:
                stopped = self._train(watchdog)
            self.checkpoints.wait()
            if stopped:
                self._say(f"told to stop: saved after step {self.stream.step}; the same command goes on")
            else:
                self._export()
        except BaseException:
            self._finish("FAILED")
            raise
        self._finish("KILLED" if stopped else "FINISHED")
        return STOPPED if stopped else 0

    def _train(self, watchdog: Watchdog) -> bool:
        """Whether it was told to stop."""
        while self.stream.step < self.recipe.steps:
            line = self._step()
            done = self.stream.step
            watchdog.beat(done - 1)  # a validation, and what rank 0 speaks in it, has a time of its own
            self._log(done - 1, line | self._validate(done))
            stop = self._told_to_stop()
            if stop or done == self.recipe.steps or done % self.recipe.run.save_every == 0:
                self._save()
            watchdog.beat(done - 1)
            if stop:
                return True
        return False

    def _step(self) -> dict[str, Any]:
        """One step, and what there is to say of it."""
        began, step = time.perf_counter(), self.stream.step
        self.validation_loss = None
        rows = self.stream.next_step()
        mine, unreadable = read_rows(rows, self.engine, self.corpus, self.recipe)
        read = time.perf_counter()
        rate = learning_rate(step, self.recipe.steps, self.recipe.optimizer)
        result = self.stepper(mine, unreadable, step=step, rate=rate, waited=read - began)
        self.count += 1
        clips = [clip for row in rows for shown in row for clip in shown.clips]
        went_back = self._watch(result, sorted(set(clips)))
        return self._line(result, rate, time.perf_counter() - began, went_back)

    def _validate(self, done: int) -> dict[str, Any]:
        """Held-out losses after step `done`, where they are due; for the step's line."""
        if self.validation is None:
            return {}
        if done % self.validation.config.every and done != self.recipe.steps:
            return {}
        found = self.validation.run(done, self.tracker)
        self.validation_loss = found["loss"]
        return {"validation": found}

    def _watch(self, result: StepResult, clips: list[int]) -> bool:
        """Quarantines what was bad, and goes back to the last good checkpoint where that was not enough."""
        broken = not result.norm < float("inf")
        suspects = clips if broken else result.bad_clips
        for clip in suspects:
            self._say(f"step {self.stream.step - 1}: quarantined clip {self.corpus.value(clip, 'clip_id')}")
        if suspects:
            self.stream.quarantine(suspects)
        self.bad_steps = self.bad_steps + 1 if suspects else 0
        if not broken and self.bad_steps < self.recipe.health.roll_back_after:
            return False
        path = self._newest(sound=True)
        assert path is not None, "a run saves before its first step"
        self.count = int(read_state(path)["count"])
        self.engine.restore(read_tensors(path), self.count)
        self.bad_steps = 0
        self._say(f"step {self.stream.step - 1}: weights of {path.name} again; the run goes on past its clips")
        return True

    def _resume(self) -> None:
        path = self._newest()
        if path is None:
            self._track(None)
            self._save()
            return
        state = read_state(path)
        changed = differences(state["recipe"], _identity(self.recipe))
        if changed:
            raise UserError(
                f"{self.recipe.run.out} was begun with another recipe ({'; '.join(changed[:3])}); "
                "name a new run.out, or give the old recipe back"
            )
        if state.get("base") != self.base:
            raise UserError(
                f"{self.recipe.init}: its weights are not those that the adapters in {path} belong to (sha256 "
                f"{str(self.base)[:12]}... instead of {str(state.get('base'))[:12]}...); give the old checkpoint back as "
                "init, or another run.out"
            )
        self.stream.restore(state["stream"])
        self.count, self.bad_steps = state["count"], state["bad_steps"]
        self.stepper.history = state["history"]
        self.engine.restore(read_tensors(path), self.count)
        self._track(state.get("run_id"))
        if self.stream.step:
            self._say(f"going on from {path.name}")

    def _track(self, run_id: str | None) -> None:
        """Begins to report, or goes on: what a killed run said of steps after its last checkpoint is said again."""
        if self.validation is not None:
            self._say(self.validation.describe())
        if self.world.rank:
            return
        run = self.recipe.run
        self.tracker = Tracker(
            run.out,
            uri=run.tracking_uri,
            experiment=run.experiment,
            name=run.out.name,
            run_id=run_id,
            step=self.stream.step - 1,
        )
        # Also when it goes on: it may have been killed before MLflow had them.
        self.tracker.params(self.recipe.model_dump(mode="json") | {"ranks": self.world.size})

    def _finish(self, status: str) -> None:
        if self.tracker is not None:
            self.tracker.finish(status)

    def _newest(self, *, sound: bool = False) -> Path | None:
        """The checkpoint that all ranks read: rank 0 looks."""
        found: list[Any] = [None]
        if self.world.rank == 0:
            self.checkpoints.wait()
            found = [self.checkpoints.latest(sound=sound)]
        dist.broadcast_object_list(found)
        path: Path | None = found[0]
        return path

    def _save(self) -> None:
        state = {
            "stream": self.stream.state(),
            "count": self.count,
            "bad_steps": self.bad_steps,
            "history": self.stepper.history,
            "recipe": _identity(self.recipe),
            "base": self.base,
            "run_id": None if self.tracker is None else self.tracker.run_id,
        }
        tensors = {}
        for name, values in self.engine.state():
            if self.world.rank == 0:
                tensors[name] = values
        if self.world.rank == 0:
            self.checkpoints.save(self.stream.step, tensors, state, score=self.validation_loss)

    def _export(self) -> None:
        """What was trained, or its average where the recipe has one, in the released layout."""
        kind = "weight" if self.recipe.optimizer.ema is None else AVERAGE
        weights = {}
        for name, values in self.engine.state([kind]):
            if self.world.rank == 0:
                weights[name] = values[kind]
        if self.world.rank == 0:
            if self.recipe.run.export == "best":
                best = next((path for path in self.checkpoints.best() if not damage(path)), None)
                if best is not None:
                    weights = {name: values[kind] for name, values in read_tensors(best)}
                self._say(f"exporting {best.name if best else 'the last weights: no checkpoint has a validation loss'}")
            folders = export(weights, self.recipe, self.settings)
            self._say(f"done: {', '.join(map(str, folders))}")

    def _line(self, result: StepResult, rate: float, seconds: float, went_back: bool) -> dict[str, Any]:
        """What there is to say of a step that took so many seconds, its data included."""
        line: dict[str, Any] = {
            "loss": result.loss,
            "diffusion": result.diffusion,
            "stop": result.stop,
            **total(result.groups).stops(),
            "grad_norm": result.norm,
            "learning_rate": rate,
            "target_patches": result.num_patches,
            "positions": result.positions,
            "positions_per_second": result.positions / seconds,
            "audio_seconds_per_second": result.audio_seconds / seconds,
            "data_seconds": result.waited,
            "teraflops": result.flops / 1e12,
        }
        if self.peak is not None:
            line["mfu"] = result.flops / seconds / (self.peak * self.world.size)
        return line | {
            "quarantined": len(self.stream.quarantined),
            "unreadable": len(result.unreadable),
            "went_back": went_back,
            "passed_by": dict(self.stream.passed_by),
            "shares": shares_of(self.stream.shares()),
            "losses": {name: sums.losses(self.corpus.patch_size) for name, sums in result.groups.items()},
        }

    def _log(self, step: int, line: dict[str, Any]) -> None:
        left = self.pace.left(step + 1, time.perf_counter())
        if self.tracker is None:
            return
        self.tracker.metrics(step, line)
        done = step + 1
        if done == 1 or done % 10 == 0 or done == self.recipe.steps or "validation" in line:
            print(progress_line(line, done, self.recipe.steps, left), flush=True)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.told_to_stop = True

    def _told_to_stop(self) -> bool:
        """Whether any rank was told: all stop at the same step."""
        flag = torch.tensor(float(self.told_to_stop), device=self.world.device)
        dist.all_reduce(flag)
        return bool(flag > 0)

    def _say(self, line: str) -> None:
        if self.world.rank == 0:
            print(line, flush=True)


def _identity(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe decides what is learned, as plain data."""
    values: dict[str, Any] = json.loads(recipe.model_dump_json())
    validation = values.pop("validation")
    if validation is not None:
        # What is held out is not learned; when and how it is tried is all the same.
        values["held_out"] = {key: validation[key] for key in ("share", "clips")}
    return {key: value for key, value in values.items() if key not in MAY_CHANGE}
