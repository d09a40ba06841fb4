"""The voice without its background, where there is one and where separation helps."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from annotation.audio.quality import Dnsmos
from annotation.audio.separation import Separator, plan_separation
from pipelines.stages.base import NO_SAMPLES, BatchStage, StageContext, WindowAudio, WindowInput, WindowOutput
from voxmill.core.assets import asset_path
from voxmill.core.audio import RATE_16K, resample
from voxmill.core.machine.devices import limit_threads
from voxmill.data.records import Separation, StageName, WindowResult

FADE_SECONDS = 0.02
"""At the ends of a separated stretch, which lie in pauses."""


class Separate(BatchStage):
    """Replaces stretches of a window by their voice if DNSMOS is better for it, or if separation is always wanted."""

    name = StageName.SEPARATION

    def __init__(self, context: StageContext) -> None:
        limit_threads(context.threads)
        self.config = context.label.separation
        self.keeps_original = context.label.transcription.transcribe_from == "original"
        self.threads, self.device = context.threads, context.device
        self._separator: Separator | None = None
        self._dnsmos: Dnsmos | None = None

    def _load(self) -> tuple[Separator, Dnsmos]:
        # On clean corpora no recording ever asks for it: 120 MB of weights wait for the first that does.
        if self._separator is None or self._dnsmos is None:
            weights = asset_path("spleeter-2stems") if self.config.model == "embedded" else None
            self._separator = Separator(self.config.model, weights, self.device)
            self._dnsmos = Dnsmos(max_hops=3, threads=self.threads)
        return self._separator, self._dnsmos

    def _plan(self, result: WindowResult) -> Separation:
        assert result.events is not None
        return plan_separation(self.config, result.events)

    def windows(self, given: Sequence[WindowInput]) -> list[WindowOutput]:
        plans = [self._plan(one.result) for one in given]
        stretches = [
            _slices(plan, one.result.window.sample_rate, len(one.audio.samples))
            for one, plan in zip(given, plans, strict=True)
        ]
        voices = self._voices(given, stretches)
        return [
            self._chosen(result, audio, plan, [(part, next(voices)) for part in parts])
            if parts
            else WindowOutput(dataclasses.replace(result, separation=plan), audio)
            for (result, audio), plan, parts in zip(given, plans, stretches, strict=True)
        ]

    def _voices(self, given: Sequence[WindowInput], stretches: Sequence[list[slice]]) -> Iterator[np.ndarray]:
        if any(stretches):
            separator, _ = self._load()
            yield from separator(
                (audio.samples[part], result.window.sample_rate)
                for (result, audio), parts in zip(given, stretches, strict=True)
                for part in parts
            )

    def _chosen(
        self, result: WindowResult, audio: WindowAudio, plan: Separation, voices: Sequence[tuple[slice, np.ndarray]]
    ) -> WindowOutput:
        """The window with its voice alone in the stretches where that is better."""
        _, dnsmos = self._load()
        rate = result.window.sample_rate
        samples, used, gains, losses = audio.samples, [], [], []
        for part, voice in voices:
            before = dnsmos(resample(audio.samples[part], rate, RATE_16K))
            after = dnsmos(resample(voice, rate, RATE_16K))
            gains.append(after[1] - before[1])
            losses.append(before[0] - after[0])
            helps = gains[-1] >= self.config.min_gain_dnsmos_bak and losses[-1] <= self.config.max_loss_dnsmos_sig
            if helps or self.config.mode == "always":
                samples = _spliced(samples, part, voice, round(FADE_SECONDS * rate))
                used.append((part.start / rate, part.stop / rate))
        separation = dataclasses.replace(
            plan, used=bool(used), used_in=tuple(used), gain_dnsmos_bak=max(gains), loss_dnsmos_sig=max(losses)
        )
        result = dataclasses.replace(result, separation=separation)
        if not used:
            return WindowOutput(result, audio, len(voices))
        kept = resample(audio.samples, rate, RATE_16K) if self.keeps_original else NO_SAMPLES
        return WindowOutput(result, WindowAudio(samples=samples, original=kept), len(voices))


def _slices(plan: Separation, rate: int, num_samples: int) -> list[slice]:
    """Where separation is wanted, in samples of the window."""
    parts = plan.wanted_in or (((0.0, num_samples / rate),) if plan.wanted else ())
    return [slice(round(start * rate), min(round(end * rate), num_samples)) for start, end in parts]


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
