"""The actor of the graph: runs stages over work units, keeps their costs, and tells failures of the machine apart."""

import dataclasses
import threading
import time
from dataclasses import dataclass

import pyarrow as pa

from pipelines.engine.rows import Row, from_rows, no_audio, to_rows
from pipelines.inputs.media_file import StorageError
from pipelines.stages.base import Stage, StageContext, UnitOutput, UnseenInputError, WindowAudio
from pipelines.units.attempts import AttemptLog, attempts_path, with_lost_calls
from pipelines.units.probe import Probe
from voxmill.core.errors import JobError, UserError
from voxmill.core.local_ray import this_node
from voxmill.core.machine.malloc import release_free_memory
from voxmill.core.storage import storage_failure
from voxmill.data.layout import bucket_name
from voxmill.data.records import Cost, JobFailure, StageName, WorkUnit

# Three minutes at 48 kHz.
LARGE_SAMPLES = 180 * 48000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """What a worker is for.

    run: names the job. stages: run one after another over each unit. on_gpu: each worker has a GPU for them.
    is_last: a unit is done after them.
    probe: shows whether the worker's machine shares OUT; None: it does.
    """

    run: str
    stages: tuple[type[Stage], ...]
    is_last: bool
    on_gpu: bool = False
    probe: Probe | None = None


class Worker:
    """Runs stages one after another over each unit; audio stays in this process between them.

    A failure that no recording is to blame for (no space, no memory, a model that does not load, a folder that is not
    mounted) travels to the driver in the unit, past all later stages: the driver ends the job with one line.
    """

    def __init__(self, shift: Shift, context: StageContext):
        self._shift, self._context = shift, context
        self._node, self._node_name = this_node()
        self._stages: list[Stage] = []
        # Where an actor has two threads, one unpacks the next unit and packs the last while the other computes.
        self._computing = threading.Lock()
        self._failure: JobFailure | None = None
        try:
            if shift.probe is not None:
                shift.probe.check(self._node_name)
        except JobError as error:
            self._failure = JobFailure(kind="machine", message=str(error))
            return
        for stage in shift.stages:
            try:
                self._stages.append(stage(context))
            except Exception as error:
                self._failure = self._job_failure(stage.name, error)
                if self._failure is None:
                    raise
            if self._failure is not None:
                return

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = from_rows(batch)
        with self._computing:
            done = [self.run(row) for row in rows]
        return to_rows(done)

    def run(self, row: Row) -> Row:
        """Runs all stages over a unit; none after a failure. A unit that is done comes back without its results."""
        unit, audio, seconds = row
        if self._failure is not None and unit.failure is None:
            unit = dataclasses.replace(unit, failure=self._failure)
        if unit.failure is None:
            unit, audio = self._run_stages(unit, audio)
        if self._shift.is_last:
            unit = dataclasses.replace(unit, results=(), costs={})
        return Row(unit, audio if unit.failure is None and unit.results else no_audio(unit), seconds)

    def _run_stages(self, unit: WorkUnit, audio: tuple[WindowAudio, ...]) -> tuple[WorkUnit, tuple[WindowAudio, ...]]:
        name: StageName = self._shift.stages[0].name
        path = attempts_path(self._context.out, bucket_name(unit.bucket), unit.unit_id)
        log = AttemptLog(path, self._shift.run, self._node)
        try:
            for stage in self._stages:
                name = stage.name
                log.begin(name)
                if stage.is_final:
                    unit = with_lost_calls(unit, log.attempts)
                began = time.perf_counter()
                output = stage.run(unit, audio)
                log.count(output.calls)
                unit, audio = self._with_cost(stage, output, time.perf_counter() - began), output.audio
                _release_memory(unit)
            if self._shift.is_last:
                log.remove()
            else:
                log.end()
        except Exception as error:
            failure = self._job_failure(name, error)
            if failure is not None:
                return dataclasses.replace(unit, failure=failure), audio
            log.end(f"{type(error).__name__}: {error}"[:300])
            raise
        return unit, audio

    def _with_cost(self, stage: Stage, output: UnitOutput, seconds: float) -> WorkUnit:
        if stage.has_own_cost:
            return output.unit
        left = sum(result.window.seconds for result in output.unit.results if result.ending is None)
        gpu_seconds = seconds if self._shift.on_gpu else 0.0
        cost = Cost(
            seconds=seconds,
            gpu_seconds=gpu_seconds,
            again_seconds=output.again_seconds,
            audio_seconds=left,
            calls=output.calls,
        )
        return dataclasses.replace(output.unit, costs=output.unit.costs | {stage.name: cost})

    def _job_failure(self, name: StageName, error: Exception) -> JobFailure | None:
        """What ends the job and is no recording's fault; None where that may be the unit's."""
        if not isinstance(error, UnseenInputError | StorageError):
            error = storage_failure(error) or error
        if isinstance(error, UserError):
            return JobFailure(kind="user", message=str(error))
        if isinstance(error, JobError):
            return JobFailure(kind="machine", message=f"{name}: {error}")
        if not isinstance(error, ImportError | MemoryError | OSError):
            return None
        place = getattr(error, "filename", None)
        if isinstance(error, UnseenInputError):
            message = f"IN ({place}) is not visible on node {self._node_name}"
            return JobFailure(kind="machine", message=message, path=str(place))
        what = getattr(error, "strerror", None) or str(error) or type(error).__name__
        where = f" ({place})" if place else ""
        return JobFailure(kind="machine", message=f"{name}: {what}{where} on node {self._node_name}")


def _release_memory(unit: WorkUnit) -> None:
    """Gives free memory back to the system after a long unit; after short ones that only costs time."""
    if sum(result.window.end_sample - result.window.start_sample for result in unit.results) >= LARGE_SAMPLES:
        release_free_memory()
