"""A run from its first step to its export: go on from the newest whole checkpoint, step, watch, save.

A run is its folder: `checkpoints/`, `metrics.jsonl` with a line a step, `export/` in the released layout when it is done.
The same command goes on after any crash, with any number of ranks and any ZeRO stage.
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
from model.text_tokenizer import TextTokenizer
from pipelines.shards import write_atomically
from training.checkpoints import Checkpoints, damage, read_state, read_tensors
from training.corpus import Corpus
from training.engine import AVERAGE, Engine, World
from training.export import base_checksum, export
from training.recipe import Recipe
from training.sample_stream import SampleStream
from training.schedule import learning_rate
from training.step import Stepper, StepResult, read_rows
from training.watchdog import Watchdog
from voxmill.config import differences
from voxmill.errors import UserError

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
        self.stream = SampleStream(corpus, recipe, TextTokenizer.from_folder(recipe.init))
        self.stepper = Stepper(self.engine, recipe, patch_size=corpus.patch_size, spike=recipe.health.spike)
        self.checkpoints = Checkpoints(recipe.run.out / "checkpoints", recipe.run.keep, recipe.run.keep_best)
        self.base = base_checksum(recipe.init) if recipe.lora is not None else None
        self.validation_loss: float | None = None
        """Of the weights as they are now; None where it was not measured since the last step."""
        self.metrics = recipe.run.out / "metrics.jsonl"
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
        self._resume()
        with Watchdog(self.recipe.run.hang_seconds, self.world.rank) as watchdog:
            stopped = self._train(watchdog)
        self.checkpoints.wait()
        if stopped:
            self._say(f"told to stop: saved after step {self.stream.step}; the same command goes on")
            return STOPPED
        self._export()
        return 0

    def _train(self, watchdog: Watchdog) -> bool:
        """Whether it was told to stop."""
        while self.stream.step < self.recipe.steps:
            self._step()
            done, stop = self.stream.step, self._told_to_stop()
            if stop or done == self.recipe.steps or done % self.recipe.run.save_every == 0:
                self._save()
            watchdog.beat(done - 1)
            if stop:
                return True
        return False

    def _step(self) -> None:
        began, step = time.perf_counter(), self.stream.step
        self.validation_loss = None
        rows = self.stream.next_step()
        mine, unreadable = read_rows(rows, self.engine, self.corpus, self.recipe)
        read = time.perf_counter()
        rate = learning_rate(step, self.recipe.steps, self.recipe.optimizer)
        result = self.stepper(mine, unreadable, step=step, rate=rate)
        self.count += 1
        clips = [clip for row in rows for shown in row for clip in shown.clips]
        went_back = self._watch(result, sorted(set(clips)))
        if self.world.rank == 0:
            self._log(step, result, rate, read - began, time.perf_counter() - began, went_back)

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
        if self.world.rank == 0 and self.metrics.exists():
            # What a killed run did after its last checkpoint is done again.
            lines = self.metrics.read_text().splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] < self.stream.step]
            write_atomically(self.metrics, "".join(kept).encode())
        if self.stream.step:
            self._say(f"going on from {path.name}")

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
            "stream": self.stream.state(), "count": self.count, "bad_steps": self.bad_steps,
            "history": self.stepper.history, "recipe": _identity(self.recipe), "base": self.base,
        }  # fmt: skip
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

    def _log(self, step: int, result: StepResult, rate: float, waited: float, seconds: float, went_back: bool) -> None:
        line = {
            "step": step, "loss": result.loss, "diffusion": result.diffusion, "stop": result.stop,
            "grad_norm": result.norm, "learning_rate": rate, "target_patches": result.num_patches,
            "positions": result.positions, "positions_per_second": result.positions / seconds,
            "audio_seconds_per_second": result.audio_seconds / seconds, "data_seconds": waited,
            "quarantined": len(self.stream.quarantined), "unreadable": len(result.unreadable), "went_back": went_back,
            "passed_by": dict(self.stream.passed_by),
            "shares": {name: list(pair) for name, pair in self.stream.shares().items()},
        }  # fmt: skip
        with self.metrics.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if step % 10 == 0 or step + 1 == self.recipe.steps:
            print(f"step {step}: loss {result.loss:.4f} (diffusion {result.diffusion:.4f}, stop {result.stop:.4f}), "
                  f"{line['audio_seconds_per_second']:.3g} s of audio a second", flush=True)  # fmt: skip

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
    return {key: value for key, value in values.items() if key not in MAY_CHANGE}
