"""Reads the windows of recordings; one is decoded at a time."""

import dataclasses
import errno
import time

import numpy as np

from pipelines.inputs import media
from pipelines.inputs.channels import without_crosstalk
from pipelines.inputs.media_file import media_of
from pipelines.stages.base import Stage, StageContext, UnseenInputError, WindowAudio, WindowOutput
from voxmill.core.audio import AudioProblem
from voxmill.data.records import StageName, Window, WindowResult

# What scanning has read may be gone for a moment: a mount that comes back, a storage that asks to slow down.
PAUSES = (0.5, 2.0, 5.0)
UNSEEN = ("missing", "no_permission")
FULL_SCALE = 32768


class Decode(Stage):
    """Samples of a window in 16 bits, their mean removed."""

    name = StageName.DECODE

    def __init__(self, context: StageContext) -> None:
        self.max_seconds = context.label.window_seconds

    def window(self, result: WindowResult, audio: WindowAudio) -> WindowOutput:
        window = result.window
        if window.clips and window.seconds > self.max_seconds:
            return self.end(result, "clip_too_long", value=window.seconds, threshold=self.max_seconds)
        try:
            samples = _read(result)
        except AudioProblem as error:
            return self.end(result, error.reason, detail=error.detail)
        samples, step = in_16_bits(samples)
        offset = float(samples.mean()) if len(samples) else 0.0
        samples -= np.float32(offset)
        return WindowOutput(dataclasses.replace(result, dc_offset=offset), WindowAudio(samples=samples, step=step))


def _read(result: WindowResult) -> np.ndarray:
    """The samples of a window.

    Raises:
        AudioProblem: of the recording.
        UnseenInputError: this machine does not see the file, though it was read while scanning.
    """
    window = result.window
    for pause in (*PAUSES, None):
        try:
            return _samples(window)
        except AudioProblem as error:
            if error.reason not in UNSEEN:
                raise
            if pause is None:
                raise UnseenInputError(errno.ENOENT, error.detail, window.path) from None
            time.sleep(pause)
    raise AssertionError("not reached")


def _samples(window: Window) -> np.ndarray:
    """The samples of a window; of a speaker's own channel without what leaks into it."""
    path, start, end = media_of(window), window.start_sample, window.end_sample
    own = media.read_window(path, start, end, window.channel, window.digests, window.scale)
    if not window.levels:
        return own
    assert window.channel is not None
    power = window.scale**2
    others = [channel for channel in range(len(window.levels)) if channel != window.channel]
    return without_crosstalk(
        own,
        [media.read_window(path, start, end, channel, window.digests, window.scale, False) for channel in others],
        (window.levels[window.channel] * power, [window.levels[channel] * power for channel in others]),
        window.sample_rate,
    )


def in_16_bits(samples: np.ndarray) -> tuple[np.ndarray, float]:
    """Float32 samples [T] as multiples of a step that 16 bits can count, and the step.

    What was decoded from 16 bits is returned as it is. Other sounds (24 bits, MP3, the mean of two channels) are
    rounded to 16 bits below their own peak, so that quiet ones lose nothing that can be heard.
    """
    counts = samples * np.float32(FULL_SCALE)
    if not len(samples) or (np.abs(counts).max() <= FULL_SCALE - 1 and np.array_equal(counts, np.rint(counts))):
        return samples, 1 / FULL_SCALE
    step = np.float32(np.abs(samples).max() / np.float32(FULL_SCALE - 1))
    return np.rint(samples / step) * step, float(step)
