"""Runs what is not done yet, and finds the recordings that end the process that reads them.

What dies is asked for its reason: with a node (a machine that is taken away) dies whatever works on it, and that counts
against no unit. A unit whose worker dies over it again and again on nodes that stay is run again with every actor given
one unit at a time, so that only the guilty fail. A guilty unit is split for good (`work/split`), and a single recording
that still ends its worker gets the terminal state `crash`; over voices, a guilty unit stays without those labels.
"""

import dataclasses
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipelines.config import AnnotateConfig
from pipelines.engine.graph import RETRIES, Units, run_graph
from pipelines.engine.pools import STAGES, VOICE_STAGES, Cluster, plan_pools
from pipelines.stages.base import Stage
from pipelines.units.attempts import Attempt, attempts_path, deaths, read_attempts
from pipelines.units.label_store import LabelStore
from pipelines.units.plan_files import read_units, split_folder
from pipelines.units.probe import Probe, probe
from pipelines.units.store import unit_path, write_unit
from pipelines.units.unit import label_fingerprint, split
from voxmill.core.errors import JobError, UserError
from voxmill.core.files import write_atomically
from voxmill.core.local_ray import alive_nodes, on_node, this_node
from voxmill.core.local_ray.tasks import map_tasks
from voxmill.core.progress import Bar, Progress
from voxmill.core.storage import file_names, to_path
from voxmill.data.layout import bucket_name
from voxmill.data.records import Ending, JobFailure, StageName, WorkUnit

# Three tries among others and three alone.
GUILTY_DEATHS = 2 * (RETRIES + 1)
# Looking through a few buckets is quicker than starting a worker that does.
BUCKETS_AT_HAND = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Counts over the plan: units, those without a result, and the hours of these."""

    units: int
    undone: int
    hours: float


class Runner:
    """Runs the planned units of some buckets through the stages on a cluster, for one OUT and configuration.

    Args:
        stages: the last of them finishes a unit; others than the real ones for measurements.
    """

    def __init__(
        self,
        out: Path,
        config: AnnotateConfig,
        cluster: Cluster,
        progress: Progress,
        buckets: Sequence[int],
        stages: Sequence[type[Stage]] = STAGES,
    ):
        self.out, self.config, self.cluster, self.progress = out, config, cluster, progress
        self.buckets, self.stages = tuple(buckets), tuple(stages)
        self.store = LabelStore(out, config.voice_attributes)
        self._run = uuid.uuid4().hex[:12]

    def label_units(self) -> Survey:
        """Labels all units that have no result yet; returns what there was to do.

        Raises:
            JobError: the machine fails; what is done stays done.
            UserError: a model cannot be loaded as configured.
        """
        undone = partial(_unlabelled, self.out, self.config)
        survey, buckets = self._survey(undone)
        if survey.units > survey.undone:
            done = survey.units - survey.undone
            self.progress.print(f"already done: {done} of {survey.units} work units")
        if survey.undone:
            with self.progress.stage("Labelling", survey.hours, "audio hours") as bar, probe(self.out) as shared:
                guilty = self._complete(buckets, undone, self.stages, survey, shared, bar)
                self._convict(guilty, undone, shared, bar)
        return survey

    def label_voices(self) -> int:
        """Runs every labeller of voices that some finished unit lacks and returns how many units that were.

        Raises:
            JobError: the machine fails. UserError: a model cannot be loaded as configured.
        """
        undone = partial(_without_voices, self.out, self.config)
        survey, buckets = self._survey(undone)
        if survey.undone:
            with self.progress.stage("Voices", survey.hours, "audio hours") as bar, probe(self.out) as shared:
                for unit in self._complete(buckets, undone, VOICE_STAGES, survey, shared, bar):
                    self.progress.print(f"the labellers' process dies over {_names(unit)}; it has no such labels")
                    self.store.write_nothing(unit.bucket, unit.unit_id)
        return survey.undone

    def unfinished(self) -> tuple[int, int, int]:
        """Planned units, those that have no result yet, and those that have one and lack labels of voices."""
        unlabelled, _ = self._survey(partial(_unlabelled, self.out, self.config))
        lacking, _ = self._survey(partial(_without_voices, self.out, self.config))
        return unlabelled.units, unlabelled.undone, max(lacking.undone - unlabelled.undone, 0)

    def _survey(self, undone: Units) -> tuple[Survey, list[int]]:
        """Counts over all buckets, and the buckets that hold anything to do."""
        count = partial(_count, self.out, self.config, undone)
        if len(self.buckets) <= BUCKETS_AT_HAND:
            counted = [(bucket, count(bucket)) for bucket in self.buckets]
        else:
            counted = list(map_tasks(count, self.buckets, num_cpus=0.5))
        survey = Survey(
            units=sum(one.units for _, one in counted),
            undone=sum(one.undone for _, one in counted),
            hours=sum(one.hours for _, one in counted),
        )
        return survey, sorted(bucket for bucket, one in counted if one.undone)

    def _complete(
        self,
        buckets: Sequence[int],
        undone: Units,
        stages: Sequence[type[Stage]],
        survey: Survey,
        shared: Probe,
        bar: Bar,
    ) -> list[WorkUnit]:
        """Runs units until each is done or guilty; returns the guilty ones."""
        ended = self._pass(buckets, undone, stages, survey.undone, shared, bar)
        left = [unit for bucket in buckets for unit in undone(bucket)]
        if left and not ended and survey.undone > 1:
            raise JobError(f"every worker ended before its first result, in {self._culprit(left[0])}; is there memory?")
        return self._complete_alone(left, ended, GUILTY_DEATHS, undone, stages, shared, bar)

    def _complete_alone(
        self,
        left: list[WorkUnit],
        ended: int,
        guilty_deaths: int,
        undone: Units,
        stages: Sequence[type[Stage]],
        shared: Probe,
        bar: Bar,
    ) -> list[WorkUnit]:
        """Runs units that a pass has left, each by itself, until each is done or guilty; returns the guilty ones.

        Args:
            ended: how many came back in that pass.
            guilty_deaths: of workers, by which a unit is guilty.
        """
        guilty: list[WorkUnit] = []
        counts: dict[str, int] = {}
        while left:
            died = {unit.unit_id: self._deaths(unit) for unit in left}
            guilty += [unit for unit in left if died[unit.unit_id] >= guilty_deaths]
            left = [unit for unit in left if died[unit.unit_id] < guilty_deaths]
            if not left:
                break
            if died == counts and not ended:
                raise JobError(f"{len(left)} work units come back without a result, the first at {_names(left[0])}")
            counts = {unit.unit_id: died[unit.unit_id] for unit in left}
            suspects = sum(count > 0 for count in counts.values())
            if suspects:
                self.progress.print(f"{suspects} work units ended their workers; each is run again by itself")
            if suspects < len(left):
                self.progress.print(f"{len(left) - suspects} work units were lost with their nodes; they are run again")
            ended = self._again(left, stages, shared, bar)
            left = [unit for unit in left if self._is_undone(unit, undone)]
        return guilty

    def _again(self, units: list[WorkUnit], stages: Sequence[type[Stage]], shared: Probe, bar: Bar) -> int:
        """Runs a few units, each actor given one at a time; returns how many came back."""
        return self._pass((0,), partial(_these, units), stages, len(units), shared, bar, alone=True)

    def _pass(
        self,
        buckets: Sequence[int],
        units: Units,
        stages: Sequence[type[Stage]],
        count: int,
        shared: Probe,
        bar: Bar,
        *,
        alone: bool = False,
    ) -> int:
        """Runs units once and returns how many came back.

        Raises:
            UserError, JobError: what a worker reports that no recording is to blame for, or Ray's own failure.
        """
        from ray.exceptions import RayError

        pools = plan_pools(stages, self.config.run, self.cluster, count, alone=alone)
        if tuple(stages) == VOICE_STAGES:
            units = partial(_without_results, units)
        ended = 0
        try:
            for row in run_graph(buckets, units, pools, out=self.out, config=self.config, run=self._run, probe=shared):
                if row.unit.failure is not None:
                    raise _error(row.unit.failure)
                ended += 1
                bar.advance(row.seconds / 3600)
        except RayError as error:
            raise JobError(f"Ray: {str(error).strip().splitlines()[-1]}") from error
        return ended

    def _is_undone(self, unit: WorkUnit, undone: Units) -> bool:
        return any(one.unit_id == unit.unit_id for one in undone(unit.bucket))

    def _attempts(self, unit: WorkUnit) -> tuple[Attempt, ...]:
        return read_attempts(attempts_path(self.out, bucket_name(unit.bucket), unit.unit_id))

    def _deaths(self, unit: WorkUnit) -> int:
        return deaths(self._attempts(unit), self._run, alive_nodes())

    def _culprit(self, unit: WorkUnit) -> StageName:
        """The stage in which a unit ended its last worker."""
        unfinished = [one.stage for one in self._attempts(unit) if not one.ended]
        return unfinished[-1] if unfinished else StageName.DECODE

    def _convict(self, guilty: list[WorkUnit], undone: Units, shared: Probe, bar: Bar) -> None:
        """Splits guilty units, runs their windows alone, and gives those that still end their workers a result."""
        label_id = label_fingerprint(self.config.label)
        parts: list[WorkUnit] = []
        for unit in guilty:
            if len(unit.results) > 1:
                write_atomically(split_folder(self.out) / unit.unit_id, b"")
                parts += split(unit, label_id)
                attempts_path(self.out, bucket_name(unit.bucket), unit.unit_id).unlink(missing_ok=True)
        ended = self._again(parts, self.stages, shared, bar) if parts else 0
        # One that was lost with its node, or that ended fewer workers than it was given, is run again.
        left = [unit for unit in parts if self._is_undone(unit, undone)]
        guilty = [unit for unit in guilty if len(unit.results) == 1]
        guilty += self._complete_alone(left, ended, RETRIES + 1, undone, self.stages, shared, bar)
        for unit in guilty:
            self._write_crashed(unit)
            bar.advance(unit.seconds / 3600)

    def _write_crashed(self, unit: WorkUnit) -> None:
        """The terminal state of a recording that ends the process of some stage."""
        errors = [one.error for one in self._attempts(unit) if one.error]
        detail = errors[-1] if errors else "its worker process died"
        ending = Ending(stage=self._culprit(unit), reason="crash", detail=detail)
        results = tuple(dataclasses.replace(result, ending=ending) for result in unit.results)
        write_unit(unit_path(self.out, unit.bucket, unit.unit_id), dataclasses.replace(unit, results=results))
        attempts_path(self.out, bucket_name(unit.bucket), unit.unit_id).unlink(missing_ok=True)


def _unlabelled(out: Path, config: AnnotateConfig, bucket: int) -> list[WorkUnit]:
    """Units of a bucket that have no file, by one listing."""
    done = file_names(unit_path(out, bucket, "").parent)
    return [unit for unit in read_units(out, bucket, config.label) if f"{unit.unit_id}.tar" not in done]


def _without_voices(out: Path, config: AnnotateConfig, bucket: int) -> list[WorkUnit]:
    """Units of a bucket that lack an answer of some labeller, by a listing a labeller."""
    lacking = LabelStore(out, config.voice_attributes).lacking(bucket)
    return [unit for unit in read_units(out, bucket, config.label) if lacking(unit.unit_id)]


def _count(out: Path, config: AnnotateConfig, undone: Units, bucket: int) -> Survey:
    left = undone(bucket)
    hours = sum(unit.seconds for unit in left) / 3600
    return Survey(units=len(read_units(out, bucket, config.label)), undone=len(left), hours=hours)


def _these(units: list[WorkUnit], _: int) -> list[WorkUnit]:
    return units


def _without_results(units: Units, bucket: int) -> list[WorkUnit]:
    """Finished units, whose clips are read back from their files."""
    return [dataclasses.replace(unit, results=()) for unit in units(bucket)]


def _names(unit: WorkUnit) -> str:
    return ", ".join(repr(result.window.name) for result in unit.results[:3])


def _error(failure: JobFailure) -> UserError | JobError:
    """What the job ends with; of an input that one machine does not see, whether others do."""
    if failure.kind == "user":
        return UserError(failure.message)
    if not failure.path:
        return JobError(failure.message)
    if any(seen for _, seen in _look_everywhere(failure.path)):
        return JobError(f"{failure.message}, and others see it; mount it there, too")
    return JobError(f"{failure.message}, nor on any other any more, though it was while scanning")


def _look_everywhere(path: str) -> list[tuple[str, bool]]:
    """(node, whether it sees a path) of every node that is there."""
    import ray
    from ray.exceptions import RayError

    def look() -> bool:
        return to_path(path).exists()

    found = [(this_node()[0], look())]
    for node in sorted(alive_nodes() - {this_node()[0]}):
        task = ray.remote(num_cpus=0, scheduling_strategy=on_node(node))(look)
        try:
            found.append((node, ray.get(task.remote(), timeout=60)))
        except RayError:
            found.append((node, False))
    return found
