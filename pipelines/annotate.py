"""The main job: raw recordings to described, verified clips in WebDataset shards (report section 3.6).

    voxmill annotate IN OUT [config.yaml] [key=value ...]
    ray job submit --working-dir . -- python pipelines/annotate.py IN OUT [config.yaml] [key=value ...]

`voxmill annotate --help` describes both, which are one command.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    # A script's own folder is first on sys.path; the packages lie above it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from voxmill.cli.app import script

    script("annotate")

import datetime
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipelines.config import AnnotateConfig, LabelConfig
from pipelines.corpus.corrections.csv_file import wanted_corrections
from pipelines.corpus.trust import wer_fit
from pipelines.engine.pools import Cluster
from pipelines.engine.runner import Runner
from pipelines.finish import Labelled, Started, check_labels, finish
from pipelines.inputs.entries import Entry
from pipelines.inputs.planning import open_inputs, plan_corpus
from pipelines.report.run_record import Run
from pipelines.units.plan_files import planned_buckets
from pipelines.units.probe import check_nodes
from pipelines.units.workspace import Workspace
from voxmill.core.errors import UserError
from voxmill.core.local_ray import join_ray
from voxmill.core.machine.lease import in_turn
from voxmill.core.progress import Progress
from voxmill.core.storage import absolute

GPU_UNIT_SECONDS = 1800.0
"""Seconds of recordings in a unit where there are GPUs: batches span the recordings of a unit."""
GPU_BATCH_SECONDS = 960.0
"""Seconds of padded audio that Whisper decodes together where there are GPUs: 32 full pieces of 30 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One of `count` parts of the work; `index` counts from 0."""

    index: int
    count: int


def annotate(source: str, out: Path, config: AnnotateConfig) -> Run:
    """Runs the whole job and returns the content of `run.json`.

    Raises:
        UserError: IN names nothing, OUT was made with other labels, or it cannot be written.
        JobError: the machine fails; the same command resumes.
    """
    started, entries = _now(), open_inputs(source)
    with Workspace(out).claim(partial(settle, out, config)) as settled:
        config, progress = config.model_copy(update={"label": settled}), _begin(out, config)
        _plan(entries, out, config, progress)
        labelled = label(out, config, progress, planned_buckets(out))
        return finish(out, config, progress, labelled, started)


def annotate_share(source: str, out: Path, config: AnnotateConfig, share: Share) -> Labelled:
    """Plans the corpus and labels every `share.count`-th bucket of it: one of several jobs that divide the work.

    They run in any order or at once, and `finish_alone` after them. Nothing but labels is written.

    Raises:
        UserError: as `annotate`.
        JobError: the machine fails; the same command resumes.
    """
    workspace, entries = Workspace(out), open_inputs(source)
    lease = f"lease-{share.index}-of-{share.count}.json"
    with workspace.claim(partial(settle, out, config), lease=lease) as settled:
        config, progress = config.model_copy(update={"label": settled}), _begin(out, config)
        # The first job scans, the others read what it has found.
        with in_turn(workspace.folder / "plan-lease.json", str(out)):
            _plan(entries, out, config, progress)
        buckets = planned_buckets(out)
        mine = buckets[share.index :: share.count]
        progress.print(f"share {share.index} of {share.count}: {len(mine)} of {len(buckets)} buckets")
        return label(out, config, progress, mine)


def finish_alone(source: str, out: Path, config: AnnotateConfig) -> Run:
    """The steps over the corpus alone, where other jobs have labelled everything.

    Raises:
        UserError: units are not labelled yet, besides what `annotate` raises.
        JobError: the machine fails; the same command resumes.
    """
    started, entries = _now(), open_inputs(source)
    with Workspace(out).claim(partial(settle, out, config)) as settled:
        config, progress = config.model_copy(update={"label": settled}), _begin(out, config)
        _plan(entries, out, config, progress)
        runner = Runner(absolute(out), config, Cluster.now(), progress, planned_buckets(out))
        units, unlabelled, unvoiced = runner.unfinished()
        if unlabelled or unvoiced:
            raise UserError(
                f"{out}: of {units} work units, {unlabelled} are not labelled and {unvoiced} more lack labels of "
                "voices; run `voxmill annotate` first"
            )
        labelled = Labelled(units=units, found_done=units, attributed=0)
        return finish(out, config, progress, labelled, started)


def _plan(entries: Iterator[Entry], out: Path, config: AnnotateConfig, progress: Progress) -> None:
    """Plans the corpus, where every node of the cluster sees OUT; what cannot be finished is refused here."""
    check_nodes(absolute(out))
    plan_corpus(entries, out, config, progress)
    check_labels(absolute(out), config)


def label(out: Path, config: AnnotateConfig, progress: Progress, buckets: Sequence[int]) -> Labelled:
    """Runs every model over what it has not labelled yet of these buckets.

    Raises:
        JobError: the machine fails; what is done stays done.
        UserError: a model cannot be loaded as configured.
    """
    runner = Runner(absolute(out), config, Cluster.now(), progress, buckets)
    survey = runner.label_units()
    return Labelled(units=survey.units, found_done=survey.units - survey.undone, attributed=runner.label_voices())


def settle(out: Path, config: AnnotateConfig) -> LabelConfig:
    """The labels' configuration; lengths that the user asks nothing of are those that OUT was begun with.

    Where there is no OUT yet they fit the cluster. What units and batches are made of decides the bytes of the labels,
    so a job that goes on elsewhere, without the GPUs of the first, keeps to them.
    """
    label = config.label
    unit_seconds, batch_seconds = label.unit_seconds, label.transcription.batch_seconds
    known = Workspace(out).identity()
    if known is not None:
        unit_seconds, batch_seconds = _lengths(known, label)
    elif _has_gpus(out, config):
        unit_seconds, batch_seconds = GPU_UNIT_SECONDS, GPU_BATCH_SECONDS
    if "batch_seconds" not in label.transcription.model_fields_set:
        transcription = label.transcription.model_copy(update={"batch_seconds": batch_seconds})
        label = label.model_copy(update={"transcription": transcription})
    if "unit_seconds" not in config.label.model_fields_set:
        label = label.model_copy(update={"unit_seconds": unit_seconds})
    return label


def _lengths(identity: dict[str, object], label: LabelConfig) -> tuple[float, float]:
    """Seconds of units and of batches that an OUT was begun with; those of `label` where an older version began it."""
    transcription = identity.get("transcription", {})
    assert isinstance(transcription, dict)
    unit_seconds = identity.get("unit_seconds", label.unit_seconds)
    assert isinstance(unit_seconds, float)
    return unit_seconds, transcription.get("batch_seconds", label.transcription.batch_seconds)


def _has_gpus(out: Path, config: AnnotateConfig) -> bool:
    _begin(out, config)
    return bool(Cluster.now().gpus if config.run.gpus is None else config.run.gpus)


def _begin(out: Path, config: AnnotateConfig) -> Progress:
    """Joins Ray; what selection would end with after hours of labelling ends the job here.

    Raises:
        UserError: `select.wer_fit` is no fit for the recogniser, or there is something wrong with the corrections.
    """
    import ray

    wer_fit(config)
    wanted_corrections(out, config.corrections)
    if not ray.is_initialized():
        join_ray()
    return Progress(enabled=config.run.progress)


def _now() -> Started:
    return Started(time=datetime.datetime.now(datetime.UTC), clock=time.perf_counter())
