"""The voice without its background, where there is one and where separation helps."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from annotation.audio.quality import Dnsmos
from annotation.audio.separation import (
    DEEPFILTERNET,
    SPLEETER,
    Separator,
    VoiceModel,
    check_separator,
    plan_separation,
    separator_name,
)
from pipelines.stages.base import NO_SAMPLES, BatchStage, StageContext, WindowAudio, WindowInput, WindowOutput
from voxmill.core.assets import asset_path
from voxmill.core.audio import RATE_16K, resample
from voxmill.core.machine.devices import limit_threads
from voxmill.data.records import Background, Separation, StageName, WindowResult

FADE_SECONDS = 0.02
"""At the ends of a separated stretch, which lie in pauses."""
_ALL: tuple[Background, ...] = ("music",)


class _Stretch(NamedTuple):
    """A part of a window, in samples, and the model that it is for."""

    part: slice
    model: str


class Separate(BatchStage):
    """Replaces stretches of a window by their voice if DNSMOS is better for it, or if separation is always wanted."""

    name = StageName.SEPARATION

    def __init__(self, context: StageContext) -> None:
        limit_threads(context.threads)
        self.config = context.label.separation
        self.keeps_original = context.label.transcription.transcribe_from == "original"
        self.threads, self.device = context.threads, context.device
        self._models: dict[str, VoiceModel] = {}
        self._dnsmos: Dnsmos | None = None
        if self.config.mode != "never":
            check_separator(separator_name(self.config, "music"), "label.separation.model")
            check_separator(separator_name(self.config, "noise"), "label.separation.noise_model")

    def _model(self, name: str) -> VoiceModel:
        # On clean corpora no recording ever asks for it: 120 MB of weights wait for the first that does.
        if name not in self._models:
            if name == DEEPFILTERNET:
                from annotation.audio.deepfilternet import DeepFilterNet

                archive = asset_path("deepfilternet3") / "DeepFilterNet3_onnx.tar.gz"
                self._models[name] = DeepFilterNet(archive, self.threads)
            else:
                weights = asset_path("spleeter-2stems") if name == SPLEETER else None
                self._models[name] = Separator(name, weights, self.device)
        return self._models[name]

    def _plan(self, result: WindowResult) -> Separation:
        assert result.events is not None
        return plan_separation(self.config, result.events)

    def windows(self, given: Sequence[WindowInput]) -> list[WindowOutput]:
        plans = [self._plan(one.result) for one in given]
        stretches = [
            self._stretches(plan, one.result.window.sample_rate, len(one.audio.samples))
            for one, plan in zip(given, plans, strict=True)
        ]
        names = {stretch.model for parts in stretches for stretch in parts}
        voices = {name: self._voices(name, given, stretches) for name in names}
        return [
            self._chosen(result, audio, plan, [(stretch, next(voices[stretch.model])) for stretch in parts])
            if parts
            else WindowOutput(dataclasses.replace(result, separation=plan), audio)
            for (result, audio), plan, parts in zip(given, plans, stretches, strict=True)
        ]

    def _stretches(self, plan: Separation, rate: int, num_samples: int) -> list[_Stretch]:
        parts = plan.wanted_in or (((0.0, num_samples / rate),) if plan.wanted else ())
        # `always` separates all of a window, whatever lies behind its speech.
        backgrounds = plan.backgrounds or _ALL
        return [
            _Stretch(
                slice(round(start * rate), min(round(end * rate), num_samples)), separator_name(self.config, background)
            )
            for (start, end), background in zip(parts, backgrounds, strict=False)
        ]

    def _voices(
        self, name: str, given: Sequence[WindowInput], stretches: Sequence[list[_Stretch]]
    ) -> Iterator[np.ndarray]:
        """Voices of the stretches that are for a model, in order."""
        return self._model(name)(
            (audio.samples[stretch.part], result.window.sample_rate)
            for (result, audio), parts in zip(given, stretches, strict=True)
            for stretch in parts
            if stretch.model == name
        )

    def _chosen(
        self, result: WindowResult, audio: WindowAudio, plan: Separation, voices: Sequence[tuple[_Stretch, np.ndarray]]
    ) -> WindowOutput:
        """The window with its voice alone in the stretches where that is better."""
        if self._dnsmos is None:
            self._dnsmos = Dnsmos(max_hops=3, threads=self.threads)
        rate, dnsmos = result.window.sample_rate, self._dnsmos
        samples, used, used_by, gains, losses = audio.samples, [], [], [], []
        for (part, model), voice in voices:
            before = dnsmos(resample(audio.samples[part], rate, RATE_16K))
            after = dnsmos(resample(voice, rate, RATE_16K))
            gains.append(after[1] - before[1])
            losses.append(before[0] - after[0])
            helps = gains[-1] >= self.config.min_gain_dnsmos_bak and losses[-1] <= self.config.max_loss_dnsmos_sig
            if helps or self.config.mode == "always":
                samples = _spliced(samples, part, voice, round(FADE_SECONDS * rate))
                used.append((part.start / rate, part.stop / rate))
                used_by.append(model)
        separation = dataclasses.replace(
            plan,
            used=bool(used),
            used_in=tuple(used),
            used_by=tuple(used_by),
            gain_dnsmos_bak=max(gains),
            loss_dnsmos_sig=max(losses),
        )
        result = dataclasses.replace(result, separation=separation)
        if not used:
            return WindowOutput(result, audio, len(voices))
        kept = resample(audio.samples, rate, RATE_16K) if self.keeps_original else NO_SAMPLES
        return WindowOutput(result, WindowAudio(samples=samples, original=kept), len(voices))


def _spliced(samples: np.ndarray, part: slice, voice: np.ndarray, fade: int) -> np.ndarray:
    """`samples` [T] with a stretch of it replaced by `voice`, faded into what stays before and after it."""
    mixed, weight = samples.copy(), np.ones(len(voice), dtype=np.float32)
    fade = min(fade, len(voice) // 2)
    ramp = np.arange(1, fade + 1, dtype=np.float32) / (fade + 1)
    if part.start > 0:
        weight[:fade] = ramp
    if part.stop < len(samples):
        weight[len(voice) - fade :] = ramp[::-1]
    mixed[part] += weight * (voice - samples[part])
    return mixed
