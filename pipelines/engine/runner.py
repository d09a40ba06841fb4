"""Runs what is not done yet, and finds the recordings that end the process that reads them.

A unit whose worker dies over it again and again comes back without a result. Such units are run once more alone, so
that only the guilty fail; a guilty unit is split for good (`work/split`), and a single recording that still ends its
worker gets the terminal state `crash`.
"""

import json
from dataclasses import asdict
from pathlib import Path

from pipelines.config import AnnotateConfig
from pipelines.inputs.scan import label_fingerprint
from pipelines.units.journal import culprits
from pipelines.units.unit import Unit, split, unit_path
from voxmill.core.errors import JobError, UserError
from voxmill.core.files import write_atomically
from voxmill.core.progress import Bar, Progress
from voxmill.data.shards import TarWriter, to_json


def label_units(
    units: list[Unit], out: Path, config: AnnotateConfig, workers: int, gpus: float, progress: Progress
) -> tuple[list[Unit], int]:
    """Labels all units that have no result yet.

    Returns:
        The units as they ended up, guilty ones split, and how many had been done before.

    Raises:
        JobError: the machine cannot go on; what is done stays done.
        UserError: a model cannot be loaded as configured.
    """
    units = _expand(units, out, config)
    undone = _missing(units, out)
    done = len(units) - len(undone)
    if done:
        left = {unit.unit_id for unit in undone}
        hours = sum(unit.seconds for unit in units if unit.unit_id not in left) / 3600
        progress.print(f"found done: {done} of {len(units)} work units ({hours:.2f} h)")
    if not undone:
        return units, done
    with progress.stage("Labelling", sum(unit.seconds for unit in undone) / 3600, "audio hours") as bar:
        _run(undone, out, config, workers, gpus, bar)
        suspects = _missing(undone, out)
        if len(suspects) == len(undone) > 1:
            where = ", ".join(culprits(out, suspects[0].unit_id)) or "the first stage"
            raise JobError(f"every worker ended before its first result, in {where}; is there memory for the models?")
        if suspects:
            progress.print(f"{len(suspects)} work units ended their workers; they are run again one by one")
            _run(suspects, out, config, 1, gpus, bar, in_flight=1)
            _convict(_missing(suspects, out), out, config, gpus, bar)
    return _expand(units, out, config), done


def _missing(units: list[Unit], out: Path) -> list[Unit]:
    return [unit for unit in units if not unit_path(out, unit.unit_id).exists()]


def _run(
    units: list[Unit], out: Path, config: AnnotateConfig, workers: int, gpus: float, bar: Bar, in_flight: int = 2
) -> None:
    from pipelines.engine.graph import run_units

    seconds = {unit.unit_id: unit.seconds for unit in units}
    for text in run_units(units, str(out.resolve()), config, workers, gpus, in_flight):
        state = json.loads(text)
        fatal = state.get("fatal")
        if fatal:
            raise (UserError if fatal["kind"] == "user" else JobError)(fatal["message"])
        bar.advance(seconds[state["unit_id"]] / 3600)


def _split_mark(out: Path, unit_id: str) -> Path:
    return out / "work" / "split" / unit_id


def _expand(units: list[Unit], out: Path, config: AnnotateConfig) -> list[Unit]:
    """Units with those that were split replaced by their parts."""
    label = label_fingerprint(config.label)
    result: list[Unit] = []
    for unit in units:
        result += split(unit, label) if _split_mark(out, unit.unit_id).exists() else [unit]
    return result


def _convict(guilty: list[Unit], out: Path, config: AnnotateConfig, gpus: float, bar: Bar) -> None:
    singles: list[Unit] = []
    for unit in guilty:
        if len(unit.parts) > 1:
            write_atomically(_split_mark(out, unit.unit_id), b"")
            singles += split(unit, label_fingerprint(config.label))
        else:
            singles.append(unit)
    undone = [unit for unit in _missing(singles, out) if unit not in guilty]
    if undone:
        _run(undone, out, config, 1, gpus, bar, in_flight=1)
    for unit in _missing(singles, out):
        _write_crashed(unit, out)
        bar.advance(unit.seconds / 3600)


def _write_crashed(unit: Unit, out: Path) -> None:
    """The terminal state of a recording that ends the process of some stage."""
    stage = (culprits(out, unit.unit_id) or ["Decode"])[-1]
    end = {"stage": stage, "reason": "crash", "value": None, "threshold": None, "detail": "its worker process died"}
    state = {"unit_id": unit.unit_id, "parts": [asdict(part) | {"end": end, "num_samples": 0} for part in unit.parts]}
    with TarWriter(unit_path(out, unit.unit_id)) as tar:
        tar.add("unit.json", to_json(state))
