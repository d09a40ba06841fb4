"""What a stage is: a pure function on records and audio. It knows no Ray, no Arrow, no journal; `engine/` runs it."""

import dataclasses
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from pipelines.config import LabelConfig, VoiceAttributesConfig
from voxmill.core.assets import asset_path
from voxmill.data.records import Ending, StageName, WindowResult, WorkUnit

log = logging.getLogger("voxmill")

NO_SAMPLES = np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageContext:
    """What every stage is built from: the job's OUT, recipes of the labels, CPU threads of a model, torch's device."""

    out: Path
    label: LabelConfig
    voice_attributes: VoiceAttributesConfig
    threads: int
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowAudio:
    """The audio of one window, mono float32; it travels beside the window's record.

    samples: [T] at the window's rate.
    original: before separation, [T] at 16 kHz, where a later stage asks for it; empty otherwise.
    clips: once written, each candidate as its FLAC holds it, [T] at 16 kHz; where no stage asks for them, none.
    """

    samples: np.ndarray = field(default_factory=lambda: NO_SAMPLES)
    original: np.ndarray = field(default_factory=lambda: NO_SAMPLES)
    clips: tuple[np.ndarray, ...] = ()


class WindowOutput(NamedTuple):
    """What a stage makes of one window, and its model calls."""

    result: WindowResult
    audio: WindowAudio
    calls: int = 0


class UnitOutput(NamedTuple):
    """What a stage makes of a unit, audio in the order of its results, and its model calls."""

    unit: WorkUnit
    audio: tuple[WindowAudio, ...]
    calls: int = 0


class Stage(ABC):
    """Base of every stage. A subclass loads its models when it is built, and implements `window` or `run`.

    cpu_share: measured share of a core on the sample recordings; Ray only uses it to place actors.

    Raises:
        UserError: a model cannot be loaded as configured.
    """

    name: ClassVar[StageName]
    uses_gpu: ClassVar[bool] = False
    cpu_share: ClassVar[float]

    @abstractmethod
    def __init__(self, context: StageContext) -> None: ...

    def window(self, result: WindowResult, audio: WindowAudio) -> WindowOutput:
        """Labels one window that no stage has ended."""
        raise NotImplementedError

    def run(self, unit: WorkUnit, audio: Sequence[WindowAudio]) -> UnitOutput:
        """Labels all windows of a unit, one after another; one that breaks the model ends, the others do not.

        Raises:
            OSError, MemoryError, ImportError: what no recording is to blame for.
        """
        outputs = [self._isolated(result, samples) for result, samples in zip(unit.results, audio, strict=True)]
        results = tuple(output.result for output in outputs)
        calls = sum(output.calls for output in outputs)
        return UnitOutput(dataclasses.replace(unit, results=results), tuple(output.audio for output in outputs), calls)

    def _isolated(self, result: WindowResult, audio: WindowAudio) -> WindowOutput:
        if result.ending is not None:
            return WindowOutput(result, audio)
        try:
            output = self.window(result, audio)
        except (MemoryError, OSError, ImportError):
            raise
        except Exception as error:
            log.exception("%s failed on %r", self.name, result.window.name)
            return self.end(result, "model_error", detail=f"{type(error).__name__}: {error}"[:500])
        return output

    def end(
        self,
        result: WindowResult,
        reason: str,
        *,
        value: float | None = None,
        threshold: float | None = None,
        detail: str = "",
        calls: int = 0,
    ) -> WindowOutput:
        """Ends a window here; its audio travels no further."""
        ending = Ending(stage=self.name, reason=reason, value=value, threshold=threshold, detail=detail)
        return WindowOutput(dataclasses.replace(result, ending=ending), WindowAudio(), calls)


def model_source(name: str, asset: str, member: str = "") -> str:
    """A configured model: the path of the embedded one, or the configured name itself."""
    return str(asset_path(asset) / member) if name == "embedded" else name


def clip_slice(result: WindowResult, start_sample: int, end_sample: int) -> slice:
    """Bounds of a recording's samples as a slice of the window's."""
    first = result.window.start_sample
    return slice(start_sample - first, end_sample - first)
