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


class Separate(BatchStage):
    """Replaces the samples of a window by its voice if DNSMOS is better for it, or if separation is always wanted."""

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
        wanted = [one for one, plan in zip(given, plans, strict=True) if plan.wanted]
        voices = self._voices(wanted)
        outputs = []
        for (result, audio), plan in zip(given, plans, strict=True):
            if plan.wanted:
                outputs.append(self._chosen(result, audio, plan, next(voices)))
            else:
                outputs.append(WindowOutput(dataclasses.replace(result, separation=plan), audio))
        return outputs

    def _voices(self, wanted: Sequence[WindowInput]) -> Iterator[np.ndarray]:
        if wanted:
            separator, _ = self._load()
            yield from separator((audio.samples, result.window.sample_rate) for result, audio in wanted)

    def _chosen(self, result: WindowResult, audio: WindowAudio, plan: Separation, voice: np.ndarray) -> WindowOutput:
        """The window with its voice alone, or as it was where that is no better."""
        _, dnsmos = self._load()
        rate = result.window.sample_rate
        original = resample(audio.samples, rate, RATE_16K)
        before, after = dnsmos(original), dnsmos(resample(voice, rate, RATE_16K))
        gain_bak, loss_sig = after[1] - before[1], before[0] - after[0]
        helps = gain_bak >= self.config.min_gain_dnsmos_bak and loss_sig <= self.config.max_loss_dnsmos_sig
        used = helps or self.config.mode == "always"
        separation = dataclasses.replace(plan, used=used, gain_dnsmos_bak=gain_bak, loss_dnsmos_sig=loss_sig)
        result = dataclasses.replace(result, separation=separation)
        if not used:
            return WindowOutput(result, audio, 1)
        kept = original if self.keeps_original else NO_SAMPLES
        return WindowOutput(result, WindowAudio(samples=voice, original=kept), 1)
