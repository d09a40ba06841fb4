"""A run of AudioVAE's training from its first step, or from the newest whole checkpoint, to its end."""

import json
import time
from contextlib import closing
from pathlib import Path

from torch import Tensor

from model.codec.audio_vae import AudioVAE
from training.codec.checkpoint import (
    CodecRunState,
    checkpoints_in,
    corpus_fingerprint,
    fixed_settings,
    read_average,
    read_network,
    write_part,
)
from training.codec.config import VAETrainConfig
from training.codec.crops import CropSource, hold_out
from training.codec.initial_weights import fit_to_data
from training.codec.model import Autoencoder, new_vae
from training.codec.step import Stepper, StepResult, make_discriminators, make_engines
from training.codec.validation import Validation
from training.run.checkpoint_files import Part
from training.run.checkpoints import Saved, changed_settings
from training.run.ema import WeightAverage
from training.run.run_to_end import run_to_end, tracker_in
from training.run.stop_signal import StopSignal
from training.run.watchdog import Watchdog
from training.run.world import World
from voxmill.core.errors import ExitStatus, JobError, UserError
from voxmill.core.files import write_atomically
from voxmill.core.local_copies import WorkingFolder
from voxmill.core.tracking import Tracker
from voxmill.data.audio_sources import Clip, find_clips

LEARNING_RATES = ("optimizer.learning_rate", "optimizer.discriminator_learning_rate")
"""May change when a run resumes."""
MAX_SKIPPED = 20
"""This many steps in a row without a finite loss end the run."""


class Run:
    """One run, seen from one rank.

    Args:
        source: OUT of a finished `voxmill annotate`, or a folder of audio. out: folder of the run.

    Raises:
        UserError: no usable audio, settings that do not fit together, or an `out` of another run or version.
    """

    def __init__(self, source: str, out: Path, config: VAETrainConfig, world: World, stop: StopSignal) -> None:
        if config.rows % world.size:
            raise UserError(f"rows = {config.rows} cannot be divided by {world.size} ranks; make it a multiple")
        self.out, self.config, self.world, self.stop = out, config, world, stop
        self.began = time.perf_counter()
        self.checkpoints, self.files = checkpoints_in(out, keep=config.run.keep, world=world), WorkingFolder(out)
        self.released, vae = new_vae(config.model, config.seed)
        rate_in, rate_out = _checked_rates(vae, config)
        clips, self.unusable = find_clips(source, min_seconds=config.data.seconds)
        training, held_out = hold_out(clips, config.data.held_out, config.data.held_out_share)
        self.corpus = corpus_fingerprint(training)
        self.source = CropSource(
            training,
            seconds=config.data.seconds,
            gain_db=config.data.gain_db,
            seed=config.seed,
            rate_in=rate_in,
            rate_out=rate_out,
        )
        path = self.checkpoints.latest()
        saved = None if path is None else self._checked(path)
        if path is None and config.model.start_from is None:
            fit_to_data(vae, self.source, config.seed)
        self.average = WeightAverage(vae, config.optimizer.ema)
        autoencoder = Autoencoder(vae, autocast=config.precision == "bf16")
        self.engines = make_engines(config, autoencoder, make_discriminators(config), world)
        self.step = self.num_skipped = 0
        if path is not None and saved is not None:
            self._restore(path, saved)
        self.average.to(world.device)
        self.stepper = Stepper(config, self.engines, world)
        self.tracker: Tracker | None = None
        self.validation: Validation | None = None
        if world.is_first:
            same_level = CropSource(
                held_out,
                seconds=config.data.seconds,
                gain_db=0.0,
                seed=config.seed,
                rate_in=rate_in,
                rate_out=rate_out,
            )
            self.validation = Validation(
                same_level, self.stepper.loss, crops=config.run.validate_crops, listen=config.run.listen
            )
            self.tracker = tracker_in(
                self.files,
                uri=config.run.tracking_uri,
                experiment=config.run.experiment,
                name=out.name,
                run_id=None if saved is None else saved.state.run_id,
                step=self.step,
            )
            # At a resume, too: the run may have been killed before MLflow had them.
            self.tracker.params(config.model_dump(mode="json") | {"ranks": world.size})
            self._print_summary(training, held_out)

    def __call__(self) -> ExitStatus:
        """Trains to `run.steps` or `run.max_minutes` (DONE), or until a stop signal (STOPPED); saves in both cases.

        Raises:
            JobError: no finite loss in `MAX_SKIPPED` steps in a row.
        """
        return run_to_end(self, self.config.run.hang_seconds)

    def export(self) -> None:
        """Nothing: every checkpoint is in the released layout."""

    def train(self, watchdog: Watchdog) -> bool:
        """Whether a stop signal ended it."""
        run, rows = self.config.run, self.config.rows // self.world.size
        first = self.step * self.config.rows + self.world.rank * rows
        stream = self.source.stream(first, rows, every=self.config.rows, readers=self.config.data.readers)
        begun_at, begun = self.step, time.perf_counter()
        with closing(stream):
            while True:
                has_stepped = self.step > begun_at
                # Here, so that a signal that came while the run was set up is not answered by a step.
                flags = self.world.maxima([self.stop.is_set, has_stepped and self._is_out_of_time()])
                stopped = bool(flags[0])
                is_last = any(flags) or self.step == run.steps
                if not stopped and (
                    self.step == 0 or (has_stepped and (is_last or self.step % run.validate_every == 0))
                ):
                    self._validate()
                    # Rank 0 alone validates: without a barrier the clocks of the others would count that, too.
                    self.world.barrier()
                    watchdog.restart()
                # While steps are skipped the weights stay those of the last good step, which may be the cause: no
                # checkpoint of theirs takes the place of an older one.
                if has_stepped and (is_last or (self.step % run.save_every == 0 and not self.num_skipped)):
                    self._save()
                    self.world.barrier()
                    watchdog.restart()
                if is_last:
                    return stopped
                result = self.stepper.step(self.step, next(stream))
                self.step += 1
                watchdog.beat(self.step)
                self._count_skipped(result)
                if not result.is_skipped:
                    self.average.update(self.engines.vae, self.step)
                self._log(result, (self.step - begun_at) / (time.perf_counter() - begun))

    def _count_skipped(self, result: StepResult) -> None:
        if not result.is_skipped:
            self.num_skipped = 0
            return
        self.num_skipped += 1
        if self.num_skipped < MAX_SKIPPED:
            return
        # A checkpoint may hold the weights that give no finite loss, those of the last step that was not skipped.
        hint = self.world.from_first(lambda: self.checkpoints.hint_without(self.step - self.num_skipped))
        raise JobError(f"no finite loss in {MAX_SKIPPED} steps up to step {self.step}", resume_hint=hint)

    def _is_out_of_time(self) -> bool:
        minutes = self.config.run.max_minutes
        return minutes is not None and time.perf_counter() - self.began > 60 * minutes

    def _log(self, result: StepResult, speed: float) -> None:
        run = self.config.run
        if self.tracker is None or (self.step % run.log_every and not result.is_skipped):
            return
        losses = {"skipped": 1.0} if result.is_skipped else result.losses
        self.tracker.metrics(self.step, losses | {"steps_per_second": speed})
        values = ", ".join(f"{name} {value:.3g}" for name, value in losses.items())
        minutes_left = (run.steps - self.step) / speed / 60
        print(f"step {self.step}/{run.steps}: {values} ({speed:.2f} steps/s, {minutes_left:.0f} min left)", flush=True)

    def _validate(self) -> None:
        if self.validation is None or self.tracker is None:
            return
        vae = AudioVAE(self.released.audio_vae_config).to(self.world.device)
        vae.load_state_dict(self.average.tensors)
        losses = self.validation.run(vae.freeze(), self.step, self.tracker)
        self.tracker.metrics(self.step, losses)
        print(f"step {self.step}: " + ", ".join(f"{key} {value:.3f}" for key, value in losses.items()), flush=True)

    def _save(self) -> None:
        # The copy in host memory is the only one: that of the checkpoint before it is gone then.
        self.checkpoints.wait()
        networks = {name: engine.state.copied() for name, engine in self.engines.by_name().items()}
        average, step = dict[str, Tensor](), self.step
        if self.world.is_first:
            average = {name: value.detach().cpu().clone().contiguous() for name, value in self.average.tensors.items()}

        def write(part: Part) -> None:
            if part.rank == 0:
                self.files.push()  # a run that resumes from the checkpoint continues its metrics
            write_part(part, step, config=self.config, released=self.released, networks=networks, average=average)

        state = CodecRunState(
            optimizer_steps={name: engine.state.steps for name, engine in self.engines.by_name().items()},
            num_skipped=self.num_skipped,
            corpus=self.corpus,
            settings=fixed_settings(self.config),
            run_id=None if self.tracker is None else self.tracker.run_id,
        )
        folder = self.checkpoints.save(
            step,
            write,
            state,
            num_bytes=sum(fragment.num_bytes for fragments in networks.values() for fragment in fragments),
            is_sound=not self.num_skipped,
        )
        if not self.world.is_first:
            return
        skipped = {"listing": self.unusable.as_json(), "reading": self.source.skipped.as_json()}
        write_atomically(self.out / "skipped.json", json.dumps(skipped, indent=1, ensure_ascii=False))
        print(f"step {step}: saving {folder}; skipped crops: {self.source.skipped}", flush=True)

    def _checked(self, path: Path) -> Saved[CodecRunState]:
        saved = self.checkpoints.read(path)
        changed = changed_settings(saved.state.settings, fixed_settings(self.config), free=LEARNING_RATES)
        if changed.fixed:
            lines = "; ".join(changed.fixed[:3])
            raise UserError(f"{self.out}: was started with other settings ({lines}); name a new OUT")
        if saved.state.corpus != self.corpus:
            raise UserError(f"{self.out}: was started with other clips than DATA has now; name a new OUT")
        if self.world.is_first:
            print("; ".join([f"resuming from {path.name}", *changed.free]), flush=True)
        return saved

    def _restore(self, path: Path, saved: Saved[CodecRunState]) -> None:
        for name, engine in self.engines.by_name().items():
            engine.state.restore(read_network(path, name), saved.state.optimizer_steps[name])
        self.average.load(read_average(path))
        self.world.barrier()
        self.step, self.num_skipped = saved.step, saved.state.num_skipped

    def _print_summary(self, training: list[Clip], held_out: list[Clip]) -> None:
        minutes: dict[int, float] = {}
        for clip in training:
            minutes[clip.sample_rate] = minutes.get(clip.sample_rate, 0.0) + clip.seconds / 60
        by_rate = ", ".join(f"{amount:.1f} min at {rate} Hz" for rate, amount in sorted(minutes.items()))
        millions = sum(parameter.numel() for parameter in self.engines.vae.parameters()) / 1e6
        print(
            f"training {millions:.1f} M parameters on {len(training)} clips ({by_rate}), {len(held_out)} held out; "
            f"skipped: {self.unusable}; from step {self.step}, {self.world.size} ranks",
            flush=True,
        )


def _checked_rates(vae: AudioVAE, config: VAETrainConfig) -> tuple[int, int]:
    """(sample rate of the encoder, of the decoder).

    Raises:
        UserError: frames of the two differ in length, or the crops do not consist of whole frames.
    """
    shape = vae.config
    if vae.samples_per_latent * shape.sample_rate != vae.hop * shape.out_sample_rate:
        raise UserError(
            f"audio_vae: a latent frame is {vae.hop} samples at {shape.sample_rate} Hz but {vae.samples_per_latent} at "
            f"{shape.out_sample_rate} Hz; choose encoder_rates and decoder_rates of one length in time"
        )
    frames = config.data.seconds * shape.sample_rate / vae.hop
    if abs(frames - round(frames)) > 1e-6 or frames < 1:
        frame = vae.hop / shape.sample_rate
        raise UserError(f"data.seconds = {config.data.seconds}: must be a multiple of a latent frame, {frame:g} s")
    if max(config.loss.mel_windows) > config.data.seconds * shape.out_sample_rate:
        raise UserError(f"data.seconds = {config.data.seconds}: shorter than the longest of loss.mel_windows")
    return shape.sample_rate, shape.out_sample_rate
