"""Reads the windows of recordings; one is decoded at a time."""

import dataclasses

import numpy as np

from pipelines.inputs import media
from pipelines.inputs.media_file import media_of
from pipelines.stages.base import Stage, StageContext, WindowAudio, WindowOutput
from voxmill.core.audio import AudioProblem
from voxmill.data.records import StageName, WindowResult


class Decode(Stage):
    """Samples of a window, their mean removed."""

    name = StageName.DECODE
    cpu_share = 0.05

    def __init__(self, context: StageContext) -> None:
        pass

    def window(self, result: WindowResult, audio: WindowAudio) -> WindowOutput:
        window = result.window
        try:
            samples = media.read_window(
                media_of(window), window.start_sample, window.end_sample, window.channel, window.digests
            )
        except AudioProblem as error:
            return self.end(result, error.reason, detail=error.detail)
        offset = float(samples.mean()) if len(samples) else 0.0
        samples -= np.float32(offset)
        return WindowOutput(dataclasses.replace(result, dc_offset=offset), WindowAudio(samples=samples))
