"""What `run.json` records of a finished run, and its reader."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NotRequired, TypedDict

from pipelines.corpus.figures import CorpusLabelFigures, TrustFigures
from voxmill.core.errors import UserError


class StageCost(TypedDict):
    """Compute of one stage over the run: seconds of work, those of them on a GPU, seconds of audio after it, calls."""

    name: str
    seconds: float
    gpu_seconds: NotRequired[float]
    audio_seconds: float
    calls: int


class ModelEntry(TypedDict):
    """A model that made labels. `stage` is a `StageName`."""

    stage: str
    name: str
    source: str
    sha256: str | None
    licence: str | None


class SeparationFigures(TypedDict):
    """How often separation ran, and the compute that running it only where needed spared."""

    mode: str
    rule: str
    recordings_separated: int
    recordings_total: int
    seconds_spent: float
    seconds_saved: float | None


class OtherFiles(TypedDict):
    """Files of IN that are no recordings, and the names of the first ones."""

    count: int
    examples: list[str]


class SecondDecodings(TypedDict):
    """Clips that were decoded twice, by why, of all that were transcribed, and the seconds that it took of all."""

    clips: int
    twice: int
    why: dict[str, int]
    seconds_spent: float
    seconds_of_all: float


class CorrectionFigures(TypedDict):
    """Rows of corrections in force, what they changed by kind (clips), and those of clips that are not there."""

    rows: int
    clips: dict[str, int]
    unknown: int
    unknown_examples: list[str]


class Run(TypedDict, total=False):
    """The keys of `run.json`."""

    config: Mapping[str, object]
    versions: dict[str, str]
    models: list[ModelEntry]
    stages: list[StageCost]
    separation: SeparationFigures
    second_decodings: SecondDecodings
    trust: TrustFigures
    corrections: CorrectionFigures
    corpus_labels: CorpusLabelFigures
    model_calls: int
    model_calls_repeated: int
    shards: int
    recordings: int
    other_files: OtherFiles
    units: int
    found_done: int
    labelled: int
    units_attributed: int
    kept: int
    rejected: int
    hours_in: float
    hours_kept: float
    started: str
    finished: str
    wall_seconds: float
    workers: int
    seed: int


def read_run(out: Path) -> Run:
    """Reads OUT/run.json.

    Raises:
        UserError: it was written by a voxmill with other keys.
    """
    run: Run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    if "control" in run:
        raise UserError(f"{out / 'run.json'}: of an older voxmill; run `voxmill annotate` again into an empty OUT")
    return run
