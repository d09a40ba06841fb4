"""Runs what is not done yet, and finds the recordings that end the process that reads them.

A unit whose worker dies over it again and again comes back without a result. Such units are run once more alone, so
that only the guilty fail. A guilty unit is split for good (`work/split`), and a single recording that still ends its
worker gets the terminal state `crash`; over voices, a guilty unit stays without those labels.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from pipelines.config import AnnotateConfig
from pipelines.engine.graph import STAGES, Cluster, run_graph
from pipelines.stages.base import Stage
from pipelines.stages.voice_attributes import VoiceAttributes
from pipelines.units.journal import culprits
from pipelines.units.plan_files import split_folder
from pipelines.units.store import LabelStore, unit_path, write_unit
from pipelines.units.unit import label_fingerprint, split
from voxmill.core.errors import JobError, UserError
from voxmill.core.files import write_atomically
from voxmill.core.progress import Bar, Progress
from voxmill.data.records import Ending, StageName, WorkUnit

Units = list[WorkUnit]


class Runner:
    """Runs units through the stages on a cluster, for one OUT and configuration."""

    def __init__(self, out: Path, config: AnnotateConfig, cluster: Cluster, progress: Progress):
        self.out, self.config, self.cluster, self.progress = out, config, cluster, progress
        self.store = LabelStore(out, config.voice_attributes)

    def label_units(self, units: Units) -> tuple[Units, int]:
        """Labels all units that have no result yet.

        Returns:
            The units as they ended up, guilty ones split, and how many had been done before.

        Raises:
            JobError: the machine fails; what is done stays done.
            UserError: a model cannot be loaded as configured.
        """
        units = self._expand(units)
        undone = self._unlabelled(units)
        done = len(units) - len(undone)
        if done:
            left = {unit.unit_id for unit in undone}
            hours = sum(unit.seconds for unit in units if unit.unit_id not in left) / 3600
            self.progress.print(f"already done: {done} of {len(units)} work units ({hours:.2f} h)")
        if not undone:
            return units, done
        with self.progress.stage("Labelling", _hours(undone), "audio hours") as bar:
            guilty = self._run(undone, STAGES, self._unlabelled, bar)
            self._convict(guilty, bar)
        return self._expand(units), done

    def label_voices(self, units: Units) -> int:
        """Runs every labeller of voices that some finished unit lacks and returns how many units that were.

        Raises:
            JobError: the machine fails. UserError: a model cannot be loaded as configured.
        """
        undone = self._without_voices(units)
        if not undone:
            return 0
        with self.progress.stage("Voices", _hours(undone), "audio hours") as bar:
            guilty = self._run(undone, (VoiceAttributes,), self._without_voices, bar)
            for unit in guilty:
                names = ", ".join(repr(result.window.name) for result in unit.results[:3])
                self.progress.print(f"the labellers' process dies over the voices of {names}; they have no such labels")
                self.store.write_nothing(unit.bucket, unit.unit_id)
        return len(undone)

    def _unlabelled(self, units: Units) -> Units:
        return [unit for unit in units if not unit_path(self.out, unit.bucket, unit.unit_id).exists()]

    def _without_voices(self, units: Units) -> Units:
        return [unit for unit in units if self.store.missing(unit.bucket, unit.unit_id)]

    def _run(self, undone: Units, stages: Sequence[type[Stage]], missing: Callable[[Units], Units], bar: Bar) -> Units:
        """Runs units, those that ended their workers once more alone; returns the units that do so even then."""
        self._pass(undone, stages, bar)
        suspects = missing(undone)
        if len(suspects) == len(undone) > 1:
            where = ", ".join(culprits(self.out, suspects[0].unit_id)) or "the first stage"
            raise JobError(f"every worker ended before its first result, in {where}; is there memory for the models?")
        if suspects:
            self.progress.print(f"{len(suspects)} work units ended their workers; they are run again one by one")
            self._pass(suspects, stages, bar, alone=True)
        return missing(suspects)

    def _pass(self, units: Units, stages: Sequence[type[Stage]], bar: Bar, *, alone: bool = False) -> None:
        seconds = {unit.unit_id: unit.seconds for unit in units}
        if tuple(stages) != STAGES:
            # A finished unit is read back from its file.
            units = [dataclasses.replace(unit, results=()) for unit in units]
        cluster = dataclasses.replace(self.cluster, workers=1) if alone else self.cluster
        in_flight = 1 if alone else 2
        for unit in run_graph(units, stages, self.out.resolve(), self.config, cluster, in_flight):
            if unit.failure is not None:
                raise (UserError if unit.failure.kind == "user" else JobError)(unit.failure.message)
            bar.advance(seconds[unit.unit_id] / 3600)

    def _split_mark(self, unit_id: str) -> Path:
        return split_folder(self.out) / unit_id

    def _expand(self, units: Units) -> Units:
        """Units with those that were split replaced by their windows."""
        label = label_fingerprint(self.config.label)
        expanded: Units = []
        for unit in units:
            expanded += split(unit, label) if self._split_mark(unit.unit_id).exists() else [unit]
        return expanded

    def _convict(self, guilty: Units, bar: Bar) -> None:
        """Splits guilty units, runs their windows alone, and gives those that still end their worker a result."""
        singles: Units = []
        for unit in guilty:
            if len(unit.results) > 1:
                write_atomically(self._split_mark(unit.unit_id), b"")
                singles += split(unit, label_fingerprint(self.config.label))
            else:
                singles.append(unit)
        undone = [unit for unit in self._unlabelled(singles) if unit not in guilty]
        if undone:
            self._pass(undone, STAGES, bar, alone=True)
        for unit in self._unlabelled(singles):
            self._write_crashed(unit)
            bar.advance(unit.seconds / 3600)

    def _write_crashed(self, unit: WorkUnit) -> None:
        """The terminal state of a recording that ends the process of some stage."""
        stage = (culprits(self.out, unit.unit_id) or [StageName.DECODE])[-1]
        ending = Ending(stage=stage, reason="crash", detail="its worker process died")
        results = tuple(dataclasses.replace(result, ending=ending) for result in unit.results)
        write_unit(unit_path(self.out, unit.bucket, unit.unit_id), dataclasses.replace(unit, results=results))


def _hours(units: Units) -> float:
    return sum(unit.seconds for unit in units) / 3600
