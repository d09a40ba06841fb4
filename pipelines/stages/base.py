"""What a stage is: a pure function on records and audio. It knows no Ray and no Arrow; `engine/` runs it."""

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
from voxmill.core.errors import JobError, UserError
from voxmill.core.local_copies import local_model
from voxmill.core.storage import storage_failure
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

    samples: [T] at the window's rate, until the candidates are cut.
    step: samples and clips are whole multiples of it, less the window's `dc_offset`, and at most 32768 of them: so they
        can travel as int16 and come back bit by bit. 0 where they are any floats, as a separated voice is.
    original: before separation, [T] at 16 kHz, where a later stage of the same process asks for it; empty otherwise.
    clips: each candidate, [T] at the window's rate, without its gain.
    written: each candidate as its FLAC will hold it, [T] at 16 kHz, for later stages of the same process.
    """

    samples: np.ndarray = field(default_factory=lambda: NO_SAMPLES)
    step: float = 0.0
    original: np.ndarray = field(default_factory=lambda: NO_SAMPLES)
    clips: tuple[np.ndarray, ...] = ()
    written: tuple[np.ndarray, ...] = ()


class WindowOutput(NamedTuple):
    """What a stage makes of one window, its model calls, and seconds that took what was done a second time."""

    result: WindowResult
    audio: WindowAudio
    calls: int = 0
    again_seconds: float = 0.0


class WindowInput(NamedTuple):
    """A window that no stage has ended, as a stage gets it."""

    result: WindowResult
    audio: WindowAudio


class UnseenInputError(OSError):
    """An input that was read while scanning is not there for this machine: no recording is to blame for that."""


class UnitOutput(NamedTuple):
    """What a stage makes of a unit, audio in the order of its results; the rest as for a window."""

    unit: WorkUnit
    audio: tuple[WindowAudio, ...]
    calls: int = 0
    again_seconds: float = 0.0


class Stage(ABC):
    """Base of every stage. A subclass loads its models when it is built, and implements `window` or `run`.

    has_own_cost: whether its cost lies beside what it writes, and not in the unit's.
    is_final: whether it writes the unit with all that is known of it.

    Raises:
        UserError: a model cannot be loaded as configured.
    """

    name: ClassVar[StageName]
    has_own_cost: ClassVar[bool] = False
    is_final: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, context: StageContext) -> None: ...

    def window(self, result: WindowResult, audio: WindowAudio) -> WindowOutput:
        """Labels one window that no stage has ended."""
        raise NotImplementedError

    def run(self, unit: WorkUnit, audio: Sequence[WindowAudio]) -> UnitOutput:
        """Labels all windows of a unit, one after another; one that breaks the model ends, the others do not.

        Raises:
            OSError, MemoryError, ImportError, JobError: what no recording is to blame for.
        """
        outputs = [self._isolated(result, samples) for result, samples in zip(unit.results, audio, strict=True)]
        results = tuple(output.result for output in outputs)
        calls, again = sum(output.calls for output in outputs), sum(output.again_seconds for output in outputs)
        audio = tuple(output.audio for output in outputs)
        return UnitOutput(dataclasses.replace(unit, results=results), audio, calls, again)

    def _isolated(self, result: WindowResult, audio: WindowAudio) -> WindowOutput:
        if result.ending is not None:
            return WindowOutput(result, audio)
        try:
            output = self.window(result, audio)
        except (MemoryError, OSError, ImportError, UserError, JobError):
            raise
        # A library that asks to exit would take the actor with it, and Ray does not start such an actor again.
        except (Exception, SystemExit) as error:
            check_machine(error)
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


class BatchStage(Stage):
    """A stage whose batches go across the windows of a unit, and depend on the unit alone."""

    @abstractmethod
    def windows(self, given: Sequence[WindowInput]) -> list[WindowOutput]:
        """Labels windows together; one output each, in their order."""

    def window(self, result: WindowResult, audio: WindowAudio) -> WindowOutput:
        (output,) = self.windows([WindowInput(result, audio)])
        return output

    def run(self, unit: WorkUnit, audio: Sequence[WindowAudio]) -> UnitOutput:
        """Labels all windows of a unit together; where that breaks the model, one after another, to find which does."""
        given = [
            WindowInput(result, sound)
            for result, sound in zip(unit.results, audio, strict=True)
            if result.ending is None
        ]
        try:
            outputs = iter(self.windows(given) if given else [])
        except (MemoryError, OSError, ImportError, UserError, JobError):
            raise
        except (Exception, SystemExit) as error:
            check_machine(error)
            return super().run(unit, audio)
        results, sounds, calls, again = [], [], 0, 0.0
        for result, sound in zip(unit.results, audio, strict=True):
            output = next(outputs) if result.ending is None else WindowOutput(result, sound)
            results.append(output.result)
            sounds.append(output.audio)
            calls += output.calls
            again += output.again_seconds
        return UnitOutput(dataclasses.replace(unit, results=tuple(results)), tuple(sounds), calls, again)


def check_machine(error: BaseException) -> None:
    """Raises what is the machine's failure and no recording's.

    Raises:
        MemoryError: a GPU is full, in place of PyTorch's and CTranslate2's own errors.
        OSError, UserError: object storage fails, in place of its clients' own errors.
    """
    failure = storage_failure(error)
    if failure is not None:
        raise failure from error
    if "out of memory" in str(error).lower():
        raise MemoryError(str(error).splitlines()[0]) from error


def model_source(name: str, asset: str, member: str = "") -> str:
    """A configured model: the path of the embedded one, a copy of one by URI, or the configured name itself."""
    return str(asset_path(asset) / member) if name == "embedded" else local_model(name)


def clip_slice(result: WindowResult, start_sample: int, end_sample: int) -> slice:
    """Bounds of a recording's samples as a slice of the window's."""
    first = result.window.start_sample
    return slice(start_sample - first, end_sample - first)
