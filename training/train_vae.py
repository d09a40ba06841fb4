"""Trains AudioVAE V2 from new weights (report 3.2 and 4.5), or from a checkpoint's.

    voxmill train-vae DATA OUT [recipe.yaml] [key=value ...]
    torchrun --nproc-per-node 8 training/train_vae.py DATA OUT [recipe.yaml] [key=value ...]

`voxmill train-vae --help` describes the command, which is the same for both.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    # A script's own folder is first on sys.path; the packages lie above it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from voxmill.cli.app import script

    script("train-vae")

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from training.codec.config import RECIPES, VAETrainConfig
from voxmill.core.config import load_config
from voxmill.core.errors import JobError, UserError

SKIPS = 20
"""So many steps in a row without a finite loss end the run."""


def train(source: str, out: Path, config: VAETrainConfig) -> bool:
    """Trains until `run.steps` or `run.max_minutes`; False where SIGTERM or SIGINT ended it before. Either way it saves.

    Raises:
        UserError: nothing to train on, settings that do not fit together, or an OUT of another run.
        JobError: the loss is not finite any more, or the ranks cannot meet.
    """
    from training.codec.engine import join_ranks

    clock = time.perf_counter()
    stopping = {"asked": False}

    def ask(*_: object) -> None:
        stopping["asked"] = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        place = join_ranks(config.run.device)
        run = _Run(source, out, config, place)
        try:
            finished = run.loop(lambda: stopping["asked"], clock)
        except BaseException:
            run.finish("FAILED")
            raise
        run.finish("FINISHED" if finished else "KILLED")
        return finished
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Run:
    """Everything of one run on this rank, from the newest checkpoint of OUT or from the beginning."""

    def __init__(self, source: str, out: Path, config: VAETrainConfig, place: Any) -> None:
        from training.codec.checkpoint import Average, data_fingerprint, load_latest, weights
        from training.codec.crops import CropSource, hold_out
        from training.codec.initial_weights import fit_to_data
        from training.codec.model import Autoencoder, new_vae
        from training.codec.step import Stepper, make_discriminators, make_sides
        from training.codec.validation import Validation
        from voxmill.core.tracking import Tracker
        from voxmill.data.audio_sources import find_clips

        self.out, self.config, self.place = out, config, place
        if config.batch % place.ranks:
            raise UserError(f"batch = {config.batch} cannot be shared by {place.ranks} ranks; make it a multiple")
        self.whole, vae = new_vae(config.model, config.seed)
        rates = _checked_rates(vae, config)
        clips, self.skipped = find_clips(source, min_seconds=config.data.seconds)
        training, held = hold_out(clips, config.data.held_out, config.data.held_out_share)
        self.corpus = data_fingerprint(training)
        self.source = CropSource(
            training, seconds=config.data.seconds, gain_db=config.data.gain_db, seed=config.seed, **rates
        )
        saved = load_latest(out, config, self.corpus)
        if saved is None and config.model.start_from is None:
            fit_to_data(vae, self.source, config.seed)
        self.vae, self.average = vae, Average(vae, config.optimizer.ema)
        modules = {"autoencoder": Autoencoder(vae, autocast=config.precision == "bf16")}
        discriminators = make_discriminators(config)
        if discriminators is not None:
            modules["discriminators"] = discriminators  # type: ignore[assignment]
        if saved is not None:
            self.average.load(saved.average)
            for name, module in modules.items():
                # Buffers are of the configuration, not of the run.
                module.load_state_dict(weights(saved.sides[name]), strict=False)
        self.sides = make_sides(config, modules["autoencoder"], discriminators, place)
        for name, engine in self.sides.named().items():
            if saved is not None:
                engine.load_moments(saved.sides[name], saved.steps[name])
        self.average.tensors = {name: value.to(place.device) for name, value in self.average.tensors.items()}
        self.step = 0 if saved is None else saved.step
        self.stepper = Stepper(config, self.sides, place)
        self.tracker: Any = None
        if place.first:
            quiet = CropSource(held, seconds=config.data.seconds, gain_db=0.0, seed=config.seed, **rates)
            self.validation = Validation(
                quiet, self.stepper.loss, crops=config.run.validate_crops, listen=config.run.listen
            )
            self.tracker = Tracker(
                out,
                uri=config.run.tracking_uri,
                experiment=config.run.experiment,
                name=out.name,
                run_id=None if saved is None else saved.run_id,
                step=self.step,
            )
            # Also when it goes on: it may have been killed before MLflow had them.
            self.tracker.params(config.model_dump(mode="json") | {"ranks": place.ranks})
            self._introduce(training, held)

    def _introduce(self, training: list[Any], held: list[Any]) -> None:
        by_rate: dict[int, float] = {}
        for clip in training:
            by_rate[clip.sample_rate] = by_rate.get(clip.sample_rate, 0.0) + clip.seconds / 60
        told = ", ".join(f"{minutes:.1f} min at {rate} Hz" for rate, minutes in sorted(by_rate.items()))
        millions = sum(parameter.numel() for parameter in self.vae.parameters()) / 1e6
        print(
            f"training {millions:.1f} M parameters on {len(training)} clips ({told}), {len(held)} held out; "
            f"passed by: {self.skipped}; from step {self.step}, {self.place.ranks} ranks",
            flush=True,
        )

    def loop(self, asked: Any, clock: float) -> bool:
        """Steps until the end; True where it is the run's own."""
        from contextlib import closing

        config, place = self.config, self.place
        rows = config.batch // place.ranks
        first = self.step * config.batch + place.rank * rows
        stream = self.source.stream(first, rows, every=config.batch, readers=config.data.readers)
        skips, since, begun = 0, time.perf_counter(), self.step
        if self.step == 0:
            self._validate()
        with closing(stream):
            while self.step < config.run.steps:
                late = config.run.max_minutes is not None and time.perf_counter() - clock > 60 * config.run.max_minutes
                losses, stop = self.stepper.step(self.step, next(stream), [float(asked()), float(late)])
                self.step += 1
                skips = skips + 1 if "skipped" in losses else 0
                if skips == SKIPS:
                    raise JobError(f"no finite loss in {SKIPS} steps up to {self.step}; resume with a lower rate")
                if not skips:
                    self.average.update(self.vae, self.step)
                if place.first and (self.step % config.run.log_every == 0 or skips):
                    speed = (self.step - begun) / (time.perf_counter() - since)
                    self.tracker.metrics(self.step, losses | {"steps_per_second": speed})
                    print(_line(self.step, config.run.steps, losses, speed), flush=True)
                over = any(stop) or self.step == config.run.steps
                if over or self.step % config.run.validate_every == 0:
                    self._validate()
                if over or self.step % config.run.save_every == 0:
                    self._save()
                if stop[0]:
                    return False
                if stop[1]:
                    break
        return True

    def _validate(self) -> None:
        from model.codec.audio_vae import AudioVAE

        if not self.place.first:
            return
        vae = AudioVAE(self.whole.audio_vae_config).to(self.place.device)
        vae.load_state_dict(self.average.tensors)
        found = self.validation.run(vae.freeze(), self.step, self.tracker)
        self.tracker.metrics(self.step, found)
        print(f"step {self.step}: " + ", ".join(f"{key} {value:.3f}" for key, value in found.items()), flush=True)

    def _save(self) -> None:
        from training.codec.checkpoint import save

        # All ranks give their parts; the first one writes.
        sides = {name: (engine.state(), engine.steps) for name, engine in self.sides.named().items()}
        if self.place.first:
            folder = save(
                self.out,
                self.step,
                config=self.config,
                whole=self.whole,
                sides=sides,
                average=self.average,
                corpus=self.corpus,
                run_id=self.tracker.run_id,
            )
            skipped = {"listing": self.skipped.as_json(), "reading": self.source.skipped.as_json()}
            (self.out / "skipped.json").write_text(json.dumps(skipped, indent=1, ensure_ascii=False), encoding="utf-8")
            print(f"step {self.step}: saved {folder}; crops passed by: {self.source.skipped}", flush=True)

    def finish(self, status: str) -> None:
        """Tells the tracker how it ended."""
        if self.tracker is not None:
            self.tracker.finish(status)


def _checked_rates(vae: Any, config: VAETrainConfig) -> dict[str, int]:
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
    return {"rate_in": shape.sample_rate, "rate_out": shape.out_sample_rate}


def _line(step: int, steps: int, losses: dict[str, float], speed: float) -> str:
    left = (steps - step) / speed / 60
    told = ", ".join(f"{name} {value:.3g}" for name, value in losses.items())
    return f"step {step}/{steps}: {told} ({speed:.2f} steps/s, {left:.0f} min left)"


def read_recipe(name: str | None, overrides: list[str]) -> VAETrainConfig:
    """The recipe in a file, or one of ours by its name; None: the defaults.

    Raises:
        UserError: no such recipe, an unknown key, a wrong value.
    """
    path: str | Path | None = name
    if name is not None and not Path(name).exists():
        known = sorted(recipe.stem for recipe in RECIPES.glob("*.yaml"))
        if name not in known:
            raise UserError(f"{name}: no such recipe; name a YAML file, or one of {', '.join(known)}")
        path = RECIPES / f"{name}.yaml"
    return load_config(VAETrainConfig, path, overrides)
