"""What flows between the stages of the graph: one row a work unit, its state as JSON and its audio as one blob.

Plain bytes instead of ragged tensors: Arrow carries them without guessing, and a row costs one copy a stage.
"""

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.config import LabelConfig, VoicesConfig
from pipelines.units.journal import Journal
from voxmill.core import malloc
from voxmill.core.errors import UserError

log = logging.getLogger("voxmill")

# Three minutes at 48 kHz.
LARGE_SAMPLES = 180 * 48000
_NOTHING = np.zeros(0, dtype=np.float32)


class UnitState:
    """A unit on its way: `state["parts"][i]` beside `audio[i]`, float32 mono at the part's own rate.

    `recorded[i]` is the part before separation at 16 kHz, where a later stage asks for it; empty otherwise.
    """

    def __init__(self, state: dict[str, Any], audio: list[np.ndarray], recorded: list[np.ndarray] | None = None):
        self.state, self.audio = state, audio
        self.recorded = recorded or [_NOTHING] * len(audio)

    @classmethod
    def from_row(cls, state: str, blob: bytes) -> "UnitState":
        values = json.loads(state)
        flat = np.frombuffer(blob, dtype=np.float32)
        sizes = [part.get(name, 0) for name in ("num_samples", "num_recorded") for part in values["parts"]]
        pieces = np.split(flat, np.cumsum(sizes)[:-1]) if sizes else []
        return cls(values, pieces[: len(values["parts"])], pieces[len(values["parts"]) :])

    def to_row(self) -> dict[str, Any]:
        for part, samples, recorded in zip(self.state["parts"], self.audio, self.recorded, strict=True):
            part["num_samples"], part["num_recorded"] = len(samples), len(recorded)
        blob = np.concatenate(self.audio + self.recorded).astype(np.float32).tobytes() if self.audio else b""
        return {"state": json.dumps(self.state), "audio": blob}

    def live(self) -> Iterator[tuple[int, dict[str, Any], np.ndarray]]:
        """Parts that no stage has ended yet."""
        for index, (part, samples) in enumerate(zip(self.state["parts"], self.audio, strict=True)):
            if "end" not in part:
                yield index, part, samples

    def end(
        self,
        index: int,
        stage: str,
        reason: str,
        *,
        value: float | None = None,
        threshold: float | None = None,
        detail: str = "",
    ) -> None:
        """Gives a part its terminal state; its audio travels no further."""
        self.state["parts"][index]["end"] = {
            "stage": stage,
            "reason": reason,
            "value": value,
            "threshold": threshold,
            "detail": detail,
        }
        self.audio[index] = self.recorded[index] = _NOTHING

    def fail(self, why: dict[str, str]) -> None:
        """Marks the whole unit as not to be done now: `kind` is `user` or `machine`, `message` is one line."""
        self.state["fatal"] = why
        self.release()

    def give_back(self) -> None:
        """Returns free memory to the system where this unit needs much of it; for short ones that only costs time."""
        parts = self.state["parts"]
        if sum(part["end_sample"] - part["start_sample"] for part in parts) >= LARGE_SAMPLES:
            malloc.release_free_memory()

    def release(self) -> None:
        """Lets go of all audio."""
        self.audio = [_NOTHING for _ in self.audio]
        self.recorded = [_NOTHING for _ in self.audio]


@dataclass(frozen=True)
class Settings:
    """What every stage is told: the recipes of the labels, CPU threads a model, and torch's device."""

    label: LabelConfig
    voices: VoicesConfig
    threads: int
    device: str


class Stage:
    """Base of every actor of the graph: unpacks rows, times them, counts calls, isolates a failing recording.

    A subclass names itself in `title`, loads its models in `load`, and implements `part` (one recording at a time) or
    `unit` (all of them). What no recording is to blame for (no space, no memory, a model that does not load) travels to
    the driver as `state["fatal"]`, past all later stages: the driver ends the job with one line.
    """

    title = ""

    def __init__(self, out: str, settings: Settings):
        self.out = Path(out)
        self.journal = Journal(self.out, self.title)
        self._broken: dict[str, str] | None = None
        try:
            self.load(settings)
        except UserError as error:
            self._broken = {"kind": "user", "message": str(error)}
        except (ImportError, MemoryError, OSError) as error:
            self._broken = _fatal(self.title, error)

    def load(self, settings: Settings) -> None:
        """Loads what the stage needs; called once an actor."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = []
        for state, blob in zip(batch["state"].to_pylist(), batch["audio"].to_pylist(), strict=True):
            unit = UnitState.from_row(state, blob)
            self.run(unit)
            rows.append(unit.to_row())
        return pa.table(
            {
                "state": pa.array([row["state"] for row in rows], pa.large_string()),
                "audio": pa.array([row["audio"] for row in rows], pa.large_binary()),
            }
        )

    def run(self, unit: UnitState) -> None:
        """Labels a unit, keeps what that took in its state, and marks it where the machine cannot go on."""
        if "fatal" in unit.state:
            return
        began = time.perf_counter()
        if self._broken is not None:
            unit.fail(self._broken)
            return
        try:
            self.journal.begin(unit.state["unit_id"])
            calls = self.unit(unit)
            self.journal.end(unit.state["unit_id"], calls)
        except (ImportError, MemoryError, OSError) as error:
            unit.fail(_fatal(self.title, error))
            return
        finally:
            unit.give_back()
        unit.state.setdefault("stages", {})[self.title] = {
            "seconds": time.perf_counter() - began,
            "audio_seconds": sum(p["num_samples"] / p["sample_rate"] for _, p, _ in unit.live()),
            "calls": calls,
        }

    def unit(self, unit: UnitState) -> int:
        """Labels all live parts of a unit and returns the number of model calls."""
        calls = 0
        for index, part, samples in list(unit.live()):
            try:
                calls += self.part(unit, index, part, samples)
            except (MemoryError, OSError, ImportError):
                raise
            except Exception as error:
                # One recording that breaks a model is named and passed by; the rest of the corpus goes on.
                log.exception("%s failed on %r", self.title, part["name"])
                unit.end(index, self.title, "model_error", detail=f"{type(error).__name__}: {error}"[:500])
        return calls

    def part(self, unit: UnitState, index: int, part: dict[str, Any], samples: np.ndarray) -> int:
        """Labels one part in place and returns the number of model calls."""
        raise NotImplementedError


def _fatal(title: str, error: BaseException) -> dict[str, str]:
    name = getattr(error, "filename", None)
    what = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return {"kind": "machine", "message": f"{title}: {what}" + (f" ({name})" if name else "")}
